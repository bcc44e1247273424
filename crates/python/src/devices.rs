//! The devices of this process, as Python names them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use pinlane::{Device, HostMemory};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use crate::{errors, process, simulated};

/// Every device that was opened, by name. They stay open: engines cost nothing while they are idle.
static OPEN: Mutex<BTreeMap<String, Device>> = Mutex::new(BTreeMap::new());

/// The device of that name, such as `cuda:0`, `sim:1` or `cpu`.
pub(crate) fn open(py: Python<'_>, name: &str) -> PyResult<Device> {
    if name == "cpu" {
        return Ok(Device::host());
    }
    process::check(py)?;
    if let Some(device) = lock().get(name) {
        return Ok(device.clone());
    }
    // Opening a GPU takes a second the first time.
    let opened = py.detach(|| Device::open(name));
    let device = opened.map_err(|error| errors::from_engine(py, &error))?;
    Ok(lock().entry(name.to_owned()).or_insert(device).clone())
}

/// Adds a device under a name that no other has.
pub(crate) fn add(name: &str, device: Device) -> PyResult<()> {
    let mut open = lock();
    if open.contains_key(name) {
        return Err(PyValueError::new_err(format!(
            "there is a device {name:?} already"
        )));
    }
    open.insert(name.to_owned(), device);
    Ok(())
}

fn lock() -> std::sync::MutexGuard<'static, BTreeMap<String, Device>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What Python's own part of a transfer costs beyond torch's call of the driver: so many bytes more are left to that than the engine
/// leaves to the driver. A mebibyte takes it 0.15 ms on an H100, and a transfer 0.24.
const LEFT_TO_TORCH: usize = 512 << 10;

/// Opens a device; gives the most bytes of one pageable tensor that torch's own way moves fastest.
#[pyfunction]
pub(crate) fn open_device(py: Python<'_>, name: &str) -> PyResult<usize> {
    let device = open(py, name)?;
    let is_gpu = device
        .driver()
        .is_some_and(|driver| !driver.properties().simulated);
    let more = if is_gpu { LEFT_TO_TORCH } else { 0 };
    Ok(device.profile().map_or(0, |profile| profile.plain_bytes + more))
}

/// The name of the simulated device whose memory holds an address of the host.
#[pyfunction]
pub(crate) fn simulated_device_of(address: usize) -> Option<String> {
    let device = simulated::device_of(address)?;
    let open = lock();
    let (name, _) = open.iter().find(|(_, open)| **open == device)?;
    Some(name.clone())
}

/// A device's name, product, memory in bytes, link, and whether it is only simulated.
type Described = (String, String, u64, String, bool);

/// What there is.
#[pyfunction]
pub(crate) fn device_names(py: Python<'_>) -> PyResult<Vec<Described>> {
    let mut found = Vec::new();
    for family in ["cuda", "sim"] {
        for ordinal in 0.. {
            let name = format!("{family}:{ordinal}");
            let Ok(device) = open(py, &name) else {
                break;
            };
            found.extend(described(name, &device));
        }
    }
    let made_to_order: Vec<(String, Device)> = lock().clone().into_iter().collect();
    for (name, device) in made_to_order {
        if !found.iter().any(|(known, ..)| *known == name) {
            found.extend(described(name, &device));
        }
    }
    Ok(found)
}

fn described(name: String, device: &Device) -> Option<Described> {
    let properties = device.driver()?.properties();
    Some((
        name,
        properties.name.clone(),
        properties.memory_bytes,
        properties.link.name.clone(),
        properties.simulated,
    ))
}

/// What each open device's engine holds.
#[pyfunction]
pub(crate) fn device_stats<'py>(py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    // Making objects may run Python code, which may come back here: not under the lock.
    let open: Vec<(String, Device)> = lock().clone().into_iter().collect();
    for (name, device) in open {
        let Some(stats) = device.stats() else {
            continue;
        };
        let pinned = stats.pinned;
        let numbers = (
            pinned.budget,
            pinned.pinned,
            pinned.leased,
            pinned.slots,
            pinned.results,
            pinned.peak,
            stats.idle_bytes,
            stats.leaked_bytes,
        );
        all.set_item(name, numbers)?;
    }
    Ok(all)
}

/// How many bytes of pageable host memory are kept for later results.
#[pyfunction]
pub(crate) fn kept_bytes() -> usize {
    HostMemory::kept()
}

/// Changes the most pageable host memory that is kept, in bytes.
#[pyfunction]
pub(crate) fn set_kept_limit(py: Python<'_>, bytes: usize) {
    py.detach(|| HostMemory::set_kept_limit(bytes));
}

/// Changes how many bytes of host memory may be pinned for a device.
#[pyfunction]
pub(crate) fn set_pinned_budget(py: Python<'_>, name: &str, bytes: usize) -> PyResult<()> {
    let device = open(py, name)?;
    // Unpinning may take long.
    let set = py.detach(|| device.set_pinned_budget(bytes));
    set.map_err(|error| errors::from_engine(py, &error))
}

/// Gives memory that nothing uses back to the system, pinned, pageable, and of devices; returns the bytes given back.
#[pyfunction]
pub(crate) fn trim(py: Python<'_>) -> PyResult<usize> {
    process::check(py)?;
    let mut devices: Vec<Device> = lock().values().cloned().collect();
    devices.push(Device::host());
    Ok(py.detach(|| devices.iter().map(Device::trim).sum()))
}
