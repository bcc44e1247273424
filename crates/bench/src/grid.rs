//! One cell after the other: plan, race, check. Cells that seem to fall short, or nearly so, are measured once more, for longer,
//! and only that counts: what the worst of hundreds of cells shows would otherwise be noise, whichever way that goes.

use std::time::{Duration, Instant};

use pinlane::{Plan, Processors, Route};
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Cell, Direction},
    document::Failure,
    error::Result,
    landed::Landed,
    rig::Rig,
    rounds::{Effort, Timing, race},
    ways::{PINLANE, PLAIN, ROUTES, Sources, name_of},
};

/// What was measured in a cell. The bytes of every way were right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellReport {
    /// The cell's name.
    pub id: String,
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
    /// The routes of pinlane's own choice, joined by `+`.
    pub route: String,
    /// Why it chose them.
    pub reason: String,
    /// What the planner expects of its own choice, in seconds; `None` in results of before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<f64>,
    /// What each way took, pinlane's own choice first.
    pub ways: Vec<Timing>,
    /// What pinlane's own choice took again and again, no other way in between: that is what is predicted. In a race each way
    /// finds the caches as another has left them. Of the medians on five
    /// processors, a fifth of the rounds on each, it is the least, since what a neighbour of a virtual machine does to a
    /// processor is in no profile; over 64 MiB, lanes' and engines' work, it is the median of all. `None` in results of before it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<Timing>,
    /// Routes whose plan is the choice's own, step by step. They are not timed: between two timings of one thing lies noise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub same: Vec<String>,
}

/// What was predicted of a cell beside what it took: what is kept of it in a result without cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForeseenCell {
    /// The cell's name.
    pub id: String,
    /// Which way its bytes go.
    pub direction: Direction,
    /// The routes of pinlane's own choice, joined by `+`.
    pub route: String,
    /// What the planner expects of it, in seconds.
    pub predicted: f64,
    /// What it took again and again, in seconds.
    pub repeated: f64,
}

impl CellReport {
    /// The way of that name, if it ran.
    #[must_use]
    pub fn way(&self, name: &str) -> Option<&Timing> {
        self.ways.iter().find(|timing| timing.way == name)
    }

    /// The seconds of pinlane's own choice.
    #[must_use]
    pub fn pinlane(&self) -> Option<f64> {
        self.way(PINLANE).map(|timing| timing.seconds)
    }

    /// How much longer pinlane's own choice takes than the plain way.
    #[must_use]
    pub fn against_plain(&self) -> Option<f64> {
        Some(self.pinlane()? / self.way(PLAIN)?.seconds)
    }

    /// How much longer pinlane's own choice takes than the best route, itself included: 1 at least.
    #[must_use]
    pub fn regret(&self) -> Option<f64> {
        let engine = self.ways.iter().filter(|timing| timing.way != PLAIN);
        let best = engine.map(|timing| timing.seconds).reduce(f64::min)?;
        Some(self.pinlane()? / best)
    }

    /// What was predicted of it beside what it took, where both are known.
    #[must_use]
    pub fn foreseen(&self) -> Option<ForeseenCell> {
        Some(ForeseenCell {
            id: self.id.clone(),
            direction: self.cell.direction,
            route: self.route.clone(),
            predicted: self.predicted?,
            repeated: self.repeated.as_ref()?.seconds,
        })
    }

    /// How far what the planner expects is from what was measured, as a part of the latter.
    #[must_use]
    pub fn prediction_error(&self) -> Option<f64> {
        let measured = self.repeated.as_ref()?.seconds;
        Some((self.predicted? - measured).abs() / measured)
    }

    /// The worse of the two.
    fn shortfall(&self) -> f64 {
        self.against_plain()
            .into_iter()
            .chain(self.regret())
            .fold(0.0, f64::max)
    }
}

/// The ratio to the plain way or to the best route that is still noise.
pub const NOISE: f64 = 1.05;
/// The ratio from which on a cell is measured once more: what is a little below [`NOISE`] may be above it as well.
const DOUBTFUL: f64 = 1.03;
/// How much longer such a cell is measured.
const LONGER: u32 = 5;
/// The part of a cell's time that pinlane's own choice has to itself.
const REPEATED: u32 = 4;
/// It has it in so many places, equal parts on processors at even distances.
const PLACES: usize = 5;
/// Longer cells are lanes' and engines' work, whichever processor the caller is on.
const LONG: usize = 64 << 20;

/// What became of a grid.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The cells that were measured, in the order in which they ran.
    pub reports: Vec<CellReport>,
    /// Those that failed.
    pub failures: Vec<Failure>,
    /// How many were not begun, because the time was up.
    pub left: usize,
}

