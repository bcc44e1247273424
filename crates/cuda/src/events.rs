//! Events: points in a stream's work.
//!
//! No event is made so that CUDA puts who waits for it to sleep: the device would interrupt the host at each, which takes one
//! to 17 microseconds. A thread that has waited long sleeps by itself, and asks now and then.

use std::{collections::HashSet, ffi::c_uint, hint};

use pinlane_driver::{
    Error, ErrorKind, Result, Timing,
    sync::{Duration, Instant, Mutex, lock, sleep},
};

use crate::{context::Context, status::Status};

const DISABLE_TIMING: c_uint = 2;

/// How long a thread sleeps at first, and how long at most.
const FIRST_NAP: Duration = Duration::from_micros(20);
const LONGEST_NAP: Duration = Duration::from_millis(1);
/// It sleeps for such a part of the time that it has waited already.
const PART: u32 = 16;

/// The events of one device.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Those that tell the time. CUDA has one answer for an event that was never recorded and one that can't tell it.
    timed: Mutex<HashSet<usize>>,
}

impl Events {
    pub(crate) fn create(&self, context: &Context, timing: Timing) -> Result<usize> {
        let _current = context.enter()?;
        let flags = match timing {
            Timing::Enabled => 0,
            Timing::Disabled => DISABLE_TIMING,
        };
        let mut event = 0;
        // SAFETY: a valid place for the answer, and flags of the header.
        let status = unsafe { (context.api.event_create)(&raw mut event, flags) };
        context.check(status, || "making an event".to_owned())?;
        if timing == Timing::Enabled {
            lock(&self.timed).insert(event);
        }
        Ok(event)
    }

    /// # Safety
    ///
    /// The event is one of this device's and is not used afterwards.
    pub(crate) unsafe fn destroy(&self, context: &Context, event: usize) -> Result<()> {
        let _current = context.enter()?;
        lock(&self.timed).remove(&event);
        // SAFETY: the caller's promise. What waits for the event keeps it alive inside the driver.
        let status = unsafe { (context.api.event_destroy)(event) };
        context.check(status, || format!("destroying event {event:#x}"))
    }

    pub(crate) fn record(&self, context: &Context, event: usize, stream: usize) -> Result<()> {
        let _current = context.enter_stream(stream)?;
        // SAFETY: both handles are live by the contract of the types that hold them.
        let status = unsafe { (context.api.event_record)(event, stream) };
        context.check(status, || {
            format!("recording event {event:#x} on stream {stream:#x}")
        })
    }

    pub(crate) fn make_stream_wait(&self, context: &Context, stream: usize, event: usize) -> Result<()> {
        let _current = context.enter_stream(stream)?;
        // SAFETY: as for `record`; the flags must be 0.
        let status = unsafe { (context.api.stream_wait_event)(stream, event, 0) };
        context.check(status, || {
            format!("making stream {stream:#x} wait for event {event:#x}")
        })
    }

    pub(crate) fn query(&self, context: &Context, event: usize) -> Result<bool> {
        let _current = context.enter()?.beside_captures()?;
        has_fired(context, event)
    }

    /// Spins for up to `patience`, for a thread that sleeps learns of the event tens of microseconds late; then sleeps, and asks
    /// now and then.
    pub(crate) fn synchronize(&self, context: &Context, event: usize, patience: Duration) -> Result<()> {
        let _current = context.enter()?.beside_captures()?;
        let start = Instant::now();
        while !has_fired(context, event)? {
            let waited = start.elapsed();
            if waited < patience {
                hint::spin_loop();
            } else {
                sleep((waited / PART).clamp(FIRST_NAP, LONGEST_NAP));
            }
        }
        Ok(())
    }

    pub(crate) fn elapsed(&self, context: &Context, start: usize, end: usize) -> Result<Duration> {
        let _current = context.enter()?.beside_captures()?;
        let mut milliseconds = 0.0_f32;
        // SAFETY: both events are live, and the place for the answer is valid.
        let status = unsafe { (context.api.event_elapsed)(&raw mut milliseconds, start, end) };
        if status == Status::INVALID_HANDLE || status == Status::NOT_READY {
            return Err(self.why_no_time(context, status, start, end));
        }
        context.check(status, || {
            format!("asking for the time from event {start:#x} to event {end:#x}")
        })?;
        // An end before its start is no time at all.
        Ok(Duration::try_from_secs_f64(f64::from(milliseconds) / 1e3).unwrap_or(Duration::ZERO))
    }

    fn why_no_time(&self, context: &Context, status: Status, start: usize, end: usize) -> Error {
        let timed = lock(&self.timed);
        let untimed = [start, end].into_iter().find(|event| !timed.contains(event));
        let (kind, message) = match untimed {
            Some(event) => (
                ErrorKind::InvalidArgument,
                format!(
                    "the time of event {event:#x} was asked, which was made without timing or for another device; \
                     make it with timing"
                ),
            ),
            None => (
                ErrorKind::NotReady,
                format!(
                    "the time from event {start:#x} to event {end:#x} was asked before both were recorded and had \
                     fired; synchronise first"
                ),
            ),
        };
        Error::new(kind, context.id, message).with_code(context.api.name_of(status), status.0.into())
    }
}

/// The context is current.
fn has_fired(context: &Context, event: usize) -> Result<bool> {
    // SAFETY: the event is live by the contract of the type that holds it.
    let status = unsafe { (context.api.event_query)(event) };
    if status == Status::NOT_READY {
        return Ok(false);
    }
    context.check(status, || format!("asking whether event {event:#x} has fired"))?;
    Ok(true)
}
