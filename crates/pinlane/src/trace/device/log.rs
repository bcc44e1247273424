//! What one device has told so far, and the events that are yet to tell.

use std::collections::VecDeque;

use pinlane_driver::{
    Driver, Event, Properties, Stream, Timing, fork,
    sync::{self, Arc, Duration, Instant, Mutex, OnceLock, ProcessMutex, Weak, lock, lock_table, thread},
};

use super::{
    Identity, Reached,
    span::{Copies, Read, Untimed},
};
use crate::{
    Direction,
    trace::collected::{EngineKind, TimedBy},
};

/// How old an anchor may be when a copy is set to the host's clock by it.
const ANCHOR_AGE: Duration = Duration::from_secs(2);
/// How long an anchor may take. A device that is kept from starting anything goes without.
const ANCHOR_PATIENCE: Duration = Duration::from_millis(1);
/// Of so many anchors the one that took the shortest is kept.
const ANCHOR_TRIES: usize = 3;
/// How soon it is tried again where none could be had.
const ANCHOR_AGAIN: Duration = Duration::from_millis(100);
/// So many events are made before they are needed: as many as are under way at once, mostly.
const READY: usize = 8;
/// Misses that are so close are noted as one, at the time of the first: a session that begins in between has none of them.
const MISSES_WITHIN: Duration = Duration::from_millis(1);
/// How often it is looked whether events have fired.
const READ_EVERY: Duration = Duration::from_millis(2);
/// The most events that wait to be looked at.
const MOST_UNREAD: usize = 1 << 16;
/// The most spans of one device that are kept.
const MOST_SPANS: usize = 1 << 20;

/// A point in a device's time whose place in the host's is known.
#[derive(Debug)]
pub(super) struct Anchor {
    event: Event,
    host: Instant,
}

impl Anchor {
    /// When an event fired that was recorded after this.
    fn time_of(&self, event: &Event) -> Option<Instant> {
        Some(self.host + event.elapsed_since(&self.event).ok()?)
    }
}

/// The last try to get an anchor.
#[derive(Debug)]
struct Tried {
    at: Instant,
    anchor: Option<Arc<Anchor>>,
}

/// Copies before an event.
#[derive(Debug)]
struct Unread {
    copies: Copies,
    end: Event,
    anchor: Arc<Anchor>,
}

/// What a device has told.
#[derive(Debug)]
pub(in crate::trace) struct Log {
    driver: Arc<dyn Driver>,
    /// Idle but for anchors.
    stream: Stream,
    /// For each engine, the stream that waits for its copies. Held while it is given what to wait for.
    clocks: [Mutex<Stream>; EngineKind::ALL.len()],
    anchor: Mutex<Option<Tried>>,
    /// Held by who looks at events: what that has taken out of the state is not in it.
    reading: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    untimed: [Untimed; EngineKind::ALL.len()],
    /// Events that were looked at: making one takes ten microseconds.
    spare: Vec<Event>,
    unread: VecDeque<Unread>,
    /// How many of those there have been, from the first on.
    awaited: u64,
    read: Vec<Read>,
    /// Copies of which nothing is known, and since when: they failed, or there was no room for them.
    missed: Vec<(Instant, u64)>,
}

/// The devices that were opened, for sessions that begin later.
fn opened() -> &'static ProcessMutex<Vec<Weak<dyn Driver>>> {
    static OPENED: OnceLock<ProcessMutex<Vec<Weak<dyn Driver>>>> = OnceLock::new();
    OPENED.get_or_init(ProcessMutex::default)
}

/// Notes that the device behind `driver` may be asked.
pub(super) fn note_opened(driver: &Arc<dyn Driver>) {
    let mut opened = lock_table(opened());
    opened.retain(|known| known.strong_count() > 0);
    let driver = Arc::downgrade(driver);
    if !opened.iter().any(|known| known.ptr_eq(&driver)) {
        opened.push(driver);
    }
}

/// Has the log of the device behind `driver` ready.
pub(super) fn prepare(driver: &Arc<dyn Driver>) {
    if let Some(log) = Log::of(driver) {
        let _known_from_now_on = log.anchor();
        let missing = READY.saturating_sub(lock(&log.state).spare.len());
        let events = (0..missing).filter_map(|_| Event::new(driver, Timing::Enabled).ok());
        let events: Vec<_> = events.collect();
        lock(&log.state).spare.extend(events);
    }
}

/// The logs of all devices, which are kept for the sessions that ask them.
#[derive(Default)]
struct Logs {
    /// How many sessions ask, or are about to. While there is none, there is no log: it would keep its device open.
    sessions: usize,
    known: Vec<Arc<Log>>,
}

fn logs() -> &'static Mutex<Logs> {
    static LOGS: OnceLock<Mutex<Logs>> = OnceLock::new();
    LOGS.get_or_init(Mutex::default)
}

impl Logs {
    fn of(&self, driver: &Arc<dyn Driver>) -> Option<Arc<Log>> {
        let is_its = |log: &&Arc<Log>| Identity::of(log.properties()) == Identity::of(driver.properties());
        self.known.iter().find(is_its).map(Arc::clone)
    }
}

