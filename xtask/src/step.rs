//! Running steps one after another: a heading and a duration for each, a table at the end, and one verdict.
//!
//! A failed step does not stop the others, so that one run tells all that is wrong; only what needs the failed step's
//! result is left out, and counts as not passed.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Error, Result, bail};

/// One check.
pub(crate) struct Step {
    /// What it is called in the table and on the command line.
    pub(crate) name: &'static str,
    /// What holds when it passes.
    pub(crate) about: &'static str,
    /// The steps without whose success this one says nothing.
    pub(crate) needs: &'static [&'static str],
    /// The check itself; gives a few words for the table.
    pub(crate) run: fn() -> Result<String>,
}

/// An error that says why a check can't be made here, which does not fail the run: it is counted and shown.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

enum Outcome {
    Passed(String),
    Skipped(String),
    Failed(Error),
    NotRun { needs: &'static str },
}

struct Record {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Runs the steps in their order. An error says that at least one did not pass.
pub(crate) fn run(steps: &[&Step]) -> Result<()> {
    let start = Instant::now();
    let mut records: Vec<Record> = Vec::new();
    for (position, step) in steps.iter().enumerate() {
        println!(
            "\n== {}/{} {}: {}",
            position + 1,
            steps.len(),
            step.name,
            step.about
        );
        let began = Instant::now();
        let outcome = match unmet(step, &records) {
            Some(needs) => Outcome::NotRun { needs },
            None => match (step.run)() {
                Ok(note) => Outcome::Passed(note),
                Err(error) => match error.downcast::<Skipped>() {
                    Ok(skipped) => Outcome::Skipped(skipped.0),
                    Err(error) => Outcome::Failed(error),
                },
            },
        };
        let took = began.elapsed();
        let (word, note) = told(&outcome);
        println!("== {} {word} in {:.1} s {note}", step.name, took.as_secs_f64());
        records.push(Record {
            name: step.name,
            outcome,
            took,
        });
    }
    summarise(&records, start.elapsed())
}

/// The first step that `step` needs and that was run and did not pass.
fn unmet(step: &Step, records: &[Record]) -> Option<&'static str> {
    step.needs.iter().copied().find(|needed| {
        let passed = |record: &Record| matches!(record.outcome, Outcome::Passed(_));
        records
            .iter()
            .any(|record| record.name == *needed && !passed(record))
    })
}

/// The outcome as a word and a remark.
fn told(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Passed(note) => ("ok", note.clone()),
        Outcome::Skipped(why) => ("skipped", why.clone()),
        Outcome::Failed(error) => ("FAILED", format!("{error:#}")),
        Outcome::NotRun { needs } => ("not run", format!("`{needs}` did not pass")),
    }
}

/// Prints the table and the closing line.
fn summarise(records: &[Record], took: Duration) -> Result<()> {
    println!("\n{:<12} {:<8} {:>8}  note", "step", "result", "seconds");
    let (mut passed, mut skipped, mut failed, mut not_run) = (0, 0, 0, 0);
    for record in records {
        match record.outcome {
            Outcome::Passed(_) => passed += 1,
            Outcome::Skipped(_) => skipped += 1,
            Outcome::Failed(_) => failed += 1,
            Outcome::NotRun { .. } => not_run += 1,
        }
        let (word, note) = told(&record.outcome);
        println!(
            "{:<12} {word:<8} {:>8.1}  {note}",
            record.name,
            record.took.as_secs_f64()
        );
    }
    let all = passed + skipped == records.len();
    println!(
        "\ntest result: {}. {passed} steps passed; {skipped} skipped; {failed} failed; {not_run} not run; finished in {:.1}s",
        if all { "ok" } else { "FAILED" },
        took.as_secs_f64()
    );
    if !all {
        bail!("{} of {} steps did not pass", failed + not_run, records.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD: Step = Step {
        name: "build",
        about: "",
        needs: &[],
        run: || bail!("no compiler"),
    };
    const LINT: Step = Step {
        name: "lint",
        about: "",
        needs: &[],
        run: || Ok(String::new()),
    };
    const TESTS: Step = Step {
        name: "tests",
        about: "",
        needs: &["build"],
        run: || Ok(String::new()),
    };

    #[test]
    fn a_failed_step_leaves_out_what_needs_it_and_fails_the_run() {
        let error = run(&[&BUILD, &LINT, &TESTS]).unwrap_err();
        assert_eq!(error.to_string(), "2 of 3 steps did not pass");
    }

    #[test]
    fn a_skipped_step_fails_nothing_but_what_needs_it() {
        let build = Step {
            run: || Err(Skipped("no compiler here".to_owned()).into()),
            ..BUILD
        };
        run(&[&build, &LINT]).unwrap();
        let error = run(&[&build, &TESTS]).unwrap_err();
        assert_eq!(error.to_string(), "1 of 2 steps did not pass");
    }

    #[test]
    fn a_step_that_needs_one_that_was_not_asked_for_runs() {
        run(&[&LINT, &TESTS]).unwrap();
    }
}
