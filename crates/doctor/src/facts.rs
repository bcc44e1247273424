//! What is known of a machine: plain data, read by [`probe`](mod@crate::probe) or made up by tests.
//!
//! What a machine does not tell is `None`. Rates are bytes per second, sizes bytes, times seconds.

use std::path::PathBuf;

use pinlane::MemcpyRate;
use pinlane_driver::LinkState;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::Cores;

/// A machine, as this process sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    /// Processor, cores and nodes.
    pub host: Host,
    /// Memory and its limits.
    pub memory: Memory,
    /// What the process runs in.
    pub surroundings: Surroundings,
    /// How many processors' time others used while all this was measured: other programs, and other guests of the host.
    pub busy_elsewhere: Option<f64>,
    /// Copies within host memory, by threads; empty where they were not measured.
    pub memcpy: Vec<MemcpyRate>,
    /// The disk that temporary files are on.
    pub disk: Disk,
    /// Whether `io_uring` works. Pinlane does without.
    pub io_uring: IoUring,
    /// The Python that a command line finds.
    pub python: Option<Python>,
    /// GPUs.
    pub accelerators: Accelerators,
}

/// Processor, cores and nodes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Host {
    /// The processor's product name.
    pub processor: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Cores that are there.
    pub online: Cores,
    /// Cores that this process may run on.
    pub allowed: Cores,
    /// How many cores' time the process's control group allows it, where there is a limit.
    pub quota: Option<f64>,
    /// The nodes of memory and their cores.
    pub nodes: Vec<Node>,
}

/// Memory that some cores are nearer to than others.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Node {
    /// Its number.
    pub number: u32,
    /// The cores that are near.
    pub cores: Cores,
}

/// Memory and its limits.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory {
    /// All there is.
    pub total: Option<u64>,
    /// What a process can get without others losing theirs.
    pub available: Option<u64>,
    /// The least limit of the process's control groups.
    pub limit: Option<u64>,
    /// When the kernel gives large pages by itself: `always`, `madvise`, `never`.
    pub huge_pages: Option<String>,
    /// Large pages that were set aside, and their size.
    pub reserved_huge_pages: Option<u64>,
    /// The size of a large page.
    pub huge_page_bytes: Option<u64>,
    /// What the process may lock in memory: `Some(None)` for as much as it likes.
    pub locked_limit: Option<Option<u64>>,
}

/// What the process runs in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Surroundings {
    /// The kind of container.
    pub container: Option<String>,
    /// Whether this is Windows' Subsystem for Linux.
    pub wsl: bool,
    /// How much `/dev/shm` holds, through which torch's loader processes send batches.
    pub shared_memory: Option<u64>,
}

/// What the disk of temporary files reaches, by the engine's own readers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Disk {
    /// The folder.
    pub folder: PathBuf,
    /// The type of its file system.
    pub file_system: Option<String>,
    /// The bytes that were written and read; none where that failed.
    pub bytes: u64,
    /// Written, and on the disk.
    pub written: Option<f64>,
    /// Read from the page cache.
    pub cached: Option<f64>,
    /// Read past the page cache.
    pub direct: Option<f64>,
    /// Why not, where something was not measured.
    pub refused: Option<String>,
}

/// Whether the kernel lets this process use `io_uring`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IoUring {
    /// Nobody has tried.
    #[default]
    NotTried,
    /// It does.
    Works,
    /// It does not, and says this.
    Refused(String),
}

/// A Python and its torch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Python {
    /// The program.
    pub program: PathBuf,
    /// Its version, such as `3.12.1`.
    pub version: String,
    /// torch, where it is installed.
    pub torch: Option<Torch>,
    /// The version of the package `pinlane`, where it is installed.
    pub pinlane: Option<String>,
}

/// An installed torch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Torch {
    /// Its version, such as `2.11.0+cu130`.
    pub version: String,
    /// The CUDA that it was built for, such as `13.0`; `None` for a build without.
    pub cuda: Option<String>,
}

