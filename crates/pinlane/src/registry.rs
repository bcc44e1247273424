//! The devices of this process, by name: the one place that knows which drivers there are.

use std::collections::HashMap;

use pinlane_driver::{
    Backend, DeviceId, Driver, ErrorKind, Properties, fork,
    sim::{DeviceConfig, Machine, MachineConfig},
    sync::{Arc, Mutex, OnceLock, lock},
};

use crate::{Device, Error, Result};

/// Simulated devices there are by name: two, so that copies between devices can be tried anywhere.
const SIMULATED: usize = 2;

/// What is open stays open: a program has a handful of devices, and their engines cost nothing while idle.
#[derive(Default)]
struct Registry {
    machine: Option<Machine>,
    open: HashMap<DeviceId, Device>,
}

static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();

/// Opens the first GPU, or a simulated device where there is none. One that there is and that can't be used is an error.
pub(crate) fn preferred() -> Result<Device> {
    let backend = backend_for(pinlane_cuda::device_count())?;
    let id = DeviceId { backend, ordinal: 0 };
    open_id(&id.to_string(), id)
}

/// The backend for who has counted the GPUs with this outcome.
fn backend_for(counted: Result<u32, pinlane_driver::Error>) -> Result<Backend> {
    match counted {
        Ok(_) => Ok(Backend::Cuda),
        Err(reason) if reason.kind() == ErrorKind::NoSuchDevice => {
            tracing::debug!(%reason, "no GPU: the simulated device is used");
            Ok(Backend::Sim)
        }
        Err(source) => Err(Error::driver("looking for a GPU", source)),
    }
}

/// What each GPU is.
pub(crate) fn gpus() -> Result<Vec<Properties>> {
    pinlane_cuda::devices().map_err(|error| no_such("cuda", error.to_string()))
}

/// Opens `name`, once for the process.
pub(crate) fn open(name: &str) -> Result<Device> {
    let (family, ordinal) = name.split_once(':').unwrap_or((name, "0"));
    let backend = match family {
        "sim" => Backend::Sim,
        "cuda" => Backend::Cuda,
        _ => {
            let reason = "there are host, cpu, GPUs such as cuda:0, and simulated devices such as sim:0";
            return Err(no_such(name, reason.to_owned()));
        }
    };
    let ordinal = ordinal
        .parse()
        .map_err(|_| no_such(name, format!("{ordinal:?} is no device index; write {family}:0")))?;
    open_id(name, DeviceId { backend, ordinal })
}

fn open_id(name: &str, id: DeviceId) -> Result<Device> {
    // Before the lock, which another thread may have held when the process was forked.
    fork::refuse_in_child(id).map_err(|source| Error::driver(format!("opening device {name:?}"), source))?;
    let mut registry = lock(REGISTRY.get_or_init(Mutex::default));
    if let Some(device) = registry.open.get(&id) {
        return Ok(device.clone());
    }
    let driver = registry
        .driver(id)
        .map_err(|error| no_such(name, error.to_string()))?;
    let device = Device::with_known_profile(driver)?;
    registry.open.insert(id, device.clone());
    Ok(device)
}

fn no_such(name: &str, reason: String) -> Error {
    Error::NoSuchDevice {
        name: name.to_owned(),
        reason,
    }
}

impl Registry {
    fn driver(&mut self, id: DeviceId) -> Result<Arc<dyn Driver>, pinlane_driver::Error> {
        match id.backend {
            Backend::Cuda => pinlane_cuda::open(id.ordinal),
            _ => {
                let simulated =
                    || Machine::new(MachineConfig::equal_devices(SIMULATED, DeviceConfig::default()));
                self.machine.get_or_insert_with(simulated).device(id.ordinal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_device_stands_in_only_where_there_is_no_gpu() {
        let refused = |kind| {
            let id = DeviceId {
                backend: Backend::Cuda,
                ordinal: 0,
            };
            backend_for(Err(pinlane_driver::Error::new(kind, id, "why")))
        };
        assert_eq!(backend_for(Ok(1)).unwrap(), Backend::Cuda);
        assert_eq!(refused(ErrorKind::NoSuchDevice).unwrap(), Backend::Sim);
        for kind in [
            ErrorKind::Forked,
            ErrorKind::Refused,
            ErrorKind::DeviceLost,
            ErrorKind::Unsupported,
        ] {
            let error = refused(kind).unwrap_err();
            assert_eq!(error.driver_kind(), Some(kind), "{error}");
        }
    }
}
