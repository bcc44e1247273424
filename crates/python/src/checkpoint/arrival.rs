//! Tensors of a checkpoint on their way into memory that Python has.
//!
//! The lock is taken only while the thread is detached from the interpreter: whoever holds it may wait for the device.

use std::sync::{Arc, Mutex, PoisonError};

use pinlane::{
    Checkpoint, Device, Error, Transfer, Tree as _,
    checkpoint::Entry,
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
    /// Where the tensors come from.
    checkpoint: Arc<Checkpoint>,
}

impl Arrival {
    pub(super) fn new(transfer: Transfer<Spans>, target: Device, checkpoint: Arc<Checkpoint>) -> Self {
        Self {
            transfer: Mutex::new(Some(transfer)),
            target,
            checkpoint,
        }
    }

    /// One that moves nothing.
    pub(super) fn landed(target: Device, checkpoint: Arc<Checkpoint>) -> Self {
        Self {
            transfer: Mutex::new(None),
            target,
            checkpoint,
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
        transfer.help();
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
        let landed = py.detach(|| {
            let landed = self.wait(stream);
            landed.map_err(|error| named(&self.checkpoint, error))
        });
        landed.map_err(|error| errors::from_engine(py, &error))
    }
}

/// The error with the tensor that it is about. Where a file ends early, that is the first whose last byte is not there; a span
/// of many tensors alone does not tell.
pub(super) fn named(checkpoint: &Checkpoint, error: Error) -> Error {
    if errors::refused_file(&error).is_none() {
        return error;
    }
    let is_cut_off = |entry: &Entry<'_>| {
        let end = entry.file_range().end;
        let last = entry.shard().range(end.saturating_sub(1)..end);
        entry.bytes() > 0 && last.and_then(|byte| byte.to(&Device::host())).is_err()
    };
    let Some(entry) = checkpoint.entries().find(is_cut_off) else {
        return error;
    };
    let source = match error {
        Error::Leaf { source, .. } => source,
        other => Box::new(other),
    };
    Error::Leaf {
        path: format!("{:?}", entry.name()),
        source,
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
