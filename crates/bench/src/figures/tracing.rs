//! What a trace adds to a transfer: the same with and without a session, turn and turn about.

use std::time::{Duration, Instant};

use pinlane::trace;
use pinlane_guide::units;

use super::{Context, Draft, Unit, judge::Asked::AtMost, work};
use crate::{
    cell::Cell,
    error::Result,
    landed::Landed,
    rounds::{Effort, median},
    ways::{PINLANE, Way},
};

/// A turn lasts about so long: a session is begun and ended outside the time, and each leaves the caches cold.
const TURN: Duration = Duration::from_millis(10);

pub(super) fn trace_on(context: &Context<'_>) -> Result<Draft> {
    let mut ratios = Vec::new();
    for cell in work::traced(context.scale) {
        ratios.push((ratio(context, cell)?, cell));
    }
    ratios.sort_by(|a, b| b.0.total_cmp(&a.0));
    let listed = ratios.iter().map(|(ratio, cell)| {
        let size = units::bytes(cell.bytes as u64);
        format!("{ratio:.3} with {} x {size} {}", cell.count, cell.memory)
    });
    let listed: Vec<String> = listed.collect();
    let worst = ratios.first().map_or(f64::NAN, |(ratio, _)| *ratio);
    Ok(Draft::new(worst, Unit::Times)
        .asked([AtMost(1.02)])
        .detail(listed.join(", ")))
}

/// How much longer a transfer of `cell` takes while a session is open.
fn ratio(context: &Context<'_>, cell: Cell) -> Result<f64> {
    let rig = context.rig;
    let sources = rig.sources(cell, rig.device_for(cell))?;
    let way = sources.pinlane();
    rig.check(&sources, PINLANE, way.run()?)?;
    let (took, _) = run(&way)?;
    let runs = (TURN.as_secs_f64() / took).ceil().clamp(1.0, 1e4) as usize;
    let ratio = in_turns(context.effort.part(2), |traced| {
        let _session = traced.then(trace::start);
        turn(&way, runs)
    })?;
    let session = trace::start();
    rig.check(&sources, PINLANE, way.run()?)?;
    drop(session);
    Ok(ratio)
}

/// The median ratio of `turn` with a trace to the one beside it without. Each begins every other round: what a turn finds in
/// the caches is what the turn before has left there.
fn in_turns(effort: Effort, mut turn: impl FnMut(bool) -> Result<f64>) -> Result<f64> {
    let (began, mut ratios) = (Instant::now(), Vec::new());
    while effort.goes_on(ratios.len(), began) {
        let (with, without) = if ratios.len() % 2 == 0 {
            let without = turn(false)?;
            (turn(true)?, without)
        } else {
            (turn(true)?, turn(false)?)
        };
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(median(&ratios))
}

/// The median seconds of some runs.
fn turn(way: &Way<'_>, runs: usize) -> Result<f64> {
    let mut took = (0..runs).map(|_| Ok(run(way)?.0)).collect::<Result<Vec<f64>>>()?;
    took.sort_by(f64::total_cmp);
    Ok(median(&took))
}

/// The seconds of a run, and what it landed, for the caller to drop.
fn run(way: &Way<'_>) -> Result<(f64, Landed)> {
    let began = Instant::now();
    let landed = way.run()?;
    Ok((began.elapsed().as_secs_f64(), landed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_a_trace_take_turns_at_being_first() {
        let effort = Effort {
            budget: Duration::ZERO,
            least: 3,
            most: 3,
            hopeless: None,
        };
        let mut order = Vec::new();
        let ratio = in_turns(effort, |traced| {
            order.push(traced);
            Ok(if traced { 3.0 } else { 2.0 })
        });
        assert!((ratio.unwrap() - 1.5).abs() < 1e-9);
        assert_eq!(order, [false, true, true, false, false, true]);
    }
}
