//! When the devices were busy with pinlane's copies, by their own clocks.
//!
//! A lane marks the end of each chunk's copies by an event anyhow. While a session asks for it, that event tells the time too,
//! and a thread of the log's own looks at it when it has fired: a chunk costs the device nothing more, and its lane a clock's
//! look and a lock. What the events tell is set to the host's clock by an *anchor*, an event on an idle stream that fired
//! between two looks at that clock; a new one is made every other second, since the clocks drift apart. The end of a copy
//! that its caller waits for alone is the moment at which the caller sees it done, a microsecond or two later: an event for it
//! would take longer than that.
//!
//! A copy has begun when it was enqueued and the engine was done with the copy before, since an engine does one at a time (see
//! [`EngineKind`]). Only where its stream has to wait for somebody else's event, a second event tells when that was over.

use std::collections::VecDeque;

use pinlane_driver::{
    Address, Driver, Event, MemCopy, Stream, Timing,
    sync::{self, Arc, Duration, Instant, Mutex, OnceLock, lock, thread},
};

use super::collected::{DeviceSpan, EngineKind, TimedBy, TracedDevice};
use crate::{Direction, Route};

/// How old an anchor may be when a copy is set to the host's clock by it.
const ANCHOR_AGE: Duration = Duration::from_secs(2);
/// How long an anchor may take. A device that is kept from starting anything goes without.
const ANCHOR_PATIENCE: Duration = Duration::from_millis(1);
/// Of so many anchors the one that took the shortest is kept.
const ANCHOR_TRIES: usize = 3;
/// How often it is looked whether events have fired.
const READ_EVERY: Duration = Duration::from_millis(2);
/// The most copies that wait to be looked at.
const MOST_UNREAD: usize = 1 << 16;
/// The most copies of one device that are kept.
const MOST_COPIES: usize = 1 << 20;
/// How long the end of a session waits for copies under way.
const END_PATIENCE: Duration = Duration::from_secs(2);

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

/// A point in a device's time whose place in the host's is known.
#[derive(Debug)]
struct Anchor {
    event: Event,
    host: Instant,
}

/// When copies could begin at the earliest, as far as their stream goes.
#[derive(Debug)]
enum Reached {
    /// When they were enqueued.
    At(Instant),
    /// When this had fired.
    Event(Arc<Event>),
}

/// Copies before an event.
#[derive(Debug)]
struct Unread {
    reached: Reached,
    end: Arc<Event>,
    anchor: Arc<Anchor>,
    work: Work,
}

/// A copy whose times are known.
#[derive(Clone, Copy, Debug)]
struct Read {
    reached: Instant,
    end: Instant,
    work: Work,
    timed_by: TimedBy,
}

/// What a device has told.
#[derive(Debug)]
struct Log {
    driver: Arc<dyn Driver>,
    /// Idle but for anchors.
    stream: Stream,
    /// Held by who looks at events: what that has taken out of the state is not in it.
    reading: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    anchor: Option<Arc<Anchor>>,
    /// Events that were looked at, those looked at last behind. A mark may still have them.
    spare: VecDeque<Arc<Event>>,
    unread: VecDeque<Unread>,
    read: Vec<Read>,
    /// Copies of which nothing is known: they failed, or there was no room for them.
    missed: u64,
}

fn logs() -> &'static Mutex<Vec<Arc<Log>>> {
    static LOGS: OnceLock<Mutex<Vec<Arc<Log>>>> = OnceLock::new();
    LOGS.get_or_init(Mutex::default)
}

/// Copies that are being enqueued.
#[derive(Debug)]
pub(crate) struct Begun {
    log: Arc<Log>,
    reached: Reached,
    end: Arc<Event>,
    anchor: Arc<Anchor>,
}

/// Notes that copies begin on `stream`, if a session asks; `waits` says whether it waits for an event first. A device that
/// refuses goes without: its copies don't fail.
#[inline]
pub(crate) fn begin(stream: &Stream, waits: bool) -> Option<Begun> {
    super::devices_are_wanted()
        .then(|| Begun::on(stream, waits))
        .flatten()
}

/// When a copy begins that its caller waits for, if a session asks.
#[inline]
pub(crate) fn begin_alone() -> Option<Instant> {
    super::devices_are_wanted().then(Instant::now)
}

