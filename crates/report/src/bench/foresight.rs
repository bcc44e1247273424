//! The planner's foresight: what it predicted beside what was measured, cell by cell.

use pinlane::units;
use pinlane_bench::{cell::Direction, document::Document};

use crate::{
    chart::scatter::{self, Point},
    error::Result,
    page::{Cell, Key, Picture, Section, Table},
};

/// The band of the picture: what the planner may be wrong by in all but one of twenty cells, as a share of what was measured.
const BAND: f64 = 0.25;

pub(super) fn section(document: &Document) -> Result<Option<Section>> {
    let foreseen: Vec<_> = document
        .cells
        .iter()
        .filter_map(|cell| Some((cell, cell.predicted?, cell.pinlane()?)))
        .collect();
    let points: Vec<Point> = foreseen
        .iter()
        .map(|(cell, predicted, measured)| Point {
            name: cell.id.clone(),
            class: match cell.cell.direction {
                Direction::H2d => "to-device",
                Direction::D2h => "to-host",
            },
            foreseen: *predicted,
            measured: *measured,
        })
        .collect();
    let within = |bound: f64| {
        let errors = foreseen.iter().filter_map(|(cell, ..)| cell.prediction_error());
        errors.filter(|error| *error <= bound).count()
    };
    let words = format!(
        "Predicted against measured time of {} cells: {} are off by 10% or less of what was measured, {} by 25% or less.",
        points.len(),
        within(0.10),
        within(BAND)
    );
    let Some(svg) = scatter::draw(&words, &points, BAND)? else {
        return Ok(None);
    };
    let rows = foreseen.iter().map(|(cell, predicted, measured)| {
        vec![
            Cell::text(&cell.id),
            Cell::text(&cell.route),
            Cell::number(*predicted, units::time(*predicted)),
            Cell::number(*measured, units::time(*measured)),
            Cell::maybe(cell.prediction_error(), |error| format!("{:.0}%", 100.0 * error)),
        ]
    });
    let key = |class: &str, words: &str| Key {
        class: class.to_owned(),
        words: words.to_owned(),
    };
    let lead = document
        .figures
        .iter()
        .find(|figure| figure.id == "predict-error");
    Ok(Some(Section {
        id: "foresight".to_owned(),
        title: "Predicted and measured".to_owned(),
        lead: lead.map_or_else(String::new, |figure| {
            format!(
                "The planner's predictions are off by {:.1}% of what was measured, in the middle of all cells; {}.",
                figure.value, figure.detail
            )
        }),
        verdict: None,
        pictures: vec![Picture {
            id: "picture-foresight".to_owned(),
            title: "Predicted against measured, a point for each cell".to_owned(),
            svg,
            kind: "scatter",
            legend: vec![
                key("to-device", "to the device"),
                key("to-host", "to the host"),
                key("band", "off by 25% or less"),
            ],
            table: Table {
                caption: "Predicted and measured".to_owned(),
                columns: ["cell", "route", "predicted", "measured", "off by"]
                    .map(str::to_owned)
                    .to_vec(),
                rows: rows.collect(),
            },
        }],
        tables: Vec::new(),
        notes: Vec::new(),
    }))
}