/// GPUs, and why there is none that can be used.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Accelerators {
    /// Those that can be used, or that were asked for.
    pub devices: Vec<Accelerator>,
    /// Where the hardware of a GPU shows itself, whether it can be used or not: a PCI slot, a device file.
    pub hardware: Vec<String>,
    /// Why none can be used.
    pub absent: Option<String>,
    /// The version of the kernel's driver.
    pub kernel_driver: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Accelerator {
    /// Such as `cuda:0`.
    pub name: String,
    /// The product.
    pub product: String,
    /// Its memory.
    pub memory: u64,
    /// Copies that it runs at once.
    pub copy_engines: u32,
    /// Where it sits.
    pub pci_address: Option<String>,
    /// The node that it hangs on, where there are several.
    pub numa_node: Option<u32>,
    /// What the driver's library speaks.
    pub library: Option<String>,
    /// Its link's name.
    pub link: String,
    /// What such a link reaches in one direction.
    pub link_rate: Option<f64>,
    /// The link while bytes were moved.
    #[serde(serialize_with = "link_state")]
    pub link_state: Option<LinkState>,
    /// What the link carried.
    pub measured: Option<LinkRates>,
    /// What pinning cost.
    pub pinning: Option<Pinning>,
    /// Whether `pinlane tune` has stored what it measured.
    pub tuned: bool,
    /// What could not be measured, and why.
    pub refused: Vec<Refusal>,
    /// Why nothing was measured, though it could have been: there was no time.
    pub left_out: Option<String>,
    /// Why it can't be used at all, where it can't.
    pub unusable: Option<String>,
    /// Whether it only simulates: nothing measured on it says anything of hardware.
    pub simulated: bool,
}

/// Something of a GPU that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What.
    pub part: Part,
    /// What the engine or the driver said.
    pub reason: String,
}

/// What is measured of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What the link carries.
    Link,
    /// How the link runs while bytes are moved.
    LinkState,
    /// What pinning costs.
    Pinning,
}

impl Part {
    /// What that is, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Link => "what the link carries",
            Self::LinkState => "how the link runs under load",
            Self::Pinning => "what pinning costs",
        }
    }
}

impl Accelerator {
    /// Why that could not be measured, where it was tried.
    #[must_use]
    pub fn refused(&self, part: Part) -> Option<&str> {
        let refused = self.refused.iter().find(|refused| refused.part == part)?;
        Some(&refused.reason)
    }
}

/// What a link carried.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LinkRates {
    /// Pinned memory to the device.
    pub to_device: f64,
    /// The device to pinned memory.
    pub to_host: f64,
    /// Both at once, in all.
    pub both: f64,
}

impl LinkRates {
    /// The slower direction.
    #[must_use]
    pub fn slower(&self) -> f64 {
        self.to_device.min(self.to_host)
    }
}

/// What it took to make pinned memory ready, as the engine does it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Pinning {
    /// How much.
    pub bytes: u64,
    /// In seconds.
    pub seconds: f64,
}

/// What rates say together.
pub trait Rates {
    /// The highest of them.
    fn best(&self) -> Option<f64>;
    /// One thread's.
    fn one_thread(&self) -> Option<f64>;
}

impl Rates for [MemcpyRate] {
    fn best(&self) -> Option<f64> {
        self.iter().map(|rate| rate.bytes_per_second).reduce(f64::max)
    }

    fn one_thread(&self) -> Option<f64> {
        let one = self.iter().find(|rate| rate.threads == 1)?;
        Some(one.bytes_per_second)
    }
}

/// Links by their names.
fn link_state<S: Serializer>(state: &Option<LinkState>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(state) = state else {
        return serializer.serialize_none();
    };
    let mut map = serializer.serialize_map(Some(3))?;
    map.serialize_entry("under_load", &state.now.to_string())?;
    map.serialize_entry("in_slot", &state.in_slot.map(|link| link.to_string()))?;
    map.serialize_entry("by_itself", &state.by_itself.map(|link| link.to_string()))?;
    map.end()
}
