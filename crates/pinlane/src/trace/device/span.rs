//! Copies that are timed together.

use pinlane_driver::{
    Stream,
    sync::{Arc, Duration, Instant},
};

use super::{Fence, Reached, Work};
use crate::{
    Route,
    trace::collected::{DeviceSpan, EngineKind, TimedBy},
};

/// How often an engine is asked for the time at most while one copy follows another. It costs the engine up to three
/// microseconds, and the thread that asks the driver's calls.
const STAMP_EVERY: Duration = Duration::from_millis(1);
/// A copy follows another that comes before the engine can have been idle for so long.
const FOLLOWS_WITHIN: Duration = Duration::from_micros(50);

/// Copies on one engine, one behind the other.
#[derive(Debug)]
pub(super) struct Copies {
    pub(super) reached: Reached,
    engine: EngineKind,
    copies: u32,
    bytes: u64,
    route: Option<Route>,
    lane: Option<usize>,
    /// The last on each stream, and on what became of it after a failure.
    ends: Vec<Arc<dyn Fence>>,
}

/// Copies whose times are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) reached: Instant,
    pub(super) end: Instant,
    pub(super) engine: EngineKind,
    pub(super) copies: u32,
    pub(super) bytes: u64,
    pub(super) route: Option<Route>,
    pub(super) lane: Option<usize>,
    pub(super) timed_by: TimedBy,
}

impl Copies {
    pub(super) fn new(reached: Reached, work: &Work, end: Arc<dyn Fence>) -> Self {
        Self {
            reached,
            engine: work.engine(),
            copies: 1,
            bytes: work.bytes,
            route: Some(work.route),
            lane: work.lane,
            ends: vec![end],
        }
    }

    pub(super) fn engine(&self) -> EngineKind {
        self.engine
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes `stream` wait for the end of all.
    pub(super) fn make_wait(&self, stream: &Stream) -> Result<(), pinlane_driver::Error> {
        self.ends.iter().try_for_each(|end| end.make_wait(stream))
    }

    /// Lets go of the ends, whose events are of use to others, once they are waited for.
    pub(super) fn release_ends(&mut self) {
        self.ends = Vec::new();
    }

    /// Whether all are over, if that went well; `None` before they are.
    fn outcome(&self) -> Option<Result<(), pinlane_driver::Error>> {
        let outcomes = self.ends.iter().map(|end| end.outcome());
        let outcomes: Option<Vec<_>> = outcomes.collect();
        Some(outcomes?.into_iter().collect())
    }

    pub(super) fn count(&self) -> u64 {
        self.copies.into()
    }

    /// Adds copies that came later.
    fn append(&mut self, later: Self) {
        self.copies += later.copies;
        self.bytes += later.bytes;
        self.route = self.route.filter(|route| Some(*route) == later.route);
        self.lane = self.lane.filter(|lane| Some(*lane) == later.lane);
        for end in later.ends {
            match self.ends.iter_mut().find(|known| known.place() == end.place()) {
                Some(known) => *known = end,
                None => self.ends.push(end),
            }
        }
    }

    pub(super) fn read(&self, reached: Instant, end: Instant, timed_by: TimedBy) -> Read {
        Read {
            reached,
            end,
            engine: self.engine,
            copies: self.copies,
            bytes: self.bytes,
            route: self.route,
            lane: self.lane,
            timed_by,
        }
    }
}

impl Read {
    /// The span of these copies.
    pub(super) fn span(&self, start: Duration, end: Duration) -> DeviceSpan {
        DeviceSpan {
            engine: self.engine,
            start,
            end,
            copies: self.copies,
            bytes: self.bytes,
            route: self.route,
            lane: self.lane.and_then(|lane| u32::try_from(lane).ok()),
            timed_by: self.timed_by,
        }
    }

    /// Makes these copies part of a span, which ends at `end` then.
    pub(super) fn join(&self, span: &mut DeviceSpan, end: Duration) {
        let own = self.span(span.start, end);
        span.end = span.end.max(end);
        span.copies += own.copies;
        span.bytes += own.bytes;
        span.route = span.route.filter(|route| Some(*route) == own.route);
        span.lane = span.lane.filter(|lane| Some(*lane) == own.lane);
    }

