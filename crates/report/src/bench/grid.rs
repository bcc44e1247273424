//! The grid: rate over size for each route, the plain way and pinlane's own choice, with the link's limit.

use std::collections::BTreeMap;

use pinlane::units;
use pinlane_bench::{
    cell::{Direction, Memory},
    document::Document,
    grid::CellReport,
    ways::{PINLANE, PLAIN},
};

use crate::{
    chart::curves::{self, Curve},
    error::Result,
    number::significant,
    page::{Cell, Picture, Section, Table},
};

/// From so many sizes on, a line says something.
const SIZES: usize = 3;

/// The cells that differ in nothing but the size of a tensor.
type Family<'a> = ((Direction, Memory, usize), Vec<&'a CellReport>);

pub(super) fn section(document: &Document) -> Result<Option<Section>> {
    let mut families: BTreeMap<(Direction, Memory, usize), Vec<&CellReport>> = BTreeMap::new();
    for report in &document.cells {
        let cell = report.cell;
        families
            .entry((cell.direction, cell.memory, cell.count))
            .or_default()
            .push(report);
    }
    let mut pictures = Vec::new();
    for mut family in families.into_iter().filter(|(_, cells)| cells.len() >= SIZES) {
        family.1.sort_by_key(|report| report.cell.bytes);
        pictures.extend(picture(document, &family)?);
    }
    if pictures.is_empty() {
        return Ok(None);
    }
    let mut notes = Vec::new();
    if document.cells_left > 0 {
        notes.push(format!(
            "{} not measured: the time of the grid was up.",
            units::counted(document.cells_left as u64, "cell was", "cells were")
        ));
    }
    Ok(Some(Section {
        id: "grid".to_owned(),
        title: "Every route, by size".to_owned(),
        lead: "Bytes per second over the size of one tensor, for each route that can carry it, the plain way, and what pinlane \
               chooses by itself. Both axes count by factors."
            .to_owned(),
        verdict: None,
        pictures,
        tables: Vec::new(),
        notes,
    }))
}

fn way_name(way: &str) -> &str {
    way.strip_prefix("route-").unwrap_or(way)
}

fn picture(document: &Document, family: &Family<'_>) -> Result<Option<Picture>> {
    let ((direction, memory, count), cells) = family;
    let mut ways: Vec<&str> = Vec::new();
    for timing in cells.iter().flat_map(|cell| &cell.ways) {
        if !ways.contains(&timing.way.as_str()) {
            ways.push(&timing.way);
        }
    }
    // Pinlane's own choice lies on top.
    ways.sort_by_key(|way| (*way == PINLANE, *way == PLAIN));
    let rate = |cell: &CellReport, seconds: f64| cell.cell.total() as f64 / seconds / 1e9;
    let drawn: Vec<Curve> = ways
        .iter()
        .map(|way| Curve {
            name: match *way {
                PLAIN => "plain way".to_owned(),
                // A route of the same name is pinlane's; the plain way is torch's.
                "route-plain" => "route plain".to_owned(),
                way => way_name(way).to_owned(),
            },
            class: match *way {
                PLAIN => "peer".to_owned(),
                way => way_name(way).to_owned(),
            },
            points: cells
                .iter()
                .filter_map(|cell| Some((cell.cell.bytes as f64, rate(cell, cell.way(way)?.seconds))))
                .collect(),
        })
        .collect();
    let way_of = match direction {
        Direction::H2d => "to the device",
        Direction::D2h => "to the host",
    };
    let tensors = if *count == 1 {
        "one tensor".to_owned()
    } else {
        format!("{count} tensors")
    };
    let title = format!("{tensors} {way_of}, {memory}");
    let limit = match direction {
        Direction::H2d => document.link.h2d,
        Direction::D2h => document.link.d2h,
    };
    let best = cells
        .iter()
        .filter_map(|cell| Some(rate(cell, cell.pinlane()?)))
        .fold(0.0, f64::max);
    let words = format!(
        "Rate over size, {title}, for {} ways. Pinlane's own choice reaches {} GB/s at most; the link carries {} GB/s.",
        ways.len(),
        significant(best),
        significant(limit)
    );
    let Some(svg) = curves::draw(&words, &drawn, Some(limit))? else {
        return Ok(None);
    };
    let rows = cells.iter().map(|cell| {
        let mut row = vec![
            Cell::text(&cell.id),
            Cell::number(
                cell.cell.bytes as f64,
                pinlane::units::bytes(cell.cell.bytes as u64),
            ),
            Cell::text(&cell.route),
        ];
        row.extend(
            ways.iter()
                .rev()
                .map(|way| Cell::maybe(cell.way(way).map(|timing| timing.seconds), pinlane::units::time)),
        );
        row
    });
    let names = ways.iter().rev().map(|way| match *way {
        PLAIN => "plain way".to_owned(),
        way => way.replace("route-", "route "),
    });
    Ok(Some(Picture {
        id: format!("picture-{direction}-{memory}-{count}"),
        title,
        svg,
        kind: "curves",
        legend: Vec::new(),
        table: Table {
            caption: format!("Times of {direction}, {memory}, {count} of each size"),
            columns: ["cell", "size", "pinlane chose"]
                .map(str::to_owned)
                .into_iter()
                .chain(names)
                .collect(),
            rows: rows.collect(),
        },
    }))
}
