//! Copies that are timed together.

use pinlane_driver::{
    Stream,
    sync::{Arc, Duration, Instant},
};

use super::{End, Reached, Work};
use crate::{
    Route,
    trace::collected::{DeviceSpan, EngineKind, TimedBy},
};

/// How often an engine is asked for the time at most while one copy follows another. It costs the engine up to three
/// microseconds, so this is what keeps a trace below one in a hundred of a transfer's time.
const STAMP_EVERY: Duration = Duration::from_micros(250);
/// A transfer that was to go on and has not when this is over, and another has begun, failed or was cancelled.
const COMES_AT_ONCE: Duration = Duration::from_millis(1);

/// Copies on one engine, one behind the other.
#[derive(Debug)]
pub(super) struct Copies {
    pub(super) reached: Reached,
    engine: EngineKind,
    copies: u32,
    bytes: u64,
    route: Option<Route>,
    lane: Option<usize>,
    /// The last on each stream.
    ends: Vec<Arc<dyn End>>,
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
    pub(super) fn new(reached: Reached, work: &Work, end: Arc<dyn End>) -> Self {
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

    /// Makes `stream` wait for the end of all.
    pub(super) fn fence(&self, stream: &Stream) -> Result<(), pinlane_driver::Error> {
        self.ends.iter().try_for_each(|end| end.fence(stream))
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
            match self.ends.iter_mut().find(|known| known.stream() == end.stream()) {
                Some(known) => *known = end,
                None => self.ends.push(end),
            }
        }
    }

    pub(super) fn read(&self, reached: Instant, end: Instant) -> Read {
        Read {
            reached,
            end,
            engine: self.engine,
            copies: self.copies,
            bytes: self.bytes,
            route: self.route,
            lane: self.lane,
            timed_by: TimedBy::Device,
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
    /// The transfer that was to go on, and since when.
    expected: Option<(usize, Instant)>,
    /// When an engine was asked for the time last.
    stamped: Option<Instant>,
}

impl Untimed {
    /// Adds what was enqueued by now of a transfer, which goes on at once or not. Gives what is to be timed now, and how many
    /// copies never will be.
    pub(super) fn add(
        &mut self,
        added: Copies,
        transfer: usize,
        goes_on: bool,
        now: Instant,
    ) -> (Option<Copies>, u64) {
        let is_over = self
            .expected
            .is_some_and(|(expected, since)| expected != transfer && now - since > COMES_AT_ONCE);
        let given_up = self.copies.take_if(|_| is_over);
        match &mut self.copies {
            Some(copies) => copies.append(added),
            none => *none = Some(added),
        }
        self.expected = Some((transfer, now));
        let is_due = self.stamped.is_none_or(|stamped| now - stamped >= STAMP_EVERY);
        let due = self.copies.take_if(|_| is_due || !goes_on);
        if due.is_some() {
            self.stamped = Some(now);
        }
        (due, given_up.map_or(0, |copies| copies.count()))
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.copies.as_ref().map_or(0, Copies::count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Direction;

    #[derive(Debug)]
    struct OnStream(usize);

    impl End for OnStream {
        fn fence(&self, _: &Stream) -> Result<(), pinlane_driver::Error> {
            Ok(())
        }

        fn stream(&self) -> usize {
            self.0
        }
    }

    /// A hundred bytes by a lane.
    fn copies(lane: usize, route: Route, now: Instant) -> Copies {
        let work = Work {
            direction: Direction::ToDevice,
            bytes: 100,
            route,
            lane: Some(lane),
            by_kernel: false,
            transfer: 0,
        };
        Copies::new(Reached::At(now), &work, Arc::new(OnStream(lane)))
    }

    /// Adds copies of transfers at some microseconds; gives the copies and bytes of what was timed at each, and how many
    /// were given up.
    fn add(times: &[(usize, u64, bool)]) -> Vec<(Option<(u32, u64)>, u64)> {
        let (mut untimed, began) = (Untimed::default(), Instant::now());
        let each = times.iter().map(|&(transfer, micros, goes_on)| {
            let now = began + Duration::from_micros(micros);
            let (due, given_up) = untimed.add(copies(0, Route::Staged, now), transfer, goes_on, now);
            (due.map(|copies| (copies.copies, copies.bytes)), given_up)
        });
        each.collect()
    }

    #[test]
    fn copies_that_follow_closely_are_timed_together_and_the_last_of_a_transfer_at_once() {
        let found = add(&[
            (0, 0, true),
            (0, 50, true),
            (1, 100, true),
            (0, 260, true),
            (1, 270, true),
            (0, 300, false),
        ]);
        assert_eq!(
            found,
            [
                (Some((1, 100)), 0),
                (None, 0),
                (None, 0),
                (Some((3, 300)), 0),
                (None, 0),
                (Some((2, 200)), 0)
            ]
        );
    }

    #[test]
    fn copies_that_come_slowly_are_timed_one_by_one() {
        let found = add(&[(0, 0, true), (0, 400, true), (0, 800, true)]);
        assert!(found.iter().all(|each| *each == (Some((1, 100)), 0)), "{found:?}");
    }

    #[test]
    fn what_nothing_followed_is_given_up_rather_than_timed_by_another_transfer() {
        let found = add(&[(0, 0, true), (0, 50, true), (1, 5000, true)]);
        assert_eq!(found[2], (Some((1, 100)), 1));
        // A slow engine keeps its transfer waiting.
        let found = add(&[(0, 0, true), (0, 50, true), (0, 5000, true)]);
        assert_eq!(found[2], (Some((2, 200)), 0));
    }

    #[test]
    fn copies_of_several_lanes_and_routes_say_neither_and_wait_for_the_last_on_each_stream() {
        let now = Instant::now();
        let mut same = copies(1, Route::Staged, now);
        same.append(copies(1, Route::Staged, now));
        let mut others = copies(1, Route::Staged, now);
        others.append(copies(2, Route::Packed, now));
        others.append(copies(1, Route::Packed, now));
        let streams = |copies: &Copies| copies.ends.iter().map(|end| end.stream()).collect::<Vec<_>>();
        assert_eq!((streams(&same), streams(&others)), (vec![1], vec![1, 2]));
        let (same, others) = (same.read(now, now), others.read(now, now));
        assert_eq!(
            (same.route, same.lane, same.copies),
            (Some(Route::Staged), Some(1), 2)
        );
        assert_eq!((others.route, others.lane, others.bytes), (None, None, 300));
    }
}
