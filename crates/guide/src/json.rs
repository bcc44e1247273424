//! The report for programs: one JSON document whose field names stay.

use serde::Serialize;

use crate::{
    outcome::{Row, TitledTable},
    run::{ExperimentReport, Report},
    verdict::Verdict,
};

/// The whole document.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    pinlane: &'static str,
    device: Device<'a>,
    quick: bool,
    workload: &'a str,
    experiments: Vec<Experiment<'a>>,
    claims: Vec<Claim<'a>>,
}

#[derive(Debug, Serialize)]
struct Device<'a> {
    id: String,
    name: &'a str,
    simulated: bool,
    memory_bytes: u64,
    copy_engines: u32,
    link: &'a str,
    link_bytes_per_second: Option<f64>,
    numa_node: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Experiment<'a> {
    id: &'a str,
    claim: &'a str,
    shows: &'a str,
    seconds: f64,
    ways: &'a [Row],
    tables: &'a [TitledTable],
    pictures: &'a [String],
    notes: &'a [String],
    verdict: Option<Verdict>,
    reason: String,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Claim<'a> {
    id: &'a str,
    claim: &'a str,
    verdict: Option<Verdict>,
    reason: String,
}

impl<'a> Document<'a> {
    /// The document of a report.
    #[must_use]
    pub fn of(report: &'a Report) -> Self {
        let experiments: Vec<_> = report.experiments.iter().map(Experiment::of).collect();
        let claims = experiments
            .iter()
            .map(|experiment| Claim {
                id: experiment.id,
                claim: experiment.claim,
                verdict: experiment.verdict,
                reason: experiment.reason.clone(),
            })
            .collect();
        Self {
            pinlane: env!("CARGO_PKG_VERSION"),
            device: Device {
                id: report.device.id.to_string(),
                name: &report.device.name,
                simulated: report.device.simulated,
                memory_bytes: report.device.memory_bytes,
                copy_engines: report.device.copy_engines,
                link: &report.device.link.name,
                link_bytes_per_second: report.device.link.bytes_per_second,
                numa_node: report.device.numa_node,
            },
            quick: report.quick,
            workload: &report.workload,
            experiments,
            claims,
        }
    }
}

impl<'a> Experiment<'a> {
    fn of(report: &'a ExperimentReport) -> Self {
        let outcome = report.result.as_ref().ok();
        let error = report.result.as_ref().err().map(ToString::to_string);
        let judgement = outcome.map(|outcome| &outcome.judgement);
        Self {
            id: report.experiment.id,
            claim: report.experiment.claim,
            shows: report.experiment.shows,
            seconds: report.took.as_secs_f64(),
            ways: outcome.map_or(&[], |outcome| &outcome.rows),
            tables: outcome.map_or(&[], |outcome| &outcome.tables),
            pictures: outcome.map_or(&[], |outcome| &outcome.pictures),
            notes: outcome.map_or(&[], |outcome| &outcome.notes),
            verdict: judgement.map(|judgement| judgement.verdict),
            reason: match (judgement, &error) {
                (Some(judgement), _) => judgement.reason.clone(),
                (None, Some(error)) => error.clone(),
                (None, None) => String::new(),
            },
            error,
        }
    }
}
