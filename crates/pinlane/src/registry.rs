//! The devices of this process, by name.

use std::collections::HashMap;

use pinlane_driver::{
    sim::{DeviceConfig, Machine, MachineConfig},
    sync::{Mutex, OnceLock, lock},
};

use crate::{Device, DeviceOptions, Error, Result};

/// Simulated devices there are by name: two, so that copies between devices can be tried anywhere.
const SIMULATED: usize = 2;

/// What is open stays open: a program has a handful of devices, and their engines cost nothing while idle.
#[derive(Default)]
struct Registry {
    machine: Option<Machine>,
    open: HashMap<String, Device>,
}

static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();

/// Opens `name`, once for the process.
pub(crate) fn open(name: &str) -> Result<Device> {
    let no_such = |reason: String| Error::NoSuchDevice {
        name: name.to_owned(),
        reason,
    };
    let ordinal = match name.split_once(':') {
        None if name == "sim" => 0,
        Some(("sim", ordinal)) => ordinal
            .parse::<u32>()
            .map_err(|_| no_such(format!("{ordinal:?} is no device index; write sim:0")))?,
        _ => {
            return Err(no_such(
                "there are host, cpu, and simulated devices such as sim:0".to_owned(),
            ));
        }
    };
    let mut registry = lock(REGISTRY.get_or_init(Mutex::default));
    let key = format!("sim:{ordinal}");
    if let Some(device) = registry.open.get(&key) {
        return Ok(device.clone());
    }
    let machine = registry.machine.get_or_insert_with(|| {
        Machine::new(MachineConfig::equal_devices(SIMULATED, DeviceConfig::default()))
    });
    let driver = machine
        .device(ordinal)
        .map_err(|error| no_such(error.to_string()))?;
    let device = Device::with_options(driver, &DeviceOptions::default())?;
    registry.open.insert(key, device.clone());
    Ok(device)
}
