//! Facts and findings together, as programs get them.

use serde::Serialize;

use crate::{Facts, Finding, Options, Severity, judge, probe};

/// A machine, and what is to be said about it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it is.
    pub facts: Facts,
    /// What was found, the costliest first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Looks at this machine and judges it: in a few seconds, during which nothing else should run.
    #[must_use]
    pub fn of_this_machine(options: &Options) -> Self {
        Self::of(probe(options))
    }

    /// Judges a machine.
    #[must_use]
    pub fn of(facts: Facts) -> Self {
        Self {
            findings: judge(&facts),
            facts,
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity < Severity::Wrong)
    }

    /// As JSON.
    ///
    /// # Errors
    ///
    /// None for what [`of`](Self::of) gives.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}
