//! The race of the ways of a cell: in turns, so that whatever disturbs the machine disturbs all alike.
//!
//! The first run of each way does not count: it warms caches and pools, and its bytes are checked. Then come rounds in which
//! every way runs once, in an order drawn anew, so that none always runs behind the same other one. What a run returns is dropped outside the time taken. A
//! way's time is the median of its runs. The bytes of its last run are checked too, and so are those of a first timed run that
//! may turn out to be the only one.

use std::time::{Duration, Instant};

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    landed::Landed,
    ways::{PINLANE, Way, does_not_apply},
};

/// The part of the budget that one run of a way has to take before it is left alone: below it, one slow run may be noise,
/// and another costs little.
const GOOD_PART: u32 = 20;

/// How long and how often to run the ways of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// No round starts after this much time, once there are [enough](Self::least).
    pub budget: Duration,
    /// Rounds there are at least.
    pub least: usize,
    /// Rounds there are at most.
    pub most: usize,
    /// A way that takes longer than the fastest by this factor in the first round, and a good part of the budget, is left
    /// alone after it. Pinlane's own choice never is.
    pub hopeless: Option<f64>,
}

impl Effort {
    /// A part of the time: for each of several works, or for one beside others.
    pub(crate) fn part(self, parts: u32) -> Self {
        Self {
            budget: self.budget / parts,
            ..self
        }
    }

    /// Whether there is another round after `rounds` of them.
    pub(crate) fn goes_on(&self, rounds: usize, began: Instant) -> bool {
        rounds < self.least || (rounds < self.most && began.elapsed() < self.budget)
    }

    /// The part of the budget that one run has to take before its way may be left alone.
    fn long(&self) -> f64 {
        (self.budget / GOOD_PART).as_secs_f64()
    }
}

/// What a way took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The way's name.
    pub way: String,
    /// The median of its runs, in seconds.
    pub seconds: f64,
    /// The fastest of its runs, in seconds.
    pub fastest: f64,
    /// How many runs were timed.
    pub runs: usize,
}

/// Races `ways`. `check` takes the result of each way's first run, which is not timed, and of its last.
///
/// # Errors
///
/// The first error of a way or of `check`; a route that cannot carry the cell is left out.
pub fn race(
    ways: Vec<Way<'_>>,
    effort: Effort,
    mut check: impl FnMut(&str, Landed) -> Result<()>,
) -> Result<Vec<Timing>> {
    let mut runners = Vec::with_capacity(ways.len());
    for way in ways {
        match way.run() {
            Ok(landed) => check(&way.name, landed)?,
            Err(error) if does_not_apply(&error) => continue,
            Err(error) => return Err(error),
        }
        runners.push(Runner {
            way,
            seconds: Vec::new(),
            retired: false,
        });
    }
    // The same orders in every race: one that is repeated is the same race.
    let mut random = StdRng::seed_from_u64(0);
    let mut order: Vec<usize> = (0..runners.len()).collect();
    let began = Instant::now();
    let mut round = 0;
    let mut is_last = false;
    while !is_last {
        // Settled before the round, whose bytes are checked if it is: one may follow when the time is up.
        is_last = !effort.goes_on(round + 1, began);
        order.shuffle(&mut random);
        for &place in &order {
            let runner = &mut runners[place];
            let Some(landed) = runner.run()? else { continue };
            if is_last || round == 0 && runner.may_be_hopeless(effort) {
                check(&runner.way.name, landed)?;
            }
        }
        if round == 0 {
            retire(&mut runners, effort);
        }
        round += 1;
    }
    Ok(runners.into_iter().map(Runner::timing).collect())
}

struct Runner<'a> {
    way: Way<'a>,
    /// What each run but the first took.
    seconds: Vec<f64>,
    retired: bool,
}

impl Runner<'_> {
    /// Runs it once more, unless it is left alone.
    fn run(&mut self) -> Result<Option<Landed>> {
        if self.retired {
            return Ok(None);
        }
        let start = Instant::now();
        let landed = self.way.run()?;
        self.seconds.push(start.elapsed().as_secs_f64());
        Ok(Some(landed))
    }

    /// Whether it may be left alone after the run that it has had.
    fn may_be_hopeless(&self, effort: Effort) -> bool {
        effort.hopeless.is_some() && self.way.name != PINLANE && self.seconds[0] > effort.long()
    }

    fn timing(mut self) -> Timing {
        self.seconds.sort_by(f64::total_cmp);
        Timing {
            seconds: median(&self.seconds),
            fastest: self.seconds[0],
            runs: self.seconds.len(),
            way: self.way.name,
        }
    }
}

/// Leaves the hopeless alone after the first round.
fn retire(runners: &mut [Runner<'_>], effort: Effort) {
    let Some(factor) = effort.hopeless else {
        return;
    };
    let took = runners.iter().map(|runner| runner.seconds[0]);
    let fastest = took.fold(f64::INFINITY, f64::min);
    for runner in runners {
        runner.retired = runner.may_be_hopeless(effort) && runner.seconds[0] > factor * fastest;
    }
}

/// The median seconds of each of `works`, which take turns after one run each that is not timed.
///
/// # Errors
///
/// The first error of any.
pub fn take_turns<const N: usize>(
    effort: Effort,
    mut works: [&mut dyn FnMut() -> Result<()>; N],
) -> Result<[f64; N]> {
    for work in &mut works {
        work()?;
    }
    let mut seconds = [const { Vec::new() }; N];
    let began = Instant::now();
    let mut round = 0;
    while effort.goes_on(round, began) {
        for turn in 0..N {
            let place = (turn + round) % N;
            let start = Instant::now();
            works[place]()?;
            seconds[place].push(start.elapsed().as_secs_f64());
        }
        round += 1;
    }
    Ok(seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        median(&seconds)
    }))
}

