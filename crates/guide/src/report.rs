//! The report for people, as text for a terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use pinlane_driver::Properties;

use crate::{
    outcome::{Figure, Landed, Outcome, Owner, Row},
    run::{ExperimentReport, Guide, Report},
    timeline::Timeline,
    units,
};

/// How wide the report's tables may grow, in characters.
const WIDTH: u16 = 118;

pub use pinlane::SIMULATED;

/// What is about to run, on what.
#[must_use]
pub fn heading(guide: &Guide) -> String {
    let mut text = format!(
        "pinlane {}: the guide to pinned memory and non-blocking copies, {} of it\n{}\nmoving: {}\n",
        env!("CARGO_PKG_VERSION"),
        match guide.experiments.len() {
            1 => "one experiment".to_owned(),
            count => format!("{count} experiments"),
        },
        device_line(guide.accelerator.driver.properties()),
        guide.workload,
    );
    if guide.quick {
        text.push_str("quick: small sizes, rough figures\n");
    }
    text
}

fn device_line(device: &Properties) -> String {
    let mut line = format!(
        "device: {} ({}), {} memory, {} copy engine{}, link: {}",
        device.id,
        device.name,
        units::bytes(device.memory_bytes),
        device.copy_engines,
        if device.copy_engines == 1 { "" } else { "s" },
        device.link.name,
    );
    if let Some(rate) = device.link.bytes_per_second {
        let _infallible = write!(line, " at {}", units::rate(rate as u64, 1.0));
    }
    if device.simulated {
        let _infallible = write!(line, "\n[{SIMULATED}]");
    }
    line
}

/// One experiment's claim, figures and verdict.
#[must_use]
pub fn experiment(report: &ExperimentReport, device: &Properties) -> String {
    let mut parts = vec![format!(
        "{:=<width$}\nclaim: {}\nhere:  {}",
        format!("== {} ", report.experiment.id),
        report.experiment.claim,
        report.experiment.shows,
        width = usize::from(WIDTH),
    )];
    match &report.result {
        Ok(outcome) => parts.extend(outcome_parts(outcome)),
        Err(error) => parts.push(format!("FAILED: {error}")),
    }
    if device.simulated {
        parts.push(format!("[{SIMULATED}]"));
    }
    parts.push(String::new());
    parts.join("\n")
}

fn outcome_parts(outcome: &Outcome) -> Vec<String> {
    let mut parts = Vec::new();
    for group in outcome.rows.chunk_by(|a, b| a.group == b.group) {
        parts.push(rows(group));
    }
    for table in &outcome.tables {
        parts.push(format!("{}\n{}", table.title, table.table));
    }
    parts.extend(outcome.timelines.iter().map(Timeline::draw));
    parts.extend(outcome.notes.iter().map(|note| format!("note: {note}")));
    parts.push(format!(
        "{}: {}",
        outcome.judgement.verdict, outcome.judgement.reason
    ));
    parts
}

/// The rows of one group; the speed is against the first.
fn rows(group: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([group[0].group.as_str(), "by", "result", "speed", "bytes"]);
    let first = &group[0].figure;
    for row in group {
        table.add_row([
            row.way.clone(),
            match row.owner {
                Owner::Guide => "guide".to_owned(),
                Owner::Pinlane => "pinlane".to_owned(),
            },
            row.figure.to_string(),
            against(first, &row.figure),
            match row.landed {
                Landed::Right => "verified".to_owned(),
                Landed::Wrong => "WRONG".to_owned(),
                Landed::Counted => "counted".to_owned(),
                Landed::Nothing => "-".to_owned(),
            },
        ]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn against(first: &Figure, this: &Figure) -> String {
    match (first, this) {
        (Figure::Time(first), Figure::Time(this)) => {
            format!("{:.2}x", first.median_seconds / this.median_seconds)
        }
        _ => String::new(),
    }
}

/// Every claim and what this machine says of it.
#[must_use]
pub fn claims(report: &Report) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(["claim", "", "verdict", "because"]);
    for experiment in &report.experiments {
        let (verdict, reason) = match &experiment.result {
            Ok(outcome) => (
                outcome.judgement.verdict.to_string(),
                outcome.judgement.reason.clone(),
            ),
            Err(error) => ("FAILED".to_owned(), error.to_string()),
        };
        table.add_row([
            experiment.experiment.id,
            experiment.experiment.claim,
            &verdict,
            &reason,
        ]);
    }
    let took: f64 = report
        .experiments
        .iter()
        .map(|experiment| experiment.took.as_secs_f64())
        .sum();
    format!(
        "{:=<width$}\n{}\n{table}\ntook {}\n",
        "== the claims on this machine ",
        device_line(&report.device),
        units::time(took),
        width = usize::from(WIDTH),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{
        experiments, simulated,
        timer::Measurement,
        verdict::{Judgement, Verdict},
    };

    use super::*;

    fn row(way: &str, seconds: f64, right: bool) -> Row {
        Row {
            group: "1 Mi floats".into(),
            way: way.into(),
            owner: Owner::Guide,
            figure: Figure::Time(Measurement::of_samples(vec![seconds], 1)),
            landed: Landed::of_check(right),
            predicted_seconds: None,
        }
    }

    fn report(rows: Vec<Row>) -> ExperimentReport {
        ExperimentReport {
            experiment: experiments::ALL[0],
            result: Ok(Outcome::new(rows, Judgement::new(Verdict::Holds, "2.00x"))),
            took: Duration::from_secs(1),
        }
    }

    #[test]
    fn figures_of_a_simulated_device_always_say_so() {
        let device = simulated::driver(0).unwrap().properties().clone();
        let experiments = vec![report(vec![row("to(device)", 2.0, true)])];
        assert!(experiment(&experiments[0], &device).contains(SIMULATED));
        let report = Report {
            device,
            quick: false,
            workload: String::new(),
            experiments,
        };
        assert!(claims(&report).contains(SIMULATED));
    }

    #[test]
    fn wrong_bytes_and_speeds_are_shown() {
        let device = simulated::driver(0).unwrap().properties().clone();
        let report = report(vec![row("first", 2.0, true), row("second", 0.5, false)]);
        let text = experiment(&report, &device);
        for expected in [
            "1.00x",
            "4.00x",
            "verified",
            "WRONG",
            "Median: 2.00 s",
            "holds: 2.00x",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        assert!(!report.is_sound());
    }
}
