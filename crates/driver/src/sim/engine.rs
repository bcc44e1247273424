//! The engines: threads that do the work.

use std::time::Duration;

use super::{
    DeviceConfig,
    state::{Core, Finished, error},
    work::{Direction, End, Job, Mishap, Work},
};
use crate::{
    Error, ErrorKind, Result,
    sync::{self, Instant},
};

/// A throttled copy moves its bytes in this many parts, spread over its time, so that whoever looks too early sees
/// some of it missing.
pub(super) const PARTS: usize = 16;

/// How far the device's clock may stand behind the host's. Sleeps end late by some tens of microseconds; work that was
/// due before counts from when it was due, so that lateness does not add up.
const SLACK: Duration = Duration::from_micros(200);

/// One engine of one device.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) device: usize,
    number: usize,
    pub(super) bytes_per_second: Option<f64>,
    pub(super) latency: Duration,
    /// When the work before is done, by the device's clock.
    free_at: Instant,
}

impl Engine {
    pub(super) fn new(device: usize, number: usize, config: &DeviceConfig) -> Self {
        Self {
            device,
            number,
            bytes_per_second: config.rate(),
            latency: config.copy_latency,
            free_at: Instant::now(),
        }
    }

    /// The thread's life.
    pub(super) fn run(mut self, core: &Core) {
        let mut finished = None;
        while let Some(job) = core.next_job(self.device, self.number, finished.take()) {
            let (at, result) = self.execute(core, &job);
            self.free_at = at;
            finished = Some(Finished { job, at, result });
        }
    }

    /// Does the job, and says when it was done and how it went.
    fn execute(&self, core: &Core, job: &Job) -> (Instant, Result<()>) {
        let mut start = job.ready_at.max(self.free_at);
        match job.mishap {
            Some(Mishap::Fails) => return (start, Err(self.failure(&job.work))),
            Some(Mishap::Late(by)) => start += by,
            None => {}
        }
        if !self.sleep_until(core, start) {
            return (start, Ok(()));
        }
        let due = match &job.work {
            Work::Copy {
                dst,
                src,
                bytes,
                direction,
            } => self.copy(core, start, dst, src, *bytes, *direction),
            Work::Scatter { table, pieces } => match self.scatter(core, start, table, pieces) {
                Ok(due) => due,
                Err(error) => return (start, Err(error)),
            },
            Work::Fill { dst, value, bytes } => {
                // SAFETY: the simulator keeps the device memory mapped while the job holds it, and resolved the
                // range within one allocation.
                unsafe { dst.ptr.write_bytes(*value, *bytes) };
                None
            }
            Work::Convert(elements) => {
                elements.convert();
                None
            }
            Work::Busy(duration) => {
                let due = start + *duration;
                self.sleep_until(core, due);
                Some(due)
            }
        };
        let now = Instant::now();
        let at = due.map_or(now, |due| due.max(now.checked_sub(SLACK).unwrap_or(now)));
        (at, Ok(()))
    }

    /// Moves the bytes, at the link's rate where it has one; if so, says when they were due.
    fn copy(
        &self,
        core: &Core,
        start: Instant,
        dst: &End,
        src: &End,
        bytes: usize,
        direction: Direction,
    ) -> Option<Instant> {
        let over_link = direction != Direction::Across;
        let rate = self.bytes_per_second.filter(|_| over_link);
        let latency = if over_link { self.latency } else { Duration::ZERO };
        let parts = if rate.is_some() { PARTS.min(bytes) } else { 1 };
        let part = bytes.div_ceil(parts);
        let mut due = start + latency;
        for offset in (0..bytes).step_by(part) {
            let length = part.min(bytes - offset);
            if let Some(rate) = rate {
                due = start + latency + Duration::from_secs_f64((offset + length) as f64 / rate);
            }
            if !self.sleep_until(core, due) {
                break;
            }
            // SAFETY: both ranges are valid: device memory stays mapped while the job holds it, bounce memory is the
            // job's own, and `Driver::copy`'s caller keeps host memory valid until the copy is done and promises that
            // the ranges do not overlap. As with a real engine, nothing keeps other threads from looking at the bytes
            // meanwhile: that they do not is the caller's promise too, and one who breaks it (tests do, on purpose)
            // reads garbage. So no reference to these bytes is ever made here.
            unsafe {
                dst.ptr
                    .add(offset)
                    .copy_from_nonoverlapping(src.ptr.add(offset), length)
            };
        }
        (due > start).then_some(due)
    }

    /// Sleeps, if `until` has not come yet; says whether the device is still there to go on.
    pub(super) fn sleep_until(&self, core: &Core, until: Instant) -> bool {
        let ahead = until.saturating_duration_since(Instant::now());
        if ahead.is_zero() {
            return true;
        }
        sync::sleep(ahead);
        core.with(|state| state.devices[self.device].lost.is_none())
    }

    fn failure(&self, work: &Work) -> Error {
        let what = match work {
            Work::Copy { dst, src, bytes, .. } => {
                format!("copying {bytes} bytes from {:p} to {:p}", src.ptr, dst.ptr)
            }
            Work::Scatter { pieces, .. } => format!("moving {} scattered pieces", pieces.len()),
            Work::Fill { dst, bytes, .. } => format!("filling {bytes} bytes at {:p}", dst.ptr),
            Work::Convert(elements) => format!(
                "converting {} elements from {}",
                elements.elements, elements.conversion
            ),
            Work::Busy(duration) => format!("a busy task of {duration:?}"),
        };
        let message =
            format!("{what} failed after it was enqueued; synchronise the stream, then enqueue it again");
        error(self.device, ErrorKind::CopyFailed, message)
    }
}