/// Measures `cells` for as long as `time` lasts; `begins` is told of each, with the number of those before it.
#[must_use]
pub fn measure_all(
    rig: &Rig,
    cells: &[Cell],
    effort: Effort,
    time: Duration,
    begins: impl Fn(&Cell, usize),
) -> Outcome {
    let began = Instant::now();
    let is_up = || began.elapsed() >= time;
    let mut outcome = Outcome::default();
    for (done, cell) in cells.iter().enumerate() {
        if is_up() {
            outcome.left = cells.len() - done;
            return outcome;
        }
        begins(cell, done);
        match measure(rig, *cell, effort) {
            Ok(report) => outcome.reports.push(report),
            Err(error) => outcome.failures.push(Failure::of(cell.to_string(), &error)),
        }
    }
    let longer = Effort {
        budget: effort.budget * LONGER,
        least: effort.least * LONGER as usize,
        most: effort.most * LONGER as usize,
        ..effort
    };
    let mut doubtful: Vec<&mut CellReport> = outcome
        .reports
        .iter_mut()
        .filter(|report| report.shortfall() > DOUBTFUL)
        .collect();
    doubtful.sort_by(|a, b| b.shortfall().total_cmp(&a.shortfall()));
    for report in doubtful {
        if is_up() {
            break;
        }
        begins(&report.cell, cells.len());
        match measure(rig, report.cell, longer) {
            Ok(again) => *report = again,
            Err(error) => outcome.failures.push(Failure::of(report.id.clone(), &error)),
        }
    }
    outcome
}

/// Measures a cell with all ways.
///
/// # Errors
///
/// [`Error::WrongBytes`](crate::Error::WrongBytes), and what the engine and the driver say.
pub fn measure(rig: &Rig, cell: Cell, effort: Effort) -> Result<CellReport> {
    let sources = rig.sources(cell, rig.device_for(cell))?;
    let plans = sources.plans(None)?;
    let (route, reason) = described(&plans);
    let same = chosen_anyway(&sources, &plans);
    let check = |way: &str, landed| rig.check(&sources, way, landed);
    let mut ways = sources.ways();
    ways.retain(|way| !same.contains(&way.name));
    let ways = race(ways, effort, check)?;
    let repeated = repeat(&sources, effort.part(REPEATED), check)?;
    Ok(CellReport {
        id: cell.to_string(),
        cell,
        route,
        reason,
        predicted: Some(Plan::predicted_together(&plans).as_secs_f64()),
        ways,
        repeated,
        same,
    })
}

/// Pinlane's own choice again and again, in several places, of which the best counts: where nobody else slows it down.
fn repeat(
    sources: &Sources<'_>,
    effort: Effort,
    check: impl Fn(&str, Landed) -> Result<()>,
) -> Result<Option<Timing>> {
    let places = match sources.cell.total() {
        ..=LONG => PLACES,
        _ => 1,
    };
    let mut processors = Processors::of_this_thread(places);
    let mut best: Option<Timing> = None;
    for place in 1..=places {
        if places > 1 {
            processors.visit_next();
        }
        let is_first_or_last = place == 1 || place == places;
        let check = |way: &str, landed| {
            if is_first_or_last {
                check(way, landed)
            } else {
                Ok(())
            }
        };
        let timings = race(vec![sources.pinlane()], effort.part(places as u32), check)?;
        let better = |timing: &Timing| best.as_ref().is_none_or(|best| timing.seconds < best.seconds);
        best = timings.into_iter().next().filter(better).or(best);
    }
    Ok(best)
}

/// The names of the routes that, forced, do the same as the choice. One tensor has a short way besides, which no plan shows.
fn chosen_anyway(sources: &Sources<'_>, choice: &[Plan]) -> Vec<String> {
    let is_same = |route: &Route| {
        sources.plans(Some(*route)).is_ok_and(|plans| {
            plans.len() == choice.len()
                && plans
                    .iter()
                    .zip(choice)
                    .all(|(plan, choice)| plan.moves_like(choice))
        })
    };
    let routes = ROUTES.into_iter().filter(|_| sources.cell.count > 1);
    routes.filter(is_same).map(name_of).collect()
}

/// The routes of plans, and their reasons.
fn described(plans: &[Plan]) -> (String, String) {
    let routes = ROUTES
        .into_iter()
        .filter(|route| plans.iter().any(|plan| plan.chunks_by(*route) > 0));
    let routes: Vec<String> = routes.map(|route| route.to_string()).collect();
    let reasons = plans.iter().map(|plan| {
        let text = plan.to_string();
        let lines = text.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.join(" ")
        });
        lines.collect::<Vec<_>>().join("; ")
    });
    (routes.join("+"), reasons.collect::<Vec<_>>().join(" | "))
}