/// Notes that such a copy is over.
#[cold]
pub(crate) fn end_alone(driver: &Arc<dyn Driver>, copy: &MemCopy, begun: Instant) {
    let end = Instant::now();
    if let Some(log) = Log::of(driver) {
        let work = lone_copy(driver, copy);
        lock(&log.state).keep(Read {
            reached: begun,
            end,
            work,
            timed_by: TimedBy::Host,
        });
    }
}

/// What one copy between host and device is, that no lane has planned.
fn lone_copy(driver: &Arc<dyn Driver>, copy: &MemCopy) -> Work {
    let (direction, host) = match (copy.src, copy.dst) {
        (Address::Host(host), _) => (Direction::ToDevice, host),
        (_, Address::Host(host)) => (Direction::ToHost, host),
        _ => (Direction::OnDevice, std::ptr::null_mut()),
    };
    let is_plain = !host.is_null() && !driver.is_pinned(host, copy.bytes);
    Work {
        direction,
        bytes: copy.bytes as u64,
        route: if is_plain { Route::Plain } else { Route::Direct },
        lane: None,
        by_kernel: false,
    }
}

impl Begun {
    #[cold]
    fn on(stream: &Stream, waits: bool) -> Option<Self> {
        let log = Log::of(stream.driver())?;
        let begun = log.begin(stream, waits);
        if begun.is_none() {
            lock(&log.state).missed += 1;
        }
        begun
    }

    /// The event to record where the copies end.
    pub(crate) fn event(&self) -> Arc<Event> {
        Arc::clone(&self.end)
    }

    /// Notes that it was recorded, and what the copies are.
    pub(crate) fn end(self, work: Work) {
        let mut state = lock(&self.log.state);
        if state.unread.len() >= MOST_UNREAD {
            state.missed += 1;
            return;
        }
        state.unread.push_back(Unread {
            reached: self.reached,
            end: self.end,
            anchor: self.anchor,
            work,
        });
    }
}

impl Log {
    /// The log of the device behind `driver`, of which there may be several.
    fn of(driver: &Arc<dyn Driver>) -> Option<Arc<Self>> {
        let properties = driver.properties();
        let mut logs = lock(logs());
        let known = logs.iter().find(|log| {
            let known = log.driver.properties();
            known.id == properties.id && known.group == properties.group
        });
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let log = Arc::new(Self {
            driver: Arc::clone(driver),
            stream: Stream::new(driver).ok()?,
            reading: Mutex::default(),
            state: Mutex::default(),
        });
        let reader = Arc::downgrade(&log);
        let spawned = thread::Builder::new().name("trace".to_owned());
        if let Err(error) = spawned.spawn(move || serve(|| reader.upgrade())) {
            tracing::debug!(%error, "events are looked at when the session ends");
        }
        logs.push(Arc::clone(&log));
        Some(log)
    }

    fn begin(self: &Arc<Self>, stream: &Stream, waits: bool) -> Option<Begun> {
        let anchor = self.anchor()?;
        let end = self.event()?;
        let reached = if waits {
            let event = self.event()?;
            event.record(stream).ok()?;
            Reached::Event(event)
        } else {
            Reached::At(Instant::now())
        };
        Some(Begun {
            log: Arc::clone(self),
            reached,
            end,
            anchor,
        })
    }

    /// An event that nobody has.
    fn event(&self) -> Option<Arc<Event>> {
        let mut state = lock(&self.state);
        if state
            .spare
            .front()
            .is_some_and(|event| Arc::strong_count(event) == 1)
        {
            return state.spare.pop_front();
        }
        drop(state);
        Event::new(&self.driver, Timing::Enabled).ok().map(Arc::new)
    }

    /// The anchor for copies that begin now.
    fn anchor(&self) -> Option<Arc<Anchor>> {
        let mut state = lock(&self.state);
        let known = state
            .anchor
            .as_ref()
            .filter(|anchor| anchor.host.elapsed() < ANCHOR_AGE);
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let tries = (0..ANCHOR_TRIES).filter_map(|_| self.new_anchor());
        let (_, anchor) = tries.min_by_key(|&(window, _)| window)?;
        let anchor = Arc::new(anchor);
        state.anchor = Some(Arc::clone(&anchor));
        Some(anchor)
    }

