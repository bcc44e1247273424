//! What one device has told so far, and the events that are yet to tell.

use std::collections::VecDeque;

use pinlane_driver::{
    Driver, Event, Properties, Stream, Timing,
    sync::{self, Arc, Duration, Instant, Mutex, OnceLock, lock, thread},
};

use super::{
    Reached,
    span::{Copies, Read, Untimed},
};
use crate::trace::collected::EngineKind;

/// How old an anchor may be when a copy is set to the host's clock by it.
const ANCHOR_AGE: Duration = Duration::from_secs(2);
/// How long an anchor may take. A device that is kept from starting anything goes without.
const ANCHOR_PATIENCE: Duration = Duration::from_millis(1);
/// Of so many anchors the one that took the shortest is kept.
const ANCHOR_TRIES: usize = 3;
/// How often it is looked whether events have fired.
const READ_EVERY: Duration = Duration::from_millis(2);
/// The most events that wait to be looked at.
const MOST_UNREAD: usize = 1 << 16;
/// The most spans of one device that are kept.
const MOST_SPANS: usize = 1 << 20;

/// A point in a device's time whose place in the host's is known.
#[derive(Debug)]
struct Anchor {
    event: Event,
    host: Instant,
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
pub(super) struct Log {
    driver: Arc<dyn Driver>,
    /// Idle but for anchors.
    stream: Stream,
    /// For each engine, the stream that waits for its copies. Held while what is to be timed goes there, in its order.
    clocks: [Mutex<Stream>; EngineKind::ALL.len()],
    /// Held by who looks at events: what that has taken out of the state is not in it.
    reading: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    untimed: [Untimed; EngineKind::ALL.len()],
    anchor: Option<Arc<Anchor>>,
    /// Events that were looked at: making one takes ten microseconds.
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

pub(super) fn all() -> Vec<Arc<Log>> {
    lock(logs()).clone()
}

pub(super) fn forget_all() {
    // Outside the lock: the last handle of a simulated machine waits for its threads.
    let forgotten = std::mem::take(&mut *lock(logs()));
    drop(forgotten);
}

impl Log {
    /// The log of the device behind `driver`, of which there may be several.
    pub(super) fn of(driver: &Arc<dyn Driver>) -> Option<Arc<Self>> {
        let properties = driver.properties();
        let mut logs = lock(logs());
        let known = logs.iter().find(|log| {
            let known = log.driver.properties();
            known.id == properties.id && known.group == properties.group
        });
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let stream = || Stream::new(driver).ok();
        let log = Arc::new(Self {
            driver: Arc::clone(driver),
            stream: stream()?,
            clocks: [stream()?, stream()?, stream()?, stream()?].map(Mutex::new),
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

    pub(super) fn properties(&self) -> &Properties {
        self.driver.properties()
    }

    /// Adds copies that were enqueued, and has those timed that are due.
    pub(super) fn add(&self, copies: Copies, transfer: usize, goes_on: impl FnOnce() -> bool) {
        let engine = copies.engine() as usize;
        let mut state = lock(&self.state);
        let untimed = &mut state.untimed[engine];
        let (due, given_up) = untimed.add(copies, transfer, goes_on(), Instant::now());
        state.missed += given_up;
        drop(state);
        if let Some(copies) = due {
            let clock = lock(&self.clocks[engine]);
            match copies.fence(&clock) {
                Ok(()) => self.time_on(&clock, copies),
                Err(_) => self.miss(copies.count()),
            }
        }
    }

    /// Has copies timed that are over when `stream` has come so far.
    pub(super) fn time_on(&self, stream: &Stream, copies: Copies) {
        match self.stamp(stream).zip(self.anchor()) {
            Some((end, anchor)) => self.await_end(Unread { copies, end, anchor }),
            None => self.miss(copies.count()),
        }
    }

    /// Records an event that tells when `stream` has come so far.
    pub(super) fn stamp(&self, stream: &Stream) -> Option<Event> {
        let spare = lock(&self.state).spare.pop();
        let event = spare.or_else(|| Event::new(&self.driver, Timing::Enabled).ok())?;
        event.record(stream).ok()?;
        Some(event)
    }

    fn await_end(&self, unread: Unread) {
        let mut state = lock(&self.state);
        if state.unread.len() < MOST_UNREAD {
            state.unread.push_back(unread);
        } else {
            state.missed += unread.copies.count();
        }
    }

    /// Notes copies of which nothing will be known.
    pub(super) fn miss(&self, copies: u64) {
        lock(&self.state).missed += copies;
    }

    pub(super) fn keep(&self, read: Read) {
        lock(&self.state).keep(read);
    }

    /// The anchor for copies that are enqueued now.
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

    /// Looks at the copies that are done, oldest first; says whether those were all. No lane waits meanwhile.
    pub(super) fn read_fired(&self) -> bool {
        let _alone = lock(&self.reading);
        while let Some(oldest) = self.take_oldest() {
            // One that failed is looked at too.
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
        let Unread { copies, end, anchor } = unread;
        let on_the_host = |event: &Event| Some(anchor.host + event.elapsed_since(&anchor.event).ok()?);
        let reached = match &copies.reached {
            Reached::At(reached) => Some(*reached),
            Reached::Event(event) => on_the_host(event),
        };
        let times = reached.zip(on_the_host(&end));
        if times.is_none() {
            // A copy failed, and so did what waited for it, which goes on for the next.
            let _told = lock(&self.clocks[copies.engine() as usize]).synchronize();
        }
        let mut state = lock(&self.state);
        match times {
            Some((reached, end)) => state.keep(copies.read(reached, end)),
            None => state.missed += copies.count(),
        }
        state.spare.push(end);
        if let Reached::Event(event) = copies.reached {
            state.spare.push(event);
        }
    }

    /// What ended since `began`, and how many copies are missed.
    pub(super) fn since(&self, began: Instant) -> (Vec<Read>, u64) {
        let state = lock(&self.state);
        let read = state.read.iter().filter(|read| read.end > began).copied();
        let unread = state.unread.iter().map(|unread| &unread.copies);
        let unknown: u64 = unread.map(Copies::count).sum();
        let untimed: u64 = state.untimed.iter().map(Untimed::count).sum();
        (read.collect(), state.missed + unknown + untimed)
    }

    pub(super) fn forget_before(&self, earliest: Instant) {
        lock(&self.state).read.retain(|read| read.end > earliest);
    }
}

impl State {
    fn keep(&mut self, read: Read) {
        if self.read.len() < MOST_SPANS {
            self.read.push(read);
        } else {
            self.missed += u64::from(read.copies);
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
