//! What a device is: its identity, memory, copy engines and link.

use std::fmt;

/// Which family of drivers a device belongs to. Streams, events and pinned ranges never cross families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The simulated device of this crate.
    Sim,
    /// An NVIDIA GPU through the CUDA driver.
    Cuda,
}

/// A device's name within the process, such as `sim:0` or `cuda:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId {
    /// The family of drivers.
    pub backend: Backend,
    /// The device's index within its family, from 0.
    pub ordinal: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.backend {
            Backend::Sim => "sim",
            Backend::Cuda => "cuda",
        };
        write!(f, "{family}:{}", self.ordinal)
    }
}

/// What is known of the link between host and device.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Link {
    /// What the link is, for people: `PCIe Gen5 x16`, `simulated`.
    pub name: String,
    /// Bytes per second in one direction, where the driver knows or assumes one; `None` where nothing throttles.
    pub bytes_per_second: Option<f64>,
}

impl Link {
    /// A link with a name for people and a rate in bytes per second, if there is one.
    #[must_use]
    pub fn new(name: impl Into<String>, bytes_per_second: Option<f64>) -> Self {
        Self {
            name: name.into(),
            bytes_per_second,
        }
    }
}

/// What a device is. Constant while the driver lives.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties {
    /// The device's name within the process.
    pub id: DeviceId,
    /// Devices of one backend and one group know each other's streams, events, pinned ranges and memory. All CUDA devices
    /// of a process are one group, all devices of a simulated machine another.
    pub group: u64,
    /// The product's name, for people.
    pub name: String,
    /// Memory of the device in bytes.
    pub memory_bytes: u64,
    /// Copies that can run at the same time as each other and as compute; 1 means that both directions share one.
    pub copy_engines: u32,
    /// The link to the host.
    pub link: Link,
    /// The NUMA node of the host that the device hangs on, where there are several and it is known.
    pub numa_node: Option<u32>,
    /// Where the device sits, such as `0000:17:00.0`, where it is known: what tells two of one product apart.
    pub pci_address: Option<String>,
    /// What the driver's library speaks, such as `CUDA 13.0`, where there is one and it tells.
    pub library: Option<String>,
    /// Whether this device only simulates: true figures of hardware never come from it.
    pub simulated: bool,
}

impl Properties {
    /// Whether events of one device can order streams of the other, and memory of one can be copied to the other.
    #[must_use]
    pub fn shares_group_with(&self, other: &Self) -> bool {
        self.id.backend == other.id.backend && self.group == other.group
    }
}

/// Device memory at this moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// What can be allocated here: not allocated by anyone, or kept [idle](crate::Driver::idle_bytes) by this driver.
    pub free: u64,
    /// All there is.
    pub total: u64,
}
