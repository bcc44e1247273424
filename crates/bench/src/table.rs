//! The outcome for people, as tables for a terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use pinlane_guide::{report::SIMULATED, units};

use crate::{
    cell::{Direction, Memory},
    compare::{Change, Comparison},
    document::Document,
    figures::Figure,
    grid::{CellReport, NOISE},
};

/// How wide a table may grow, in characters.
const WIDTH: u16 = 118;
/// How many of the worst cells are listed.
const WORST: usize = 12;

/// Everything that a run found.
#[must_use]
pub fn document(document: &Document) -> String {
    let mut parts = vec![heading(document)];
    parts.extend(matrices(&document.cells));
    parts.extend(worst(
        &document.cells,
        "slower than the plain way",
        CellReport::against_plain,
    ));
    parts.extend(worst(
        &document.cells,
        "slower than the best route",
        CellReport::regret,
    ));
    if document.cells_left > 0 {
        parts.push(format!(
            "{} not begun: the grid's time was up",
            units::counted(document.cells_left as u64, "cell was", "cells were")
        ));
    }
    if !document.figures.is_empty() {
        parts.push(figures(&document.figures, document.simulated));
    }
    for failure in &document.failures {
        parts.push(format!("FAILED {}: {}", failure.id, failure.error));
    }
    if document.simulated {
        parts.push(format!("[{SIMULATED}]"));
    }
    parts.join("\n\n")
}

fn heading(document: &Document) -> String {
    let machine = &document.machine;
    let mut text = format!(
        "pinlane {} bench, {}\ndevice: {}, link: {}\nhost: {}, {} cores",
        document.pinlane,
        document.date,
        machine.device,
        machine.link,
        machine.processor.as_deref().unwrap_or("unknown processor"),
        machine.cores,
    );
    let profile = Some(document.profile.clone());
    let known = [
        ("profile", &profile),
        ("kernel", &machine.kernel),
        ("driver", &machine.driver),
        ("commit", &document.commit),
    ];
    for (what, value) in known {
        if let Some(value) = value {
            let _infallible = write!(text, ", {what} {value}");
        }
    }
    let link = &document.link;
    let _infallible = write!(
        text,
        "\nthe link's limit, pinned copies of {}: {:.1} GB/s to the device, {:.1} GB/s to the host, {:.1} GB/s both at once",
        units::bytes(link.copy_bytes as u64),
        link.h2d,
        link.d2h,
        link.both
    );
    if document.quick {
        text.push_str("\nquick: fewer cells, rough figures");
    }
    text
}

/// For each direction and kind of memory, sizes by counts: pinlane's rate or time, and its ratio to the plain way's time.
fn matrices(cells: &[CellReport]) -> Vec<String> {
    let mut parts = Vec::new();
    for direction in Direction::ALL {
        for memory in Memory::ALL {
            let part: Vec<&CellReport> = cells
                .iter()
                .filter(|cell| cell.cell.direction == direction && cell.cell.memory == memory)
                .collect();
            if !part.is_empty() {
                parts.push(format!(
                    "{direction} {memory}: pinlane, and its time as a multiple of the plain way's\n{}",
                    matrix(&part)
                ));
            }
        }
    }
    parts
}

