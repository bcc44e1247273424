//! What a simulated machine is made of.

use std::time::Duration;

use super::FaultPlan;

/// How many copies of one device run at the same time, and which share an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyEngines {
    /// One engine for everything: the two directions never overlap.
    One,
    /// One to the device, and one from it that also copies within and between devices.
    #[default]
    Two,
    /// One to the device, one from it, and one within and between devices.
    Three,
}

impl CopyEngines {
    /// The number of engines.
    #[must_use]
    pub fn count(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// One simulated device.
///
/// ```
/// use pinlane_driver::sim::{CopyEngines, DeviceConfig};
///
/// let config = DeviceConfig {
///     memory_bytes: 64 << 20,
///     copy_engines: CopyEngines::Three,
///     bytes_per_second: Some(1e9),
///     ..DeviceConfig::default()
/// };
/// assert_eq!(config.copy_engines.count(), 3);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceConfig {
    /// Device memory in bytes. It is the host's own memory, taken when it is allocated. 4 GiB unless told.
    pub memory_bytes: u64,
    /// How copies share engines.
    pub copy_engines: CopyEngines,
    /// The link's rate in each direction; `None`, the default, lets copies run as fast as a memcpy. A rate that is
    /// not above zero counts as `None`. Copies within and between devices are not throttled.
    pub bytes_per_second: Option<f64>,
    /// Time that each copy over the link takes on top of its bytes. Zero unless told.
    pub copy_latency: Duration,
    /// The rate at which host memory is pinned; `None`, the default, pins any amount at once. A rate that is not above
    /// zero counts as `None`. The call that pins blocks for as long as its bytes take.
    pub pin_bytes_per_second: Option<f64>,
    /// Time that each call that pins takes on top of its bytes. Zero unless told.
    pub pin_latency: Duration,
    /// The size of one piece of the driver's own pinned memory, through which pageable memory is copied. At least
    /// one byte; 512 KiB unless told.
    pub bounce_bytes: usize,
    /// Whether memory is filled with [`POISON`](super::POISON) when it is allocated, so that reading it too early, or
    /// before anything was written, is seen. On unless told; turn it off to measure.
    pub poison: bool,
    /// Whether the device can do [`copy_scattered`](crate::Driver::copy_scattered). It can unless told.
    pub scatters: bool,
    /// Whether the device can do [`convert`](crate::Driver::convert). It can unless told.
    pub converts: bool,
    /// What goes wrong, and when. Nothing unless told.
    pub faults: FaultPlan,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            memory_bytes: 4 << 30,
            copy_engines: CopyEngines::default(),
            bytes_per_second: None,
            copy_latency: Duration::ZERO,
            pin_bytes_per_second: None,
            pin_latency: Duration::ZERO,
            bounce_bytes: 512 << 10,
            poison: true,
            scatters: true,
            converts: true,
            faults: FaultPlan::new(),
        }
    }
}

impl DeviceConfig {
    pub(super) fn rate(&self) -> Option<f64> {
        self.bytes_per_second.filter(|rate| *rate > 0.0)
    }

    /// How long a call takes that pins `bytes` bytes.
    pub(super) fn pin_time(&self, bytes: usize) -> Duration {
        let rate = self.pin_bytes_per_second.filter(|rate| *rate > 0.0);
        let time = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes as f64 / rate)
        });
        self.pin_latency + time
    }
}

/// A host with its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineConfig {
    /// The devices, by ordinal. One unless told.
    pub devices: Vec<DeviceConfig>,
    /// How many bytes the host lets its devices pin in all; `None`, the default, for no limit.
    pub pin_limit: Option<u64>,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self::from(DeviceConfig::default())
    }
}

impl From<DeviceConfig> for MachineConfig {
    /// A machine with one device.
    fn from(device: DeviceConfig) -> Self {
        Self {
            devices: vec![device],
            pin_limit: None,
        }
    }
}

impl MachineConfig {
    /// A machine with `count` equal devices.
    #[must_use]
    pub fn equal_devices(count: usize, device: DeviceConfig) -> Self {
        Self {
            devices: vec![device; count],
            pin_limit: None,
        }
    }
}
