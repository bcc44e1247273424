//! The page of a run of the guide: each claim, what was measured, and what it says of the claim.

mod data;
mod foresight;
mod pictures;

use std::collections::BTreeMap;

use pinlane::units;
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    number::significant,
    page::{Cell, Glance, Mood, Page, Section, Table, Verdict},
};
use data::{Document, Experiment, Figure};

/// The page of a document.
pub(crate) fn page(json: &Value) -> Result<Page> {
    let document = Document::deserialize(json).map_err(Error::Document)?;
    let mut sections = vec![claims(&document)];
    for experiment in &document.experiments {
        sections.push(section(experiment)?);
    }
    sections.extend(foresight::section(&document)?);
    let quick = if document.quick {
        "; quick: small sizes, rough figures"
    } else {
        ""
    };
    Ok(Page {
        title: if document.device.simulated {
            "The pinned-memory guide on a simulated device".to_owned()
        } else {
            format!("The pinned-memory guide on {}", document.device.name)
        },
        lead: format!(
            "Every claim of PyTorch's guide to pin_memory() and non_blocking, tried on this machine in the guide's own \
             ways and in pinlane's. Moved: {}{quick}.",
            document.workload
        ),
        simulated: document.device.simulated,
        glance: glance(&document),
        sections,
        machine: machine(&document),
        method: vec![
            "A way is run until a measurement is long enough for the clock, and measured until the figures agree. A bar is the \
             median measurement; the thin line on it reaches from the first to the third quartile. How many measurements there \
             were, and of how many runs, is in the table behind each picture."
                .to_owned(),
            "The guide's ways are torch's, made of the same calls of the driver: one copy for each tensor, one stream, torch's \
             kind of cache; pin_memory() copies with all cores what is longer than 128 KiB, as torch's does. Pinlane's ways are \
             its public interface. What every way has moved is compared with its source byte by byte, outside the time taken; a way that lands a wrong byte is marked."
                .to_owned(),
            "What ran when on the device is told by events around each copy and task; of pinlane's transfer, by its own trace, from \
             when the device began with the first of its copies to when it was done with the last. Memory is what the system says that the \
             process takes, looked at every half millisecond; the memory of a simulated device, which is the process's own, is \
             subtracted."
                .to_owned(),
        ],
        footer: format!("pinlane {}", document.pinlane),
    })
}

fn mood(verdict: Option<&str>) -> Mood {
    match verdict {
        Some("holds") => Mood::Good,
        Some("depends") => Mood::Mixed,
        _ => Mood::Bad,
    }
}

fn word(experiment: &Experiment) -> String {
    experiment.verdict.clone().unwrap_or_else(|| "failed".to_owned())
}

fn glance(document: &Document) -> Vec<Glance> {
    let count = |word: &str| {
        let verdicts = document
            .experiments
            .iter()
            .map(|experiment| experiment.verdict.as_deref());
        verdicts
            .filter(|verdict| verdict.unwrap_or("failed") == word)
            .count()
    };
    let verdicts = [
        ("holds", "claims hold here", Mood::Good),
        ("does not hold", "do not hold here", Mood::Bad),
        ("depends", "depend, or are within the noise", Mood::Mixed),
        ("failed", "could not be tried", Mood::Bad),
    ];
    let mut glance: Vec<Glance> = verdicts
        .into_iter()
        .filter(|(word, ..)| *word != "failed" || count(word) > 0)
        .map(|(word, words, mood)| Glance {
            number: count(word).to_string(),
            words: words.to_owned(),
            mood,
        })
        .collect();
    if let Some((gain, group)) = largest_gain(document) {
        glance.push(Glance {
            number: format!("{}\u{d7}", significant(gain)),
            words: format!("the largest gain, best time against the best of the guide's ways: {group}"),
            mood: Mood::Plain,
        });
    }
    glance
}

