//! Pinned host memory for tensors of the host, and whether memory is pinned.

use pinlane::HostMemory;
use pyo3::prelude::*;

use crate::{
    devices, errors,
    memory::{Memory, made_or_drained},
};

/// Pinned memory of a device's budget, whose content does not matter.
#[pyfunction]
pub(crate) fn pinned_memory(py: Python<'_>, device: &str, bytes: usize) -> PyResult<Memory> {
    let device = devices::open(py, device)?;
    let made = made_or_drained(py, &device, || {
        Memory::on_host(bytes, HostMemory::Pinned(&device))
    });
    made.map_err(|error| errors::from_engine(py, &error))
}

/// Whether a device copies from and to these bytes of the host by itself.
#[pyfunction]
pub(crate) fn is_pinned(py: Python<'_>, device: &str, address: usize, bytes: usize) -> PyResult<bool> {
    let device = devices::open(py, device)?;
    let is_pinned = device
        .driver()
        .is_some_and(|driver| driver.is_pinned(std::ptr::with_exposed_provenance(address), bytes));
    Ok(is_pinned)
}
