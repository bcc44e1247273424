//! What an experiment is: a claim of the guide, and a function that puts it to the test.

use crate::{context::Context, error::Result, outcome::Outcome};

/// One claim of the guide and the experiment that tests it.
#[derive(Debug)]
pub struct Experiment {
    /// The name on the command line and in reports.
    pub id: &'static str,
    /// What the guide says, in our words.
    pub claim: &'static str,
    /// What the experiment does, and what there is to see.
    pub shows: &'static str,
    /// Runs it.
    pub run: fn(&Context<'_>) -> Result<Outcome>,
}
