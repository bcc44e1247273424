//! The planner's foresight: what it predicted beside what was measured, cell by cell.

use pinlane_bench::{cell::Direction, document::Document};

use crate::{
    error::Result,
    foresight::{self, Foreseen, Words},
    page::Section,
};

pub(super) fn section(document: &Document) -> Result<Option<Section>> {
    let foreseen: Vec<_> = document
        .foreseen_cells()
        .into_iter()
        .map(|cell| Foreseen {
            name: cell.id,
            part: cell.route,
            class: match cell.direction {
                Direction::H2d => "to-device",
                Direction::D2h => "to-host",
            },
            predicted: cell.predicted,
            measured: cell.repeated,
        })
        .collect();
    let figure = document
        .figures
        .iter()
        .find(|figure| figure.id == "predict-error");
    let lead = figure.map_or_else(String::new, |figure| {
        format!(
            "The planner's predictions are off by {:.1}% of what was measured, in the middle of all cells; {}.",
            figure.value, figure.detail
        )
    });
    foresight::section(
        &foreseen,
        Words {
            lead,
            each: "cells",
            columns: ["cell", "route"],
            legend: &[("to-device", "to the device"), ("to-host", "to the host")],
        },
    )
}
