//! When the devices were busy with pinlane's copies, by their own clocks.
//!
//! A lane marks the end of each chunk's copies by an event anyhow, one that tells no time. While a session asks for it, a stream
//! of the [`log`]'s own, its clock, waits for such marks and records an event that does; a thread looks at it when it has
//! fired. So no copy waits for its trace. But when a device writes the time down, its copies stand still for one to three
//! microseconds, on whatever stream that is. So while one copy follows another on an engine, several are timed
//! [together](span): their span begins with the first of them and ends with the last. The end of a transfer has all timed
//! that is left. Copies between devices, over links of which no rate is known, are timed one by one.
//!
//! What the events tell is set to the host's clock by an *anchor*, an event on an idle stream that fired between two looks at that
//! clock; a new one is made every other second, since the clocks drift apart. The end of a copy that its caller waits for
//! alone is the moment at which the caller sees it done, a microsecond or two later: an event for it would take longer than that.
//!
//! A copy has begun when it was enqueued and the engine was done with the copy before, since an engine does one at a time (see
//! [`EngineKind`]). Only where its stream has to wait for somebody else's event, a second event tells when that was over.

mod log;
mod logs;
mod span;

use std::fmt::Debug;

use pinlane_driver::{
    DeviceId, Driver, Event, Properties, Stream, fork,
    sync::{self, Arc, Duration, Instant},
};

pub(super) use self::logs::Asking;
use self::{
    log::Anchor,
    span::{Copies, Read},
};
use super::collected::{DeviceSpan, EngineKind, TimedBy, TracedDevice};
use crate::{Direction, Route};

/// How long the end of a session waits for copies under way.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Less than any copy takes: what seems to have taken no more was done earlier, beside the copies before it.
const NO_TIME: Duration = Duration::from_micros(1);

/// Work of a device, for its trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) direction: Direction,
    pub(crate) bytes: u64,
    pub(crate) route: Route,
    /// The lane that enqueued it.
    pub(crate) lane: Option<usize>,
    /// Whether a kernel does it.
    pub(crate) by_kernel: bool,
}

impl Work {
    fn engine(&self) -> EngineKind {
        EngineKind::of(self.direction, self.by_kernel)
    }
}

/// The end of copies, which other streams can wait for.
pub(crate) trait Fence: Debug + Send + Sync {
    /// Makes `stream` wait for it, without blocking the host.
    fn make_wait(&self, stream: &Stream) -> Result<(), pinlane_driver::Error>;

    /// Whether the device has come so far, if that went well; `None` before it has.
    fn outcome(&self) -> Option<Result<(), pinlane_driver::Error>>;

    /// Its stream, and how often that was made sound again after a failure: who waits for the later of two ends in one place
    /// has waited for both.
    fn place(&self) -> (usize, u64);
}

/// When copies could begin at the earliest, as far as their stream goes.
#[derive(Debug)]
enum Reached {
    /// When they were enqueued.
    At(Instant),
    /// When this had fired.
    Event(Event, Arc<Anchor>),
}

/// Copies that are being enqueued.
#[derive(Debug)]
pub(crate) struct Begun(Reached);

/// Notes that copies begin on `stream`, if a session asks; `waits` says whether it waits for an event first. A device that
/// refuses goes without: its copies don't fail.
#[inline]
pub(crate) fn begin(stream: &Stream, waits: bool) -> Option<Begun> {
    if !super::devices_are_wanted() {
        return None;
    }
    if waits {
        return Begun::behind(stream);
    }
    Some(Begun(Reached::At(Instant::now())))
}

impl Begun {
    #[cold]
    fn behind(stream: &Stream) -> Option<Self> {
        let log = logs::of(stream.driver())?;
        let stamp = log.stamp(stream);
        if stamp.is_none() {
            log.miss(1);
        }
        stamp.map(|(event, anchor)| Self(Reached::Event(event, anchor)))
    }

    /// Notes that the copies are enqueued on `stream` with `end` behind them, and what they are.
    #[cold]
    pub(crate) fn end(self, stream: &Stream, end: Arc<dyn Fence>, work: &Work) {
        let Some(log) = logs::of(stream.driver()) else {
            return;
        };
        match self.0 {
            // When it began has nothing to do with what came before it, nor may that wait for it.
            Reached::Event(..) => log.time_on(stream, Copies::new(self.0, work, end)),
            Reached::At(_) => log.add(Copies::new(self.0, work, end)),
        }
    }
}