pub(super) fn all() -> Vec<Arc<Log>> {
    lock(logs()).known.clone()
}

/// A session that asks the devices, or is about to: logs are kept for it. Not to be dropped while a lock is held, since it may
/// have the last handle of a driver.
#[derive(Debug)]
pub(in crate::trace) struct Asking(());

impl Asking {
    /// From now on, until it is dropped.
    pub(in crate::trace) fn begin() -> Self {
        lock(logs()).sessions += 1;
        let asking = Self(());
        asking.prepare();
        asking
    }

    /// Has the logs of the open devices ready: a session's first copies should take no longer than the others.
    pub(in crate::trace) fn prepare(&self) {
        let drivers: Vec<_> = lock_table(opened()).iter().filter_map(Weak::upgrade).collect();
        for driver in &drivers {
            prepare(driver);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if fork::is_child() {
            // The lock is the parent's.
            return;
        }
        let mut logs = lock(logs());
        logs.sessions -= 1;
        let unwanted = match logs.sessions {
            0 => std::mem::take(&mut logs.known),
            _ => Vec::new(),
        };
        drop(logs);
        drop(unwanted);
    }
}

/// Has the copies in this direction timed that have not been.
#[cold]
pub(super) fn time_what_is_left(driver: &Arc<dyn Driver>, direction: Direction) {
    if let Some(log) = Log::of(driver) {
        for by_kernel in [false, true] {
            log.time_rest(EngineKind::of(direction, by_kernel));
        }
    }
}

impl Log {
    /// The log of the device behind `driver`, of which there may be several; `None` where it refuses, or where the session
    /// that asked has ended meanwhile.
    pub(super) fn of(driver: &Arc<dyn Driver>) -> Option<Arc<Self>> {
        {
            let logs = lock(logs());
            if let Some(known) = logs.of(driver) {
                return Some(known);
            }
            if logs.sessions == 0 {
                return None;
            }
        }
        // Not under the lock: streams take a while, and others' copies go on.
        let log = Arc::new(Self::new(driver)?);
        let mut logs = lock(logs());
        if let Some(known) = logs.of(driver) {
            return Some(known);
        }
        if logs.sessions == 0 {
            return None;
        }
        let reader = Arc::downgrade(&log);
        let spawned = thread::Builder::new().name("trace".to_owned());
        if let Err(error) = spawned.spawn(move || serve(|| reader.upgrade())) {
            tracing::debug!(%error, "events are looked at when the session ends");
        }
        logs.known.push(Arc::clone(&log));
        Some(log)
    }

    fn new(driver: &Arc<dyn Driver>) -> Option<Self> {
        let stream = || Stream::new(driver).ok();
        Some(Self {
            driver: Arc::clone(driver),
            stream: stream()?,
            clocks: [stream()?, stream()?, stream()?, stream()?].map(Mutex::new),
            anchor: Mutex::default(),
            reading: Mutex::default(),
            state: Mutex::default(),
        })
    }

    pub(super) fn properties(&self) -> &Properties {
        self.driver.properties()
    }

    /// Adds a copy that was enqueued, and has those timed that are due.
    pub(super) fn add(&self, copy: Copies) {
        let engine = copy.engine();
        let takes = self.takes(&copy);
        let mut state = lock(&self.state);
        let added = state.untimed[engine as usize].add(copy, takes, Instant::now());
        if let Some(over) = added.over {
            state.keep(over);
        }
        if added.missed > 0 {
            state.miss(added.missed);
        }
        drop(state);
        if let Some(copies) = added.due {
            self.time(copies);
        }
    }

    /// Has the copies of an engine timed that have not been.
    fn time_rest(&self, engine: EngineKind) {
        let rest = lock(&self.state).untimed[engine as usize].take(Instant::now());
        if let Some(copies) = rest {
            self.time(copies);
        }
    }

    /// How long a copy takes at the rate of the device's link.
    fn takes(&self, copy: &Copies) -> Option<Duration> {
        let crosses = copy.engine() != EngineKind::OnDevice;
        let rate = self.properties().link.bytes_per_second.filter(|_| crosses)?;
        Duration::try_from_secs_f64(copy.bytes() as f64 / rate).ok()
    }

    fn time(&self, copies: Copies) {
        let clock = lock(&self.clocks[copies.engine() as usize]);
        match copies.make_wait(&clock) {
            Ok(()) => self.time_on(&clock, copies),
            Err(_) => self.miss(copies.count()),
        }
    }

    /// Has copies timed that are over when `stream` has come so far.
    pub(super) fn time_on(&self, stream: &Stream, mut copies: Copies) {
        copies.release_ends();
        match self.stamp(stream) {
            Some((end, anchor)) => self.await_end(Unread { copies, end, anchor }),
            None => self.miss(copies.count()),
        }
    }

    /// Records an event that tells when `stream` has come so far, and what that is to be told by.
    pub(super) fn stamp(&self, stream: &Stream) -> Option<(Event, Arc<Anchor>)> {
        // What fires before its anchor would seem to have done so at that moment.
        let anchor = self.anchor()?;
        let spare = lock(&self.state).spare.pop();
        let event = spare.or_else(|| Event::new(&self.driver, Timing::Enabled).ok())?;
        event.record(stream).ok()?;
        Some((event, anchor))
    }

