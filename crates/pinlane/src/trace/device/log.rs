//! What one device has told so far, and the events that are yet to tell.

use std::collections::VecDeque;

use pinlane_driver::{
    Driver, Event, Properties, Stream, Timing,
    sync::{self, Arc, Duration, Instant, Mutex, lock},
};

use super::{
    Reached,
    span::{Copies, Read, Untimed},
};
use crate::trace::collected::{EngineKind, TimedBy};

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

impl Log {
    /// Of the device behind `driver`; `None` where it refuses.
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Option<Self> {
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

    /// Makes beforehand what a session's first copies would otherwise wait for.
    pub(super) fn prepare(&self) {
        let _known_from_now_on = self.anchor();
        let missing = READY.saturating_sub(lock(&self.state).spare.len());
        let events = (0..missing).filter_map(|_| Event::new(&self.driver, Timing::Enabled).ok());
        let events: Vec<_> = events.collect();
        lock(&self.state).spare.extend(events);
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
    pub(super) fn time_rest(&self, engine: EngineKind) {
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
