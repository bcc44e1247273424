//! The simulated machine of the guide: throttled, so that what the guide is about can be seen on any host.
//!
//! Its link is slower than one thread's memcpy on current hosts and each copy takes some time on top of its bytes, as on
//! real hardware; both are far from any real device. Everything printed from it says so.

use std::time::Duration;

use pinlane_driver::{
    Driver, Result,
    sim::{CopyEngines, DeviceConfig, Machine, MachineConfig},
    sync::Arc,
};

/// How many devices the machine has.
const DEVICES: usize = 2;

/// Bytes per second of the link, each way.
const LINK: f64 = 7e9;

/// Time that a copy takes on top of its bytes.
const LATENCY: Duration = Duration::from_micros(4);

fn device(copy_engines: CopyEngines) -> DeviceConfig {
    DeviceConfig {
        copy_engines,
        bytes_per_second: Some(LINK),
        copy_latency: LATENCY,
        // The experiments find wrong bytes by comparing; filling each allocation would only blur the times.
        poison: false,
        ..DeviceConfig::default()
    }
}

/// The device with this ordinal of a new machine.
///
/// # Errors
///
/// [`ErrorKind::NoSuchDevice`](pinlane_driver::ErrorKind::NoSuchDevice) where the machine has fewer.
pub fn driver(ordinal: u32) -> Result<Arc<dyn Driver>> {
    Machine::new(MachineConfig::equal_devices(DEVICES, device(CopyEngines::Two))).device(ordinal)
}

/// A device of a new machine that is the same but for its copy engines: one, or one for each direction.
///
/// # Errors
///
/// None that a new machine with one device has.
pub fn driver_with_engines(copy_engines: CopyEngines) -> Result<Arc<dyn Driver>> {
    Machine::new(device(copy_engines)).device(0)
}
