//! Findings: what makes moving tensors slower here than it could be, what that costs, and what to do about it.
//!
//! A pure function of [`Facts`]. A cost is always reckoned from what was measured on this machine, or from a figure that was
//! measured elsewhere, which the reason then names; where there is neither, it is unknown and says so.

mod gpu;
mod host;
mod link;
mod memory;
mod software;

use std::{cmp::Ordering, fmt};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::Facts;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What kind it is; does not change between versions.
    pub id: &'static str,
    /// Whether something is wrong.
    pub severity: Severity,
    /// What it costs.
    pub cost: Cost,
    /// What was found, in a few words.
    pub title: String,
    /// Why that costs something, with the figures.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
    /// What pinlane does about it by itself.
    pub by_itself: String,
}

/// Whether something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Something is slower than this hardware can be, or does not work.
    Wrong,
}

/// What a finding costs.
#[derive(Clone, Debug, PartialEq)]
pub enum Cost {
    /// Nothing, until somebody does what would need it.
    Nothing,
    /// Nobody has measured it.
    Unknown,
    /// Something takes so many times as long as it could.
    Times {
        /// More than 1.
        times: f64,
        /// What takes that long.
        of: String,
    },
    /// Something does not work at all.
    Everything,
}

/// What is slower by less is noise.
const CLEARLY: f64 = 1.1;

impl Cost {
    fn times(times: f64, of: impl Into<String>) -> Self {
        Self::Times { times, of: of.into() }
    }

    /// Descending costs order findings.
    fn compare(&self, other: &Self) -> Ordering {
        let rank = |cost: &Self| match cost {
            Self::Nothing => (0, 0.0),
            Self::Unknown => (1, 0.0),
            Self::Times { times, .. } => (2, *times),
            Self::Everything => (3, 0.0),
        };
        let ((rank_one, times_one), (rank_other, times_other)) = (rank(self), rank(other));
        rank_one.cmp(&rank_other).then(times_one.total_cmp(&times_other))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing by itself"),
            Self::Unknown => f.write_str("not measured"),
            Self::Times { times, of } => write!(f, "{of}: {times:.1} times as long as it could be"),
            Self::Everything => f.write_str("it does not work at all"),
        }
    }
}

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = match self {
            Self::Nothing => "nothing",
            Self::Unknown => "unknown",
            Self::Times { .. } => "times",
            Self::Everything => "everything",
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", kind)?;
        if let Self::Times { times, of } = self {
            map.serialize_entry("times", times)?;
            map.serialize_entry("of", of)?;
        }
        map.end()
    }
}

/// Looks for one kind of thing.
type Rule = fn(&Facts) -> Vec<Finding>;

const RULES: [Rule; 17] = [
    gpu::missing,
    gpu::unusable,
    gpu::pinning,
    gpu::slow_pinning,
    gpu::not_measured,
    gpu::copy_engines,
    gpu::untuned,
    link::trained_low,
    link::narrow_slot,
    link::slow,
    link::far_node,
    host::too_few_cores,
    host::slow_memory,
    host::busy,
    memory::limits,
    memory::large_pages,
    software::all,
];

/// Everything that is to be said about a machine: what is wrong first, and of that what costs most.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(facts)).collect();
    findings.sort_by(|one, other| {
        let severity = other.severity.cmp(&one.severity);
        severity.then_with(|| other.cost.compare(&one.cost))
    });
    findings
}

#[cfg(test)]
mod tests;
