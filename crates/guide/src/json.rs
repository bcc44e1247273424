//! The report for programs: one JSON document whose field names stay.

use serde::Serialize;

use crate::{
    host::Host,
    outcome::{Figure, Landed, MemoryCurve, Owner, Row, TitledTable},
    run::{ExperimentReport, Report},
    timeline::Timeline,
    verdict::Verdict,
};

/// The whole document.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    pinlane: &'static str,
    device: Device<'a>,
    host: Host,
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
    ways: Vec<Way<'a>>,
    tables: &'a [TitledTable],
    pictures: Vec<String>,
    timelines: &'a [Timeline],
    memory_curves: &'a [MemoryCurve],
    notes: &'a [String],
    verdict: Option<Verdict>,
    reason: String,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Way<'a> {
    group: &'a str,
    way: &'a str,
    owner: Owner,
    #[serde(flatten)]
    figure: &'a Figure,
    landed: Landed,
    verified: Option<bool>,
    predicted_seconds: Option<f64>,
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
            host: Host::this(report.device.simulated),
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
        let timelines: &[Timeline] = outcome.map_or(&[], |outcome| &outcome.timelines);
        Self {
            id: report.experiment.id,
            claim: report.experiment.claim,
            shows: report.experiment.shows,
            seconds: report.took.as_secs_f64(),
            ways: outcome.map_or(Vec::new(), |outcome| outcome.rows.iter().map(Way::of).collect()),
            tables: outcome.map_or(&[], |outcome| &outcome.tables),
            pictures: timelines.iter().map(Timeline::draw).collect(),
            timelines,
            memory_curves: outcome.map_or(&[], |outcome| &outcome.memory_curves),
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

impl<'a> Way<'a> {
    fn of(row: &'a Row) -> Self {
        Self {
            group: &row.group,
            way: &row.way,
            owner: row.owner,
            figure: &row.figure,
            landed: row.landed,
            verified: row.landed.verified(),
            predicted_seconds: row.predicted_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pinlane::trace::{Operation, OperationTable};

    use crate::{
        error::Error, experiments, outcome::Outcome, simulated, timer::Measurement, verdict::Judgement,
    };

    use super::*;

    fn report() -> Report {
        let row = |figure, landed| Row {
            group: "100k floats".into(),
            way: "to(device)".into(),
            owner: Owner::Guide,
            figure,
            landed,
            predicted_seconds: None,
        };
        let rows = vec![
            Row {
                predicted_seconds: Some(0.75),
                ..row(
                    Figure::Time(Measurement::of_samples(vec![0.5, 1.0, 1.5], 10)),
                    Landed::Right,
                )
            },
            row(
                Figure::Count {
                    count: 3,
                    of: 100,
                    counted: "reads gave garbage",
                },
                Landed::Counted,
            ),
        ];
        let operations = vec![Operation {
            name: "copy".into(),
            self_seconds: 0.25,
            total_seconds: 0.5,
            calls: 2,
        }];
        let outcome = Outcome::new(rows, Judgement::new(Verdict::DoesNotHold, "0.50x"))
            .with_table("both", OperationTable { operations });
        let report = |place: usize, result| ExperimentReport {
            experiment: experiments::ALL[place],
            result,
            took: Duration::from_secs(2),
        };
        Report {
            device: simulated::driver(1).unwrap().properties().clone(),
            quick: true,
            workload: "made up".into(),
            experiments: vec![
                report(0, Ok(outcome)),
                report(1, Err(Error::ThreadPanicked("pinning"))),
            ],
        }
    }

    #[test]
    fn the_document_has_the_shape_that_readers_rely_on() {
        let report = report();
        let json = serde_json::to_value(Document::of(&report)).unwrap();
        assert_eq!(json["pinlane"], env!("CARGO_PKG_VERSION"));
        assert_eq!(json["device"]["id"], "sim:1");
        assert_eq!(json["device"]["simulated"], true);
        assert_eq!(json["quick"], true);
        let experiment = &json["experiments"][0];
        assert_eq!(experiment["id"], "pinned-faster");
        assert_eq!(experiment["verdict"], "does not hold");
        assert_eq!(experiment["ways"][0]["owner"], "guide");
        assert_eq!(experiment["ways"][0]["median_seconds"], 1.0);
        assert_eq!(experiment["ways"][0]["iqr_seconds"], 0.5);
        assert_eq!(experiment["ways"][0]["runs_per_measurement"], 10);
        assert_eq!(experiment["ways"][0]["landed"], "right");
        assert_eq!(experiment["ways"][0]["verified"], true);
        assert_eq!(experiment["ways"][0]["predicted_seconds"], 0.75);
        assert_eq!(experiment["ways"][1]["count"], 3);
        assert_eq!(experiment["ways"][1]["of"], 100);
        assert_eq!(experiment["ways"][1]["landed"], "counted");
        assert!(experiment["ways"][1]["verified"].is_null());
        assert!(experiment["ways"][1]["predicted_seconds"].is_null());
        assert_eq!(experiment["tables"][0]["title"], "both");
        assert_eq!(experiment["tables"][0]["operations"][0]["calls"], 2);
        assert_eq!(json["claims"][0]["id"], "pinned-faster");
        assert_eq!(json["claims"][0]["verdict"], "does not hold");
        assert_eq!(json["claims"][0]["reason"], "0.50x");
    }

    #[test]
    fn an_experiment_that_failed_says_why_and_judges_nothing() {
        let report = report();
        let json = serde_json::to_value(Document::of(&report)).unwrap();
        assert!(
            json["experiments"][1]["error"]
                .as_str()
                .unwrap()
                .contains("pinning")
        );
        assert!(json["claims"][1]["verdict"].is_null());
        assert!(!report.is_sound());
    }
}