    /// One copy, which its caller waited for.
    pub(super) fn alone(work: &Work, reached: Instant, end: Instant) -> Self {
        Self {
            reached,
            end,
            engine: work.engine(),
            copies: 1,
            bytes: work.bytes,
            route: Some(work.route),
            lane: work.lane,
            timed_by: TimedBy::Host,
        }
    }
}

/// An engine's copies that have not been timed yet.
#[derive(Debug, Default)]
pub(super) struct Untimed {
    copies: Option<Copies>,
    /// When the engine has carried all that it was given, at the rate of its link: not before that.
    busy_until: Option<Instant>,
    /// When it was asked for the time last, or had been idle.
    stamped: Option<Instant>,
    /// Whether copies come one by one, each after the one before was over.
    is_slow: bool,
}

/// What becomes of copies when one more is enqueued.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// To be timed now.
    pub(super) due: Option<Copies>,
    /// Over before anybody looked at a clock.
    pub(super) over: Option<Read>,
    /// How many have failed.
    pub(super) missed: u64,
}

impl Untimed {
    /// Adds a copy that was enqueued by now, which takes so long at the rate of its link; `None` where that is not known.
    ///
    /// Copies wait for their time to be asked only while one follows another. Those before the first that comes late, and that
    /// are over by then, ended when the link can have carried them; from then on each is timed at once, until one follows again.
    pub(super) fn add(&mut self, copy: Copies, takes: Option<Duration>, now: Instant) -> Added {
        let mut added = Added::default();
        let is_late = |until: &Instant| now > *until + FOLLOWS_WITHIN;
        let mut follows = self.busy_until.is_some_and(|until| !is_late(&until));
        if !follows && let Some(copies) = &self.copies {
            let outcome = copies.outcome();
            // The link is slower than it might be.
            follows = outcome.is_none();
            match (&copies.reached, outcome, self.busy_until) {
                (Reached::At(reached), Some(Ok(())), Some(until)) => {
                    added.over = Some(copies.read(*reached, until, TimedBy::Link));
                }
                (_, Some(_), _) => added.missed = copies.count(),
                (_, None, _) => {}
            }
        }
        if follows {
            self.is_slow = false;
        } else {
            self.is_slow |= self.copies.take().is_some();
            self.stamped = Some(now);
        }
        let free_at = self.busy_until.filter(|_| follows).unwrap_or(now).max(now);
        self.busy_until = takes.and_then(|takes| free_at.checked_add(takes));
        match &mut self.copies {
            Some(copies) => copies.append(copy),
            none => *none = Some(copy),
        }
        let is_due = self.is_slow
            || takes.is_none()
            || self.stamped.is_none_or(|stamped| now - stamped >= STAMP_EVERY);
        if is_due {
            added.due = self.take(now);
        }
        added
    }

    /// All there are, to be timed now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Copies> {
        let copies = self.copies.take()?;
        self.stamped = Some(now);
        Some(copies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Direction;

    /// On a stream, which has come so far or has not.
    #[derive(Debug)]
    struct OnStream(usize, bool);

    impl Fence for OnStream {
        fn outcome(&self) -> Option<Result<(), pinlane_driver::Error>> {
            self.1.then_some(Ok(()))
        }

        fn make_wait(&self, _: &Stream) -> Result<(), pinlane_driver::Error> {
            Ok(())
        }

        fn place(&self) -> (usize, u64) {
            (self.0, 0)
        }
    }

    /// A hundred bytes by a lane, which are over when somebody asks, or not yet.
    fn copies(lane: usize, route: Route, now: Instant, is_over: bool) -> Copies {
        let work = Work {
            direction: Direction::ToDevice,
            bytes: 100,
            route,
            lane: Some(lane),
            by_kernel: false,
        };
        Copies::new(Reached::At(now), &work, Arc::new(OnStream(lane, is_over)))
    }

    /// Adds copies at some microseconds, which take 100 each; gives how many were to be timed at each, and how many had been
    /// over and when.
    fn add(times: &[u64]) -> Vec<(u32, Option<(u32, u64)>)> {
        let (mut untimed, began) = (Untimed::default(), Instant::now());
        let each = times.iter().map(|&micros| {
            let now = began + Duration::from_micros(micros);
            let takes = Some(Duration::from_micros(100));
            let added = untimed.add(copies(0, Route::Staged, now, true), takes, now);
            let over = added.over.map(|read| {
                assert_eq!(read.timed_by, TimedBy::Link);
                (read.copies, (read.end - began).as_micros() as u64)
            });
            (added.due.map_or(0, |copies| copies.copies), over)
        });
        each.collect()
    }

    #[test]
    fn copies_that_follow_each_other_are_timed_together_now_and_then() {
        let found = add(&[
            0, 10, 120, 300, 420, 500, 600, 700, 800, 900, 1010, 1020, 1100, 2050,
        ]);
        let due: Vec<_> = found.iter().map(|(due, _)| *due).collect();
        assert_eq!(due, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 1]);
        assert_eq!(found[13].1, Some((2, 1320)), "idle since");
        assert!(found[..13].iter().all(|(_, over)| over.is_none()), "{found:?}");
    }