/// Notes that all copies of a transfer in this direction are enqueued, or never will be.
#[inline]
pub(crate) fn end_of_transfer(driver: &Arc<dyn Driver>, direction: Direction) {
    if super::devices_are_wanted() {
        time_what_is_left(driver, direction);
    }
}

/// Has the copies in this direction timed that have not been.
#[cold]
fn time_what_is_left(driver: &Arc<dyn Driver>, direction: Direction) {
    if let Some(log) = logs::of(driver) {
        for by_kernel in [false, true] {
            log.time_rest(EngineKind::of(direction, by_kernel));
        }
    }
}

/// A device has been opened, whose engine has `driver`.
pub(crate) fn note_opened(driver: &Arc<dyn Driver>) {
    if fork::is_child() {
        // The locks are the parent's.
        return;
    }
    logs::note_opened(driver);
    if super::devices_are_wanted()
        && let Some(log) = logs::of(driver)
    {
        log.prepare();
    }
}

/// A copy that its caller waited for, whose times are the host's.
pub(super) struct LoneCopy {
    pub(super) device: Identity,
    /// Nothing where it failed.
    pub(super) work: Option<Work>,
    pub(super) begun: Instant,
    pub(super) end: Instant,
}

/// What the devices have told since `began`, and what callers saw of `alone`.
pub(super) fn collect(began: Instant, alone: Vec<LoneCopy>) -> Vec<TracedDevice> {
    let deadline = Instant::now() + END_PATIENCE;
    let mut told: Vec<Answer> = Vec::new();
    for log in logs::all() {
        // What is enqueued from now on is a later session's.
        let up_to = log.time_all();
        while !log.read_fired(up_to) && Instant::now() < deadline {
            sync::sleep(Duration::from_micros(200));
        }
        let (read, missed) = log.since(began, up_to);
        let properties = log.properties().clone();
        told.push(Answer {
            properties,
            read,
            missed,
        });
    }
    for copy in alone {
        // Every device that was open has a log, but for one that refuses.
        let asked = told
            .iter_mut()
            .find(|told| Identity::of(&told.properties) == copy.device);
        match (asked, copy.work) {
            (Some(told), Some(work)) => told.read.push(Read::alone(&work, copy.begun, copy.end)),
            (Some(told), None) => told.missed += 1,
            (None, _) => {}
        }
    }
    let traced = told.into_iter().map(|told| TracedDevice {
        properties: told.properties,
        spans: in_turn(told.read, began),
        missed: told.missed,
    });
    traced
        .filter(|device| !device.spans.is_empty() || device.missed > 0)
        .collect()
}

/// What is known of one device.
struct Answer {
    properties: Properties,
    read: Vec<Read>,
    missed: u64,
}

/// Which device it is, by whichever of its drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    id: DeviceId,
    group: u64,
}

impl Identity {
    pub(super) fn of(properties: &Properties) -> Self {
        Self {
            id: properties.id,
            group: properties.group,
        }
    }
}

/// Lets go of what was told before `earliest`, when the first of the sessions that still ask began; of all, where there is none.
pub(super) fn forget_before(earliest: Option<Instant>) {
    let earliest = earliest.unwrap_or_else(Instant::now);
    for log in logs::all() {
        log.forget_before(earliest);
    }
}

/// The copies of one device, in the order in which they ended: of those on one engine, each begins after the one before.
fn in_turn(mut copies: Vec<Read>, began: Instant) -> Vec<DeviceSpan> {
    copies.sort_by_key(|copy| copy.end);
    let mut spans: Vec<DeviceSpan> = Vec::with_capacity(copies.len());
    // The last span on each engine.
    let mut last: [Option<usize>; EngineKind::ALL.len()] = Default::default();
    for copy in copies {
        let before = last[copy.engine as usize];
        let free_at = before.map_or(Duration::ZERO, |before| spans[before].end);
        let since = |at: Instant| at.saturating_duration_since(began);
        let (start, end) = (since(copy.reached).max(free_at), since(copy.end));
        match before {
            // An engine takes its streams in turn, so these came before the last of those.
            Some(before) if end.saturating_sub(start) < NO_TIME && copy.timed_by == TimedBy::Device => {
                copy.join(&mut spans[before], end);
            }
            _ => {
                last[copy.engine as usize] = Some(spans.len());
                spans.push(copy.span(start.min(end), end));
            }
        }
    }
    spans
}