/// One piece of work, run again and again: once without its time, which warms everything up, then as often as an effort
/// asks for. The caller drops what a run gives outside the time, and checks what the first and the last have landed.
#[derive(Debug)]
pub(crate) struct Repeated {
    effort: Effort,
    /// When the second run began; `None` until then.
    began: Option<Instant>,
    /// What each run but the first took.
    seconds: Vec<f64>,
    runs: usize,
    is_over: bool,
}

impl Repeated {
    pub(crate) fn new(effort: Effort) -> Self {
        Self {
            effort,
            began: None,
            seconds: Vec::new(),
            runs: 0,
            is_over: false,
        }
    }

    /// Runs `work` once, and gives what it gives.
    pub(crate) fn run<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let given = work()?;
        if self.runs > 0 {
            self.seconds.push(start.elapsed().as_secs_f64());
            let began = *self.began.get_or_insert(start);
            // Settled now, so that the caller knows a last run as such before there is no other.
            self.is_over = !self.effort.goes_on(self.seconds.len(), began);
        }
        self.runs += 1;
        Ok(given)
    }

    /// Whether no run is to follow.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether what the latest run has landed is to be checked.
    pub(crate) fn is_first_or_last(&self) -> bool {
        self.runs == 1 || self.is_over
    }

    /// The median of the seconds that a run took.
    pub(crate) fn median(mut self) -> f64 {
        self.seconds.sort_by(f64::total_cmp);
        median(&self.seconds)
    }
}

/// The middle of sorted values, or the mean of the two in the middle.
///
/// # Panics
///
/// When there are none.
#[must_use]
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crate::{error::Error, ways::PLAIN};

    use super::*;

    const EFFORT: Effort = Effort {
        budget: Duration::ZERO,
        least: 3,
        most: 3,
        hopeless: Some(3.0),
    };

    fn nothing() -> Landed {
        Landed::Copied {
            pageable: Vec::new(),
            pinned: Vec::new(),
        }
    }

    fn way(name: &str, run: impl Fn() -> Result<Landed> + 'static) -> Way<'static> {
        Way::new(name, run)
    }

    fn slow(name: &str) -> Way<'static> {
        way(name, || {
            thread::sleep(Duration::from_millis(300));
            Ok(nothing())
        })
    }

    fn runs(ways: Vec<Way<'_>>, effort: Effort) -> Vec<(String, usize)> {
        let timings = race(ways, effort, |_, _| Ok(())).unwrap();
        timings
            .into_iter()
            .map(|timing| (timing.way, timing.runs))
            .collect()
    }

    #[test]
    fn a_hopeless_way_is_left_alone_after_a_round_and_pinlane_never_is() {
        let ways = || vec![slow(PINLANE), way("fast", || Ok(nothing())), slow(PLAIN)];
        let expected =
            |plain| [(PINLANE, 3), ("fast", 3), (PLAIN, plain)].map(|(name, runs)| (name.to_owned(), runs));
        assert_eq!(runs(ways(), EFFORT), expected(1));
        let never = Effort {
            hopeless: None,
            ..EFFORT
        };
        assert_eq!(runs(ways(), never), expected(3));
    }

    #[test]
    fn what_each_way_lands_first_and_last_is_checked_and_the_only_timed_run_of_a_hopeless_way() {
        let ways = vec![slow(PINLANE), way("fast", || Ok(nothing())), slow(PLAIN)];
        let mut checked: Vec<String> = Vec::new();
        let timings = race(ways, EFFORT, |way, _| {
            checked.push(way.to_owned());
            Ok(())
        });
        assert_eq!(timings.unwrap()[2].runs, 1);
        let times = |name| checked.iter().filter(|checked| *checked == name).count();
        assert_eq!([PINLANE, "fast", PLAIN].map(times), [2, 3, 2]);
    }

    #[test]
    fn wrong_bytes_of_a_last_run_end_the_race() {
        let mut checks = 0;
        let raced = race(vec![way(PLAIN, || Ok(nothing()))], EFFORT, |way, _| {
            checks += 1;
            match checks {
                1 => Ok(()),
                _ => Err(Error::WrongBytes {
                    cell: "a cell".to_owned(),
                    way: way.to_owned(),
                    tensor: 0,
                    count: 1,
                }),
            }
        });
        assert!(matches!(raced, Err(Error::WrongBytes { .. })), "{raced:?}");
    }

    #[test]
    fn a_route_that_cannot_carry_the_bytes_is_left_out_and_any_other_error_ends_the_race() {
        let refused = || {
            Err(Error::Engine(pinlane::Error::Leaf {
                path: "#0".to_owned(),
                source: Box::new(pinlane::Error::Route {
                    route: pinlane::Route::Direct,
                    reason: "not pinned",
                }),
            }))
        };
        let ways = vec![way("route-direct", refused), way(PLAIN, || Ok(nothing()))];
        assert_eq!(runs(ways, EFFORT), [(PLAIN.to_owned(), 3)]);
        let fails = || Err(Error::Engine(pinlane::Error::HostMemory { bytes: 7 }));
        assert!(race(vec![way(PINLANE, fails)], EFFORT, |_, _| Ok(())).is_err());
    }

    #[test]
    fn repeated_work_has_its_first_and_its_last_run_checked_and_only_the_first_is_not_timed() {
        let mut repeated = Repeated::new(EFFORT);
        let mut checked = Vec::new();
        while !repeated.is_over() {
            repeated.run(|| Ok(())).unwrap();
            checked.push(repeated.is_first_or_last());
        }
        assert_eq!(checked, [true, false, false, true]);
        assert_eq!(repeated.seconds.len(), EFFORT.most);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 7.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 7.0]), 3.0);
    }
}