    #[test]
    fn copies_that_come_slowly_are_timed_one_by_one() {
        let found = add(&[0, 400, 800, 1200, 1250, 1300, 2000, 2400]);
        let over = |copies, at| Some((copies, at));
        let expected = [
            (0, None),
            (1, over(1, 100)),
            (1, None),
            (1, None),
            // They follow again.
            (0, None),
            (0, None),
            (1, over(2, 1500)),
            (1, None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn idle_time_is_in_no_span() {
        // Two at a time: the second is done long before the next comes.
        let found = add(&[0, 50, 1000, 1050, 2000]);
        let expected = [
            (0, None),
            (0, None),
            (1, Some((2, 200))),
            (0, None),
            (1, Some((1, 1200))),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_link_that_is_slower_than_it_might_be_keeps_copies_waiting() {
        let (mut untimed, began) = (Untimed::default(), Instant::now());
        let takes = Some(Duration::from_micros(100));
        let found = [0, 50, 1000].map(|micros| {
            let now = began + Duration::from_micros(micros);
            let added = untimed.add(copies(0, Route::Staged, now, false), takes, now);
            assert!(added.over.is_none() && added.missed == 0);
            added.due.map_or(0, |copies| copies.copies)
        });
        assert_eq!(found, [0, 0, 3]);
    }

    #[test]
    fn copies_over_a_link_of_unknown_rate_are_timed_one_by_one() {
        let (mut untimed, now) = (Untimed::default(), Instant::now());
        for _ in 0..3 {
            let added = untimed.add(copies(0, Route::Staged, now, true), None, now);
            assert_eq!(added.due.map(|copies| copies.copies), Some(1));
        }
    }

    #[test]
    fn the_end_of_a_transfer_has_all_timed_that_is_left() {
        let (mut untimed, now) = (Untimed::default(), Instant::now());
        let takes = Some(Duration::from_micros(100));
        for _ in 0..3 {
            let added = untimed.add(copies(0, Route::Staged, now, true), takes, now);
            assert!(added.due.is_none());
        }
        assert_eq!(untimed.take(now).map(|copies| copies.copies), Some(3));
        assert!(untimed.take(now).is_none());
    }

    #[test]
    fn copies_of_several_lanes_and_routes_say_neither_and_wait_for_the_last_on_each_stream() {
        let now = Instant::now();
        let mut same = copies(1, Route::Staged, now, true);
        same.append(copies(1, Route::Staged, now, true));
        let mut others = copies(1, Route::Staged, now, true);
        others.append(copies(2, Route::Packed, now, true));
        others.append(copies(1, Route::Packed, now, true));
        let streams = |copies: &Copies| copies.ends.iter().map(|end| end.place().0).collect::<Vec<_>>();
        assert_eq!((streams(&same), streams(&others)), (vec![1], vec![1, 2]));
        let read = |copies: &Copies| copies.read(now, now, TimedBy::Device);
        let (same, others) = (read(&same), read(&others));
        assert_eq!(
            (same.route, same.lane, same.copies),
            (Some(Route::Staged), Some(1), 2)
        );
        assert_eq!((others.route, others.lane, others.bytes), (None, None, 300));
    }
}