    fn await_end(&self, unread: Unread) {
        let mut state = lock(&self.state);
        if state.unread.len() < MOST_UNREAD {
            state.unread.push_back(unread);
            state.awaited += 1;
        } else {
            state.miss(unread.copies.count());
        }
    }

    /// Notes copies of which nothing will be known.
    pub(super) fn miss(&self, copies: u64) {
        lock(&self.state).miss(copies);
    }

    /// The anchor for copies that are enqueued now.
    fn anchor(&self) -> Option<Arc<Anchor>> {
        let mut tried = lock(&self.anchor);
        let is_good = |tried: &Tried| {
            let age = if tried.anchor.is_some() {
                ANCHOR_AGE
            } else {
                ANCHOR_AGAIN
            };
            tried.at.elapsed() < age
        };
        if let Some(known) = tried.as_ref().filter(|tried| is_good(tried)) {
            return known.anchor.clone();
        }
        let tries = (0..ANCHOR_TRIES).filter_map(|_| self.new_anchor());
        let best = tries.min_by_key(|&(window, _)| window);
        let anchor = best.map(|(_, anchor)| Arc::new(anchor));
        *tried = Some(Tried {
            at: Instant::now(),
            anchor: anchor.clone(),
        });
        anchor
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

    /// Has all copies timed that have been enqueued, and says how many events there have been by then.
    pub(super) fn time_all(&self) -> u64 {
        for engine in EngineKind::ALL {
            self.time_rest(engine);
        }
        lock(&self.state).awaited
    }

    /// Looks at the copies that are done, oldest first; says whether those were all up to the event of that number. No lane
    /// waits meanwhile.
    pub(super) fn read_fired(&self, up_to: u64) -> bool {
        let _alone = lock(&self.reading);
        while let Some(oldest) = self.take_oldest() {
            // One that failed is looked at too.
            if let Ok(false) = oldest.end.query() {
                let mut state = lock(&self.state);
                state.unread.push_front(oldest);
                return state.looked_at() >= up_to;
            }
            self.read(oldest);
        }
        true
    }

    fn take_oldest(&self) -> Option<Unread> {
        lock(&self.state).unread.pop_front()
    }

    fn read(&self, unread: Unread) {
        let Unread { copies, end, anchor } = unread;
        let reached = match &copies.reached {
            Reached::At(reached) => Some(*reached),
            Reached::Event(event, anchor) => anchor.time_of(event),
        };
        let times = reached.zip(anchor.time_of(&end));
        if times.is_none()
            && let Ok(stream) = Stream::new(&self.driver)
        {
            // A copy failed, and so did what waited for it: the next go to another stream.
            *lock(&self.clocks[copies.engine() as usize]) = stream;
        }
        let mut state = lock(&self.state);
        match times {
            Some((reached, end)) => state.keep(copies.read(reached, end, TimedBy::Device)),
            None => state.miss(copies.count()),
        }
        state.spare.push(end);
        if let Reached::Event(event, _) = copies.reached {
            state.spare.push(event);
        }
    }

    /// What ended since `began`, and how many copies were missed since then, up to the event of that number.
    pub(super) fn since(&self, began: Instant, up_to: u64) -> (Vec<Read>, u64) {
        // Nobody has one in hand.
        let _alone = lock(&self.reading);
        let state = lock(&self.state);
        let read = state.read.iter().filter(|read| read.end > began).copied();
        let missed = state.missed.iter().filter(|(at, _)| *at >= began);
        let missed: u64 = missed.map(|(_, copies)| copies).sum();
        let late = up_to.saturating_sub(state.looked_at());
        let unread = state
            .unread
            .iter()
            .take(usize::try_from(late).unwrap_or(usize::MAX));
        let unknown: u64 = unread.map(|unread| unread.copies.count()).sum();
        (read.collect(), missed + unknown)
    }

    pub(super) fn forget_before(&self, earliest: Instant) {
        let mut state = lock(&self.state);
        state.read.retain(|read| read.end > earliest);
        state.missed.retain(|(at, _)| *at >= earliest);
    }
}

impl State {
    /// How many events were looked at.
    fn looked_at(&self) -> u64 {
        self.awaited - self.unread.len() as u64
    }

    fn keep(&mut self, read: Read) {
        if self.read.len() < MOST_SPANS {
            self.read.push(read);
        } else {
            self.miss(read.copies.into());
        }
    }

    fn miss(&mut self, copies: u64) {
        match self.missed.last_mut() {
            Some((at, missed)) if at.elapsed() < MISSES_WITHIN => *missed += copies,
            _ => self.missed.push((Instant::now(), copies)),
        }
    }
}

/// What a log's thread does until there is none.
fn serve(log: impl Fn() -> Option<Arc<Log>>) {
    while let Some(log) = log() {
        log.read_fired(u64::MAX);
        drop(log);
        sync::sleep(READ_EVERY);
    }
}
