//! Marks: points in a lane's stream after which the device no longer uses what a chunk gave it.
//!
//! A mark is a recorded event out of a set that is reused, and the stream it was recorded on. It is shared (by the
//! slot, the job, a fence); its event goes back to the set when the last of them lets go, so that nobody ever waits on
//! an event that was recorded again for someone else.

use pinlane_driver::{
    Event, Stream, Timing,
    sync::{Arc, Mutex, lock},
};

/// A lane's stream, with the events that its marks use.
#[derive(Debug)]
pub(crate) struct LaneStream {
    stream: Stream,
    events: Arc<Events>,
}

/// Events that nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Vec<Event>>);

/// A point in a lane's stream.
#[derive(Debug)]
pub(crate) struct Mark {
    /// `None` only while dropping.
    event: Option<Event>,
    stream: Arc<LaneStream>,
}

impl LaneStream {
    pub(crate) fn new(stream: Stream, events: Arc<Events>) -> Arc<Self> {
        Arc::new(Self { stream, events })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Marks the end of what is enqueued so far.
    pub(crate) fn mark(self: &Arc<Self>) -> Result<Arc<Mark>, pinlane_driver::Error> {
        let known = lock(&self.events.0).pop();
        let event = match known {
            Some(event) => event,
            None => Event::new(self.stream.driver(), Timing::Disabled)?,
        };
        let mark = Arc::new(Mark {
            event: Some(event),
            stream: Arc::clone(self),
        });
        mark.event().record(&self.stream)?;
        Ok(mark)
    }
}

impl Mark {
    fn event(&self) -> &Event {
        self.event.as_ref().expect("the event is there until drop")
    }

    /// Whether it is on `stream`, where a later mark covers an earlier one.
    pub(crate) fn is_on(&self, stream: &Arc<LaneStream>) -> bool {
        Arc::ptr_eq(&self.stream, stream)
    }

    /// The stream it is on.
    pub(crate) fn stream(&self) -> &Arc<LaneStream> {
        &self.stream
    }

    /// Whether it is reached, without blocking. A failure counts: [`settle`](Self::settle) tells it.
    pub(crate) fn is_reached(&self) -> bool {
        self.event().query().unwrap_or(true)
    }

    /// Whether it is known to have been reached with a failure, or can't be asked. Where it is not reached yet, any
    /// failure before it is also one of every mark that is on its stream by now.
    pub(crate) fn has_failed(&self) -> bool {
        self.event().query().is_err()
    }

    /// Blocks until it is reached. After a failed copy the stream is made to work again, so that the failure does not
    /// spread to who uses the lane next.
    pub(crate) fn settle(&self) -> Result<(), pinlane_driver::Error> {
        self.event().synchronize().inspect_err(|error| {
            if !error.kind().leaves_memory_in_use() {
                // Reports the same failure once more, which is how the driver is told that it was seen.
                let _same = self.stream.stream.synchronize();
            }
        })
    }

    /// Makes `stream` wait for it, without blocking the host.
    pub(crate) fn fence(&self, stream: &Stream) -> Result<(), pinlane_driver::Error> {
        stream.wait(self.event())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            lock(&self.stream.events.0).push(event);
        }
    }
}
