//! Opening the device that the guide runs on.

use pinlane::{Device, DeviceOptions, Profile};
use pinlane_driver::{Driver, sync::Arc};

use crate::{
    error::{Error, Result},
    simulated,
};

/// Pinned memory that pinlane's ways may use: the largest list of tensors, pinned, and slots.
const PINNED_BUDGET: usize = 1 << 30;

/// An accelerator, both as the engine sees it and bare.
#[derive(Clone, Debug)]
pub struct Accelerator {
    /// With its engine.
    pub device: Device,
    /// Without.
    pub driver: Arc<dyn Driver>,
}

impl Accelerator {
    /// Opens the device of that name, or the preferred one. A simulated device is one of the guide's own throttled
    /// machine.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] or [`Error::Driver`] where there is no such device, [`Error::Host`] for the host.
    pub fn open(name: Option<&str>) -> Result<Self> {
        if let Some(ordinal) = simulated_ordinal(name) {
            return Self::over(simulated::driver(ordinal)?);
        }
        let device = match name {
            Some(name) => Device::open(name)?,
            None => Device::preferred()?,
        };
        let driver = device.driver().ok_or(Error::Host)?;
        if driver.properties().simulated {
            return Self::over(simulated::driver(driver.properties().id.ordinal)?);
        }
        Self::over(Arc::clone(driver))
    }

    /// An engine of its own over `driver`.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn over(driver: Arc<dyn Driver>) -> Result<Self> {
        let options = DeviceOptions {
            pinned_budget: Some(PINNED_BUDGET),
            // That of a simulated device is assumed, and says so.
            profile: (!driver.properties().simulated).then(|| Profile::known(driver.properties()).profile),
            ..DeviceOptions::default()
        };
        Ok(Self {
            device: Device::with_options(Arc::clone(&driver), &options)?,
            driver,
        })
    }
}

/// The ordinal in `sim:1`; that of `sim` is 0.
fn simulated_ordinal(name: Option<&str>) -> Option<u32> {
    match name?.split_once(':') {
        Some(("sim", ordinal)) => ordinal.parse().ok(),
        Some(_) => None,
        None => (name? == "sim").then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_simulated_devices_can_be_opened_and_no_third() {
        for name in [None, Some("sim"), Some("sim:0"), Some("sim:1")] {
            assert!(Accelerator::open(name).unwrap().driver.properties().simulated);
        }
        for name in ["sim:2", "sim:x", "warp:0"] {
            let error = Accelerator::open(Some(name)).unwrap_err().to_string();
            assert!(!error.is_empty());
        }
    }

    #[test]
    fn the_host_is_no_device_to_move_to() {
        assert!(matches!(Accelerator::open(Some("host")), Err(Error::Host)));
    }
}
