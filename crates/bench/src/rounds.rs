//! The race of the ways of a cell: in turns, so that whatever disturbs the machine disturbs all alike.
//!
//! The first run of each way is not timed: it warms caches and pools, and its bytes are checked. Then come rounds in which
//! every way runs once, each round beginning with another way. What a run returns is dropped outside the time taken. A
//! way's time is the median of its runs.

use std::time::{Duration, Instant};

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
    /// Whether there is another round after `rounds` of them.
    pub(crate) fn goes_on(&self, rounds: usize, began: Instant) -> bool {
        rounds < self.least || (rounds < self.most && began.elapsed() < self.budget)
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

/// Races `ways`. `check` takes the result of each way's first run.
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
    let began = Instant::now();
    let mut round = 0;
    while effort.goes_on(round, began) {
        for turn in 0..runners.len() {
            let place = (turn + round) % runners.len();
            runners[place].run()?;
        }
        if round == 0
            && let Some(factor) = effort.hopeless
        {
            retire(&mut runners, factor, effort.budget / GOOD_PART);
        }
        round += 1;
    }
    Ok(runners.into_iter().map(Runner::timing).collect())
}

struct Runner<'a> {
    way: Way<'a>,
    seconds: Vec<f64>,
    retired: bool,
}

impl Runner<'_> {
    fn run(&mut self) -> Result<()> {
        if !self.retired {
            let start = Instant::now();
            let landed = self.way.run()?;
            self.seconds.push(start.elapsed().as_secs_f64());
            drop(landed);
        }
        Ok(())
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

fn retire(runners: &mut [Runner<'_>], factor: f64, long: Duration) {
    let fastest = runners
        .iter()
        .map(|runner| runner.seconds[0])
        .fold(f64::INFINITY, f64::min);
    for runner in runners {
        runner.retired =
            runner.way.name != PINLANE && runner.seconds[0] > (factor * fastest).max(long.as_secs_f64());
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