    /// Looks at the copies that are done, oldest first; says whether those were all. No lane waits meanwhile.
    fn read_fired(&self) -> bool {
        let _alone = lock(&self.reading);
        while let Some(oldest) = self.take_oldest() {
            // One that failed is looked at too: it is counted as missed.
            if let Ok(false) = oldest.end.query() {
                lock(&self.state).unread.push_front(oldest);
                return false;
            }
            self.read(oldest);
        }
        true
    }

    fn take_oldest(&self) -> Option<Unread> {
        lock(&self.state).unread.pop_front()
    }

    fn read(&self, unread: Unread) {
        let Unread {
            reached,
            end,
            anchor,
            work,
        } = unread;
        let on_the_host = |event: &Event| Some(anchor.host + event.elapsed_since(&anchor.event).ok()?);
        let times = match &reached {
            Reached::At(reached) => Some(*reached),
            Reached::Event(event) => on_the_host(event),
        };
        let times = times.zip(on_the_host(&end));
        let mut state = lock(&self.state);
        match times {
            Some((reached, end)) => state.keep(Read {
                reached,
                end,
                work,
                timed_by: TimedBy::Device,
            }),
            None => state.missed += 1,
        }
        state.spare.push_back(end);
        if let Reached::Event(event) = reached {
            state.spare.push_back(event);
        }
    }

    /// An anchor, and how well it is known where it is.
    fn new_anchor(&self) -> Option<(Duration, Anchor)> {
        let event = Event::new(&self.driver, Timing::Enabled).ok()?;
        let before = Instant::now();
        event.record(&self.stream).ok()?;
        let fired = sync::spin(ANCHOR_PATIENCE, || event.query().is_ok_and(|fired| fired));
        let window = before.elapsed();
        let host = before + window / 2;
        fired.then_some((window, Anchor { event, host }))
    }
}

impl State {
    fn keep(&mut self, read: Read) {
        if self.read.len() < MOST_COPIES {
            self.read.push(read);
        } else {
            self.missed += 1;
        }
    }
}

/// What a log's thread does until there is none.
fn serve(log: impl Fn() -> Option<Arc<Log>>) {
    while let Some(log) = log() {
        log.read_fired();
        drop(log);
        sync::sleep(READ_EVERY);
    }
}

/// What the devices have told since `began`.
pub(super) fn collect(began: Instant) -> Vec<TracedDevice> {
    let logs: Vec<_> = lock(logs()).iter().map(Arc::clone).collect();
    let deadline = Instant::now() + END_PATIENCE;
    let collected = logs.iter().map(|log| {
        loop {
            if log.read_fired() || Instant::now() >= deadline {
                break;
            }
            sync::sleep(Duration::from_micros(200));
        }
        let state = lock(&log.state);
        let since = state.read.iter().filter(|read| read.end > began);
        TracedDevice {
            properties: log.driver.properties().clone(),
            spans: in_turn(since.copied().collect(), began),
            missed: state.missed + state.unread.len() as u64,
        }
    });
    collected
        .filter(|device| !device.spans.is_empty() || device.missed > 0)
        .collect()
}

/// Lets go of what no session wants.
pub(super) fn forget_before(earliest: Option<Instant>) {
    match earliest {
        Some(earliest) => {
            for log in lock(logs()).iter() {
                lock(&log.state).read.retain(|read| read.end > earliest);
            }
        }
        // Outside the lock: the last handle of a simulated machine waits for its threads.
        None => drop(std::mem::take(&mut *lock(logs()))),
    }
}

/// The copies of one device, in the order in which they ended: of those on one engine, each begins after the one before.
fn in_turn(mut copies: Vec<Read>, began: Instant) -> Vec<DeviceSpan> {
    copies.sort_by_key(|copy| copy.end);
    let mut free_at = [began; EngineKind::ALL.len()];
    let spans = copies.iter().map(|copy| {
        let engine = EngineKind::of(copy.work.direction, copy.work.by_kernel);
        let free_at = &mut free_at[engine as usize];
        let start = copy.reached.max(*free_at).min(copy.end);
        *free_at = copy.end;
        DeviceSpan {
            engine,
            start: start.saturating_duration_since(began),
            end: copy.end.saturating_duration_since(began),
            bytes: copy.work.bytes,
            route: copy.work.route,
            lane: copy.work.lane.and_then(|lane| u32::try_from(lane).ok()),
            timed_by: copy.timed_by,
        }
    });
    spans.collect()
}
