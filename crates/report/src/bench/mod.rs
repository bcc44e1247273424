//! The page of a run of the benchmark: the figures, the grid, the planner's foresight.

mod figures;
mod foresight;
mod grid;

use pinlane_bench::document::Document;

use crate::{
    error::Result,
    number::significant,
    page::{Cell, Glance, Mood, Page, Section, Table},
};

/// The page of a document.
pub(crate) fn page(document: &Document) -> Result<Page> {
    let mut sections = vec![figures::section(document)?];
    sections.extend(grid::section(document)?);
    sections.extend(foresight::section(document)?);
    sections.extend(failures(document));
    let machine = &document.machine;
    let commit = document
        .commit
        .as_deref()
        .map_or(String::new(), |commit| format!(", commit {commit}"));
    let quick = if document.quick {
        " Quick: rough figures of less."
    } else {
        ""
    };
    Ok(Page {
        title: if document.simulated {
            "pinlane on a simulated device".to_owned()
        } else {
            format!("pinlane on {}", machine.device)
        },
        lead: format!(
            "Pinlane beside its peers and beside what the link can carry, measured {}.{quick}",
            document.date.replace('T', " ").replace('Z', " UTC")
        ),
        simulated: document.simulated,
        glance: glance(document),
        sections,
        machine: machine_table(document),
        method: vec![
            "The link's limit is what the copy engines reach with pinned memory and nothing else, timed by the device, in the \
             same run."
                .to_owned(),
            "In each cell of the grid all ways take turns, in an order drawn anew each round, so that noise hits all alike; a way's time is \
             the median of its runs, after one run that is not timed. What each way has moved is compared with its source, byte by \
             byte."
                .to_owned(),
            "Peers are torch's own calls, tensordict's and safetensors', and the plain way: torch's calls of the driver made in \
             pinlane's process. A figure holds where all of what is asked of it does."
                .to_owned(),
        ],
        footer: format!("pinlane {}{commit}", document.pinlane),
    })
}

fn glance(document: &Document) -> Vec<Glance> {
    let count = |holds: bool| {
        document
            .figures
            .iter()
            .filter(|figure| figure.holds == Some(holds))
            .count()
    };
    let number = |number: String, words: &str, mood| Glance {
        number,
        words: words.to_owned(),
        mood,
    };
    let link = &document.link;
    let mut glance = Vec::new();
    if !document.simulated {
        glance.push(number(
            count(true).to_string(),
            "figures reach what is asked",
            Mood::Good,
        ));
        glance.push(number(
            count(false).to_string(),
            "fall short of what is asked",
            Mood::Bad,
        ));
    }
    for (rate, words) in [
        (link.h2d, "GB/s: the link to the device"),
        (link.d2h, "GB/s: the link to the host"),
        (link.both, "GB/s: both ways at once"),
    ] {
        glance.push(number(significant(rate), words, Mood::Plain));
    }
    glance
}

/// What could not be measured.
fn failures(document: &Document) -> Option<Section> {
    let rows = document.failures.iter();
    let rows: Vec<_> = rows
        .map(|failure| vec![Cell::text(&failure.id), Cell::text(&failure.error)])
        .collect();
    (!rows.is_empty()).then(|| Section {
        id: "failures".to_owned(),
        title: "What could not be measured".to_owned(),
        lead: String::new(),
        verdict: None,
        pictures: Vec::new(),
        tables: vec![Table {
            caption: "Failures".to_owned(),
            columns: ["what", "why"].map(str::to_owned).to_vec(),
            rows,
        }],
        notes: Vec::new(),
    })
}

fn machine_table(document: &Document) -> Table {
    let machine = &document.machine;
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".to_owned());
    let rows = [
        ("device", machine.device.clone()),
        ("memory", pinlane::units::bytes(machine.device_memory)),
        ("copy engines", machine.copy_engines.to_string()),
        ("link", machine.link.clone()),
        ("driver", known(&machine.driver)),
        ("processor", known(&machine.processor)),
        ("cores", machine.cores.to_string()),
        ("kernel", known(&machine.kernel)),
        ("pinlane's profile of it", document.profile.clone()),
    ];
    Table {
        caption: "The machine".to_owned(),
        columns: ["what", "which"].map(str::to_owned).to_vec(),
        rows: rows
            .into_iter()
            .map(|(what, which)| vec![Cell::text(what), Cell::text(which)])
            .collect(),
    }
}
