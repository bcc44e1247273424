//! Tensors of a checkpoint on their way into memory that Python has.
//!
//! The lock is taken only while the thread is detached from the interpreter: whoever holds it may wait for the device.

use std::sync::{Mutex, PoisonError};

use pinlane::{
    Device, Error, Transfer,
    driver::{RawStream, Stream},
};
use pyo3::prelude::*;

use super::spans::Spans;
use crate::{errors, process};

/// A transfer from files. Whoever shows its memory to others waits for it first.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct Arrival {
    /// `None` when somebody has waited for it, or nothing had to move.
    transfer: Mutex<Option<Transfer<Spans>>>,
    target: Device,
}

impl Arrival {
    pub(super) fn new(transfer: Transfer<Spans>, target: Device) -> Self {
        Self {
            transfer: Mutex::new(Some(transfer)),
            target,
        }
    }

    pub(super) fn landed(target: Device) -> Self {
        Self {
            transfer: Mutex::new(None),
            target,
        }
    }

    fn wait(&self, stream: Option<u64>) -> Result<(), Error> {
        let taken = self
            .transfer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(transfer) = taken else {
            return Ok(());
        };
        match (stream, self.target.driver()) {
            // After a failure the transfer ends at once, and says what it was.
            (Some(handle), Some(driver)) if transfer.wait_staged() => {
                // SAFETY: the caller names a stream of the target, which lives at least as long as this call.
                let stream = unsafe { Stream::adopt(driver, RawStream::from_raw(handle)) };
                transfer.fence(&stream)
            }
            _ => transfer.wait().map(drop),
        }
    }
}

#[pymethods]
impl Arrival {
    /// Blocks until the bytes are there; with `stream`, a stream of the target, only until all files are read, and has the
    /// stream wait for the rest.
    #[pyo3(signature = (stream=None))]
    fn land(&self, py: Python<'_>, stream: Option<u64>) -> PyResult<()> {
        process::check(py)?;
        let landed = py.detach(|| self.wait(stream));
        landed.map_err(|error| errors::from_engine(py, &error))
    }
}

impl Drop for Arrival {
    /// In a forked child nothing is given back: the engine's locks may be held for ever there.
    fn drop(&mut self) {
        if !process::may_use_devices() {
            let transfer = self.transfer.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(transfer.take());
        }
    }
}
