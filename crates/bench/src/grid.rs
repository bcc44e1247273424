//! One cell after the other: plan, race, check.

use pinlane::Plan;
use serde::{Deserialize, Serialize};

use crate::{
    cell::Cell,
    error::Result,
    rig::Rig,
    rounds::{Effort, Timing, race},
    ways::{PINLANE, PLAIN, ROUTES},
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
    /// What each way took, pinlane's own choice first.
    pub ways: Vec<Timing>,
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
}

/// Measures a cell with all ways.
///
/// # Errors
///
/// [`Error::WrongBytes`](crate::Error::WrongBytes), and what the engine and the driver say.
pub fn measure(rig: &Rig, cell: Cell, effort: Effort) -> Result<CellReport> {
    let sources = rig.sources(cell, rig.device_for(cell))?;
    let (route, reason) = described(&sources.plans()?);
    let check = |way: &str, landed| rig.check(&sources, way, landed);
    let ways = race(sources.ways(), effort, check)?;
    Ok(CellReport {
        id: cell.to_string(),
        cell,
        route,
        reason,
        ways,
    })
}

/// The routes of plans, and their reasons.
fn described(plans: &[Plan]) -> (String, String) {
    let routes = ROUTES
        .into_iter()
        .filter(|route| plans.iter().any(|plan| plan.chunks_by(*route) > 0));
    let routes: Vec<String> = routes.map(|route| route.to_string()).collect();
    let reasons = plans.iter().map(|plan| {
        let text = plan.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.join("; ")
    });
    (routes.join("+"), reasons.collect::<Vec<_>>().join(" | "))
}
