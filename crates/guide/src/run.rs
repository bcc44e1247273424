//! Running the guide: the experiments in order, each with a fresh start, whatever became of the one before.

use std::time::{Duration, Instant};

use pinlane_driver::Properties;

use crate::{
    context::Context,
    device::Accelerator,
    error::{Error, Result},
    experiment::Experiment,
    outcome::Outcome,
    workload::Workload,
};

/// Told how the run goes along.
pub trait Observer {
    /// An experiment begins, `done` of them are behind.
    fn started(&self, experiment: &'static Experiment, done: usize);
    /// The experiment that runs begins with another way.
    fn way(&self, way: &str);
    /// An experiment is over.
    fn finished(&self, report: &ExperimentReport);
}

/// What to run, on what. Everything in it has been checked: running can fail only in the experiments themselves.
#[derive(Debug)]
pub struct Guide {
    /// The experiments, in the order in which they run.
    pub experiments: Vec<&'static Experiment>,
    /// The device to move to and from.
    pub accelerator: Accelerator,
    /// The tensors to move.
    pub workload: Workload,
    /// Whether to be content with rough figures.
    pub quick: bool,
}

/// What became of one experiment.
#[derive(Debug)]
pub struct ExperimentReport {
    /// Which one.
    pub experiment: &'static Experiment,
    /// What it found, or why it could not.
    pub result: Result<Outcome, Error>,
    /// How long it took.
    pub took: Duration,
}

impl ExperimentReport {
    /// Whether it ran, and no way landed wrong bytes against its promise.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.result.as_ref().is_ok_and(Outcome::is_sound)
    }
}

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// The device it ran on.
    pub device: Properties,
    /// Whether it was content with rough figures.
    pub quick: bool,
    /// What was moved, for people.
    pub workload: String,
    /// The experiments, in the order in which they ran.
    pub experiments: Vec<ExperimentReport>,
}

impl Report {
    /// Whether every experiment ran, and no way landed wrong bytes against its promise.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.experiments.iter().all(ExperimentReport::is_sound)
    }
}

impl Guide {
    /// Runs the experiments and tells `observer` of each step. An experiment that fails does not stop the next.
    #[must_use]
    pub fn run(&self, observer: &dyn Observer) -> Report {
        let experiments = self
            .experiments
            .iter()
            .enumerate()
            .map(|(done, &experiment)| {
                observer.started(experiment, done);
                let began = Instant::now();
                let result = Context::new(self, observer).and_then(|context| (experiment.run)(&context));
                let report = ExperimentReport {
                    experiment,
                    result,
                    took: began.elapsed(),
                };
                observer.finished(&report);
                report
            })
            .collect();
        Report {
            device: self.accelerator.driver.properties().clone(),
            quick: self.quick,
            workload: self.workload.to_string(),
            experiments,
        }
    }
}
