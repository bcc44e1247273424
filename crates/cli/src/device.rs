//! The device that a command is about.

use pinlane::{Device, driver::Properties};

use crate::output::Failure;

/// Opens the device of that name, or the preferred one.
///
/// # Errors
///
/// [`Failure::Usage`] where there is no such device, and for the host.
pub(crate) fn open(name: Option<&str>) -> Result<Accelerator, Failure> {
    let device = match name {
        Some(name) => Device::open(name),
        None => Device::preferred(),
    };
    let device = device.map_err(Failure::usage)?;
    let Some(driver) = device.driver() else {
        let reason = anyhow::anyhow!("the host is no accelerator: name one, such as cuda:0 or sim:0");
        return Err(Failure::Usage(reason));
    };
    let properties = driver.properties().clone();
    Ok(Accelerator { device, properties })
}

/// A device that is not the host.
pub(crate) struct Accelerator {
    pub(crate) device: Device,
    pub(crate) properties: Properties,
}
