//! When the devices were busy with pinlane's copies, by their own clocks.
//!
//! While a session asks for it, a timed event is recorded on a stream before the copies of a chunk and one behind them. Nobody
//! waits for them: they are looked at when others have to be made, and at the end of the session. What they tell is set to
//! the host's clock by an *anchor*, an event on an idle stream that fired between two looks at that clock; a new one is made
//! every other second, since the clocks drift apart.
//!
//! The first event fires when its stream gets there, though the copy behind it may still queue for an engine that another
//! stream keeps busy. An engine does one copy at a time, so a copy has begun when its stream had got there and the engine was
//! done with the copy before (see [`EngineKind`]): on the simulated device that is when its engine began, to the nanosecond.

use std::collections::VecDeque;

use pinlane_driver::{
    Address, Driver, Event, MemCopy, Stream, Timing,
    sync::{self, Arc, Duration, Instant, Mutex, OnceLock, lock},
};

use super::collected::{DeviceSpan, EngineKind, TracedDevice};
use crate::{Direction, Route};

/// How old an anchor may be when a copy is set to the host's clock by it.
const ANCHOR_AGE: Duration = Duration::from_secs(2);
/// How long an anchor may take. A device that is kept from starting anything goes without.
const ANCHOR_PATIENCE: Duration = Duration::from_millis(1);
/// Of so many anchors the one that took the shortest is kept.
const ANCHOR_TRIES: usize = 3;
/// From so many copies on that were not looked at, those that are done are looked at as another is added.
const UNREAD: usize = 128;
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

/// Copies between two events.
#[derive(Debug)]
struct Unread {
    start: Event,
    end: Event,
    anchor: Arc<Anchor>,
    work: Work,
}

/// A copy whose times are known.
#[derive(Clone, Copy, Debug)]
struct Read {
    reached: Instant,
    end: Instant,
    work: Work,
}

/// What a device has told.
#[derive(Debug)]
struct Log {
    driver: Arc<dyn Driver>,
    /// Idle but for anchors.
    stream: Stream,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    anchor: Option<Arc<Anchor>>,
    spare: Vec<Event>,
    unread: VecDeque<Unread>,
    read: Vec<Read>,
    /// Copies of which nothing is known: they failed, or there was no room for them.
    missed: u64,
}

fn logs() -> &'static Mutex<Vec<Arc<Log>>> {
    static LOGS: OnceLock<Mutex<Vec<Arc<Log>>>> = OnceLock::new();
    LOGS.get_or_init(Mutex::default)
}

/// Copies that are being enqueued: the event before them.
#[derive(Debug)]
pub(crate) struct Begun {
    log: Arc<Log>,
    start: Event,
    anchor: Arc<Anchor>,
}

/// Marks on `stream` where copies begin, if a session asks. A device that refuses goes without: its copies don't fail.
#[inline]
pub(crate) fn begin(stream: &Stream) -> Option<Begun> {
    super::devices_are_wanted().then(|| Begun::on(stream)).flatten()
}

/// Marks where they end.
#[inline]
pub(crate) fn end(begun: Option<Begun>, stream: &Stream, work: impl FnOnce() -> Work) {
    if let Some(begun) = begun {
        begun.end(stream, work());
    }
}

/// What one copy between host and device is, that no lane has planned.
pub(crate) fn lone_copy(driver: &Arc<dyn Driver>, copy: &MemCopy) -> Work {
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
    fn on(stream: &Stream) -> Option<Self> {
        let log = Log::of(stream.driver())?;
        let mut state = lock(&log.state);
        let anchor = log.anchor(&mut state);
        let start = log.event(&mut state).filter(|start| start.record(stream).is_ok());
        let (Some(start), Some(anchor)) = (start, anchor) else {
            state.missed += 1;
            return None;
        };
        drop(state);
        Some(Self { log, start, anchor })
    }

    fn end(self, stream: &Stream, work: Work) {
        let mut state = lock(&self.log.state);
        let end = self.log.event(&mut state);
        let Some(end) = end.filter(|end| end.record(stream).is_ok()) else {
            state.missed += 1;
            return;
        };
        state.unread.push_back(Unread {
            start: self.start,
            end,
            anchor: self.anchor,
            work,
        });
        if state.unread.len() >= UNREAD {
            state.read_fired();
        }
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
            state: Mutex::default(),
        });
        logs.push(Arc::clone(&log));
        Some(log)
    }

    fn event(&self, state: &mut State) -> Option<Event> {
        let spare = state.spare.pop();
        spare.or_else(|| Event::new(&self.driver, Timing::Enabled).ok())
    }

    /// The anchor for copies that begin now.
    fn anchor(&self, state: &mut State) -> Option<Arc<Anchor>> {
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
    /// Looks at the copies that are done, oldest first.
    fn read_fired(&mut self) {
        while let Some(oldest) = self.unread.front() {
            // One that failed is looked at too: it is counted as missed.
            if let Ok(false) = oldest.end.query() {
                return;
            }
            if let Some(oldest) = self.unread.pop_front() {
                self.read(oldest);
            }
        }
    }

    fn read(&mut self, unread: Unread) {
        let Unread {
            start,
            end,
            anchor,
            work,
        } = unread;
        match (
            start.elapsed_since(&anchor.event),
            end.elapsed_since(&anchor.event),
        ) {
            (Ok(reached), Ok(ended)) if self.read.len() < MOST_COPIES => self.read.push(Read {
                reached: anchor.host + reached,
                end: anchor.host + ended,
                work,
            }),
            _ => self.missed += 1,
        }
        self.spare.extend([start, end]);
    }
}

/// What the devices have told since `began`.
pub(super) fn collect(began: Instant) -> Vec<TracedDevice> {
    let logs: Vec<_> = lock(logs()).iter().map(Arc::clone).collect();
    let deadline = Instant::now() + END_PATIENCE;
    let collected = logs.iter().map(|log| {
        loop {
            let mut state = lock(&log.state);
            state.read_fired();
            if state.unread.is_empty() || Instant::now() >= deadline {
                break;
            }
            drop(state);
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
        }
    });
    spans.collect()
}
