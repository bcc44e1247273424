//! The order between the engine's copies and what the caller's streams have enqueued.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pinlane::{
    Device,
    driver::{Event, RawStream, Stream, Timing},
};
use pyo3::{exceptions::PyValueError, intern, prelude::*};

use super::Start;
use crate::{devices, exchange, simulated};

/// What a device takes until an event has fired behind nothing. What comes after one that has not is held back, at some cost.
const AT_ONCE: Duration = Duration::from_micros(10);

const WAITING: &str = "waiting for the caller's stream";

impl Start<'_, '_> {
    /// Refuses a stream of a device that neither takes nor gives any of the bytes: nothing would be ordered on it.
    pub(super) fn check_stream(&self) -> PyResult<()> {
        let Some(name) = &self.wishes.stream_device else {
            return Ok(());
        };
        let device = devices::open(self.py, name)?;
        let mut sources = self.groups.iter().map(|group| &group.from);
        if self.groups.is_empty() || device == self.target || sources.any(|from| *from == device) {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "moving to {} in the order of a stream of {name}: nothing comes from that device or goes there",
            self.target
        )))
    }

    /// An event behind what the caller's streams have enqueued so far: on the memory of the results, and on sources that come
    /// from `from`.
    pub(super) fn what_to_wait_for(&self, from: &Device) -> PyResult<Option<Event>> {
        let source = self.recorded(from)?;
        if self.target.is_host() {
            return Ok(source);
        }
        if let Some(event) = source {
            let Some(stream) = self.stream_of(&self.target)? else {
                return Ok(Some(event));
            };
            stream
                .wait(&event)
                .map_err(|error| simulated::driver_error(self.py, "ordering two devices' streams", error))?;
        }
        self.recorded(&self.target)
    }

    /// The event, unless it fires at once, as one of an idle stream does.
    pub(super) fn unfired(&self, event: Event) -> PyResult<Option<Arc<Event>>> {
        let start = Instant::now();
        loop {
            let fired = event.query();
            if fired.map_err(|error| simulated::driver_error(self.py, WAITING, error))? {
                return Ok(None);
            }
            if start.elapsed() > AT_ONCE {
                return Ok(Some(Arc::new(event)));
            }
        }
    }

    /// Blocks until the caller's streams have done what they were given.
    pub(super) fn wait_for(&self, event: &Event) -> PyResult<()> {
        let waited = self.py.detach(|| event.synchronize());
        waited.map_err(|error| simulated::driver_error(self.py, WAITING, error))
    }

    fn recorded(&self, device: &Device) -> PyResult<Option<Event>> {
        let Some(stream) = self.stream_of(device)? else {
            return Ok(None);
        };
        let event = stream.record(Timing::Disabled);
        event.map(Some).map_err(|error| {
            simulated::driver_error(self.py, "recording an event on the caller's stream", error)
        })
    }

    /// The caller's stream on a device.
    fn stream_of(&self, device: &Device) -> PyResult<Option<Stream>> {
        let (Some(driver), Some(id)) = (device.driver(), device.id()) else {
            return Ok(None);
        };
        let given = match &self.wishes.stream_device {
            Some(name) if devices::open(self.py, name)? == *device => self.wishes.stream,
            _ => None,
        };
        let handle = match given {
            Some(handle) => Some(handle),
            None if driver.properties().simulated => None,
            None => Some(self.current_stream(id.ordinal)?),
        };
        // SAFETY: a handle of torch's for this device, or of a simulated stream that the caller holds; streams of torch's
        // pools are never destroyed.
        let adopt = |handle| unsafe { Stream::adopt(driver, RawStream::from_raw(handle)) };
        Ok(handle.map(adopt))
    }

    /// Torch's current stream on a GPU.
    fn current_stream(&self, ordinal: u32) -> PyResult<u64> {
        if let Some(tensor_type) = &self.wishes.tensor_type
            && let Some(handle) = exchange::current_stream(tensor_type, ordinal)?
        {
            return Ok(handle);
        }
        self.plan
            .call_method1(intern!(self.py, "stream_of"), (ordinal,))?
            .extract()
    }
}