fn matrix(cells: &[&CellReport]) -> String {
    let sorted = |value: fn(&CellReport) -> usize| {
        let mut values: Vec<usize> = cells.iter().map(|cell| value(cell)).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let (sizes, counts) = (sorted(|cell| cell.cell.bytes), sorted(|cell| cell.cell.count));
    let mut table = table();
    let header = counts.iter().map(|count| format!("x {count}"));
    table.set_header(["size".to_owned()].into_iter().chain(header));
    for bytes in sizes {
        let entries = counts.iter().map(|&count| {
            let cell = cells
                .iter()
                .find(|cell| cell.cell.bytes == bytes && cell.cell.count == count);
            cell.map_or_else(String::new, |cell| entry(cell))
        });
        table.add_row([units::bytes(bytes as u64)].into_iter().chain(entries));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The rate where there is one to speak of, else the time; and its ratio to the plain way's.
fn entry(cell: &CellReport) -> String {
    let Some(seconds) = cell.pinlane() else {
        return String::new();
    };
    let gigabytes = cell.cell.total() as f64 / seconds / 1e9;
    let mut entry = if gigabytes < 1.0 {
        units::time(seconds)
    } else {
        format!("{gigabytes:.1} GB/s")
    };
    if let Some(ratio) = cell.against_plain() {
        let _infallible = write!(entry, " {ratio:.2}x");
    }
    entry
}

/// The worst cells by a ratio that should not be above 1.
fn worst(cells: &[CellReport], what: &str, ratio: fn(&CellReport) -> Option<f64>) -> Option<String> {
    let mut bad: Vec<(f64, &CellReport)> = cells
        .iter()
        .filter_map(|cell| Some((ratio(cell)?, cell)))
        .filter(|(ratio, _)| *ratio > NOISE)
        .collect();
    if bad.is_empty() {
        return None;
    }
    bad.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut table = table();
    table.set_header(["cell", "ratio", "route", "ways"]);
    for (ratio, cell) in bad.iter().take(WORST) {
        let ways = cell
            .ways
            .iter()
            .map(|way| format!("{} {}", way.way, units::time(way.seconds)));
        table.add_row([
            cell.id.clone(),
            format!("{ratio:.2}x"),
            cell.route.clone(),
            ways.collect::<Vec<_>>().join(", "),
        ]);
    }
    Some(format!(
        "{} of {} cells are {what}; the worst:\n{table}",
        bad.len(),
        cells.len()
    ))
}

fn figures(figures: &[Figure], simulated: bool) -> String {
    let mut table = table();
    let header = ["figure", "value", "limit", "peers", "asked", "holds"];
    let columns = if simulated { 4 } else { header.len() };
    table.set_header(&header[..columns]);
    for figure in figures {
        let peers = figure
            .peers
            .iter()
            .map(|(name, value)| format!("{name} {}", number(*value)));
        let row = [
            figure.id.clone(),
            format!("{} {}", number(figure.value), figure.unit),
            figure.limit.map_or_else(String::new, number),
            peers.collect::<Vec<_>>().join(", "),
            figure.asked.clone(),
            match figure.holds {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            }
            .to_owned(),
        ];
        table.add_row(&row[..columns]);
    }
    let heading = if simulated {
        "figures, not judged: their goals are asked of hardware, and this device is simulated".to_owned()
    } else {
        let hold = figures.iter().filter(|figure| figure.holds == Some(true));
        format!("{} of {} figures hold", hold.count(), figures.len())
    };
    let mut text = format!("{heading}\n{table}");
    for figure in figures.iter().filter(|figure| !figure.detail.is_empty()) {
        let _infallible = write!(text, "\n{}: {}", figure.id, figure.detail);
    }
    text
}

fn number(value: f64) -> String {
    let digits = if value.abs() < 10.0 { 3 } else { 1 };
    format!("{value:.digits$}")
}

/// What two results say of each other.
#[must_use]
pub fn comparison(comparison: &Comparison) -> String {
    let (slower, faster) = (comparison.slower(), comparison.faster());
    let mut parts = vec![format!(
        "{} cells and figures of both results, {} of one only; tolerance {:.2}: {} slower, {} faster, {} the same",
        comparison.changes.len(),
        comparison.alone,
        comparison.tolerance,
        slower.len(),
        faster.len(),
        comparison.changes.len() - slower.len() - faster.len(),
    )];
    let figures: Vec<&Change> = comparison
        .changes
        .iter()
        .filter(|change| change.is_figure)
        .collect();
    for (title, changes) in [("figures", figures), ("slower", slower), ("faster", faster)] {
        if !changes.is_empty() {
            parts.push(format!("{title}\n{}", change_table(&changes)));
        }
    }
    if comparison.simulated {
        parts.push(format!("[{SIMULATED}: what got slower here has not failed]"));
    }
    parts.join("\n\n")
}

fn change_table(changes: &[&Change]) -> String {
    let mut table = table();
    table.set_header(["", "before", "after", "ratio"]);
    for change in changes {
        table.add_row([
            change.id.clone(),
            change.before.clone(),
            change.after.clone(),
            format!("{:.2}x", change.ratio),
        ]);
    }
    table.to_string()
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    table
}
