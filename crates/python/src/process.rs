//! A forked child has none of the threads that move bytes, and perhaps locks that nobody will ever unlock.

use std::sync::OnceLock;

use pyo3::{PyResult, Python};

use crate::errors;

/// The process that used a device first.
static OWNER: OnceLock<u32> = OnceLock::new();

/// Whether this process may use devices: it is the first that does, or that one's child by `exec`.
pub(crate) fn may_use_devices() -> bool {
    *OWNER.get_or_init(std::process::id) == std::process::id()
}

/// An error in a child of a process that used a device.
pub(crate) fn check(py: Python<'_>) -> PyResult<()> {
    if may_use_devices() {
        return Ok(());
    }
    Err(errors::raise(
        py,
        "ForkError",
        "moving tensors in a process forked from one that used pinlane's devices: the threads that move them are not in \
         the child; start worker processes with \"spawn\" or \"forkserver\", or move tensors in the parent",
    ))
}