/// Of the works that both sides have timed, where pinlane is ahead the most of the fastest of the guide's ways in all experiments
/// with that work.
fn largest_gain(document: &Document) -> Option<(f64, &str)> {
    // The fastest of the guide's and of pinlane's, by the work.
    let mut fastest: BTreeMap<&str, [Option<f64>; 2]> = BTreeMap::new();
    for experiment in &document.experiments {
        // Pinning is no work that both sides do.
        for way in experiment.ways.iter().filter(|_| experiment.id != "pinned-cost") {
            let owner = match way.owner.as_str() {
                // What moves nothing to the device is a part of the work.
                "guide" if !way.way.ends_with(" alone") => 0,
                "pinlane" => 1,
                _ => continue,
            };
            if let Figure::Time { median_seconds, .. } = way.figure {
                let time = &mut fastest.entry(&way.group).or_default()[owner];
                *time = Some(time.map_or(median_seconds, |time| time.min(median_seconds)));
            }
        }
    }
    let gains = fastest
        .into_iter()
        .filter_map(|(group, [guide, pinlane])| Some((guide? / pinlane?, group)));
    gains.max_by(|one, other| one.0.total_cmp(&other.0))
}

/// Every claim and what this machine says of it.
fn claims(document: &Document) -> Section {
    let rows = document.experiments.iter().map(|experiment| {
        let sign = mood(experiment.verdict.as_deref()).sign();
        vec![
            Cell::text(&experiment.id),
            Cell::text(&experiment.claim),
            Cell::text(format!("{sign} {}", word(experiment))),
            Cell::text(&experiment.reason),
        ]
    });
    Section {
        id: "claims".to_owned(),
        title: "The claims".to_owned(),
        lead: "What the guide says, and what was found here.".to_owned(),
        verdict: None,
        pictures: Vec::new(),
        tables: vec![Table {
            caption: "Claims and verdicts".to_owned(),
            columns: ["experiment", "claim", "verdict", "because"]
                .map(str::to_owned)
                .to_vec(),
            rows: rows.collect(),
        }],
        notes: Vec::new(),
    }
}

fn section(experiment: &Experiment) -> Result<Section> {
    let mut notes = experiment.notes.clone();
    notes.push(format!("Took {}.", units::time(experiment.seconds)));
    Ok(Section {
        id: experiment.id.clone(),
        title: experiment.claim.clone(),
        lead: experiment.shows.clone(),
        verdict: Some(Verdict {
            mood: mood(experiment.verdict.as_deref()),
            word: word(experiment),
            reason: experiment.reason.clone(),
        }),
        pictures: pictures::of(experiment)?,
        tables: experiment.tables.iter().map(operations).collect(),
        notes,
    })
}

/// A table of operations, as the guide's profiler prints it.
fn operations(table: &data::Operations) -> Table {
    let whole: f64 = table
        .operations
        .iter()
        .map(|operation| operation.self_seconds)
        .sum();
    let share = |seconds: f64| {
        Cell::text(format!(
            "{:.1}%",
            if whole > 0.0 { 100.0 * seconds / whole } else { 0.0 }
        ))
    };
    let time = |seconds: f64| Cell::number(seconds, units::time(seconds));
    let rows = table.operations.iter().map(|operation| {
        vec![
            Cell::text(&operation.name),
            share(operation.self_seconds),
            time(operation.self_seconds),
            share(operation.total_seconds),
            time(operation.total_seconds),
            time(operation.total_seconds / operation.calls.max(1) as f64),
            Cell::number(operation.calls as f64, operation.calls.to_string()),
        ]
    });
    Table {
        caption: format!("Operations of {}", table.title),
        columns: [
            "operation",
            "self %",
            "self",
            "total %",
            "total",
            "average",
            "calls",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.collect(),
    }
}

fn machine(document: &Document) -> Table {
    let device = &document.device;
    let mut rows = vec![
        ("device", format!("{} ({})", device.name, device.id)),
        ("memory", units::bytes(device.memory_bytes)),
        ("copy engines", device.copy_engines.to_string()),
        ("link", device.link.clone()),
    ];
    if let Some(rate) = device.link_bytes_per_second {
        rows.push(("link's rate", units::rate(rate as u64, 1.0)));
    }
    if let Some(node) = device.numa_node {
        rows.push(("NUMA node", node.to_string()));
    }
    if let Some(host) = &document.host {
        let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".to_owned());
        rows.extend([
            ("driver", known(&host.driver)),
            ("processor", known(&host.processor)),
            ("cores", host.cores.to_string()),
            ("kernel", known(&host.kernel)),
        ]);
    }
    Table {
        caption: "The machine".to_owned(),
        columns: ["what", "which"].map(str::to_owned).to_vec(),
        rows: rows
            .into_iter()
            .map(|(what, which)| vec![Cell::text(what), Cell::text(which)])
            .collect(),
    }
}
