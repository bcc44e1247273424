//! The devices of this process: which there are, and the one driver of each.

use std::{collections::BTreeMap, ffi::c_int};

use pinlane_driver::{
    Backend, DeviceId, Error, ErrorKind, Properties, Result, fork,
    sync::{Arc, Mutex, OnceLock, lock},
};

use crate::{
    context::Context,
    driver::CudaDriver,
    library::{self, Api},
    properties,
    status::Status,
};

const ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEMORY: c_int = 91;

pub(crate) fn id(ordinal: u32) -> DeviceId {
    DeviceId {
        backend: Backend::Cuda,
        ordinal,
    }
}

/// The driver of device `ordinal`, the same one each time.
///
/// It lives as long as the process: what other libraries and work in flight still use of its context can't be known.
pub(crate) fn driver(ordinal: u32) -> Result<Arc<CudaDriver>> {
    static DRIVERS: OnceLock<Mutex<BTreeMap<u32, Arc<CudaDriver>>>> = OnceLock::new();
    // Before the lock, which another thread may have held when the process was forked.
    fork::refuse_in_child(id(ordinal))?;
    let mut drivers = lock(DRIVERS.get_or_init(Mutex::default));
    if let Some(driver) = drivers.get(&ordinal) {
        return Ok(Arc::clone(driver));
    }
    let api = ready(ordinal)?;
    let driver = Arc::new(CudaDriver::open(api, id(ordinal), device(api, ordinal)?)?);
    drivers.insert(ordinal, Arc::clone(&driver));
    Ok(driver)
}

/// How many devices there are. A machine without any is an error, which says what is missing.
pub(crate) fn count() -> Result<u32> {
    let api = ready(0)?;
    let mut count = 0;
    // SAFETY: a valid place for the answer, and an initialised driver.
    let status = unsafe { (api.device_count)(&raw mut count) };
    check(api, 0, status, || "counting the CUDA devices".to_owned())?;
    match u32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => {
            let hint = Status(100).advice().unwrap_or_default();
            let message = format!("the NVIDIA driver finds no device: {hint}");
            Err(Error::new(ErrorKind::NoSuchDevice, id(0), message))
        }
    }
}

/// What each device is. Makes no context and takes no device memory.
pub(crate) fn list() -> Result<Vec<Properties>> {
    let count = count()?;
    let api = ready(0)?;
    (0..count)
        .map(|ordinal| properties::of(api, id(ordinal), device(api, ordinal)?))
        .collect()
}

/// The initialised library, or why there is none.
fn ready(ordinal: u32) -> Result<&'static Api> {
    fork::refuse_in_child(id(ordinal))?;
    let api = library::api().map_err(|absent| {
        let error = Error::new(absent.kind, id(ordinal), absent.message.clone());
        match &absent.code {
            Some((name, number)) => error.with_code(name.clone(), i64::from(*number)),
            None => error,
        }
    })?;
    fork::watch();
    Ok(api)
}

/// The `CUdevice` of an ordinal.
fn device(api: &Api, ordinal: u32) -> Result<c_int> {
    let mut device = 0;
    // SAFETY: a valid place for the answer; the driver checks the number.
    let status = unsafe { (api.device)(&raw mut device, c_int::try_from(ordinal).unwrap_or(c_int::MAX)) };
    check(api, ordinal, status, || format!("opening CUDA device {ordinal}"))?;
    Ok(device)
}

/// One of the device's `CU_DEVICE_ATTRIBUTE_*`; `None` where the driver does not know it.
pub(crate) fn attribute(api: &Api, device: c_int, attribute: c_int) -> Option<c_int> {
    let mut value = 0;
    // SAFETY: a valid place for the answer; the driver checks both numbers.
    let status = unsafe { (api.device_attribute)(&raw mut value, attribute, device) };
    (status == Status::SUCCESS).then_some(value)
}

/// Whether the device knows registered host memory by the same addresses as the host does.
pub(crate) fn knows_host_addresses(context: &Context) -> bool {
    attribute(
        context.api,
        context.device,
        ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEMORY,
    ) == Some(1)
}

/// An error unless `status` is success, for calls before there is a context.
pub(crate) fn check(api: &Api, ordinal: u32, status: Status, doing: impl FnOnce() -> String) -> Result<()> {
    if status == Status::SUCCESS {
        return Ok(());
    }
    Err(
        Error::new(status.kind(), id(ordinal), api.explain(status, &doing()))
            .with_code(api.name_of(status), status.0.into()),
    )
}
