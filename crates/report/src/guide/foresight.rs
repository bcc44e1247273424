//! The planner's foresight: what it predicted of pinlane's own ways beside what they took.

use super::data::{Document, Figure};
use crate::{
    error::Result,
    foresight::{self, Foreseen, Words},
    page::Section,
};

pub(super) fn section(document: &Document) -> Result<Option<Section>> {
    let ways = document
        .experiments
        .iter()
        .flat_map(|experiment| experiment.ways.iter().map(move |way| (experiment, way)));
    let foreseen: Vec<_> = ways
        .filter_map(|(experiment, way)| {
            let Figure::Time { median_seconds, .. } = way.figure else {
                return None;
            };
            Some(Foreseen {
                name: format!("{}, {}", way.way, way.group),
                part: experiment.id.clone(),
                class: "pinlane",
                predicted: way.predicted_seconds?,
                measured: median_seconds,
            })
        })
        .collect();
    let mut lead = "What the planner foresees of the transfers that pinlane's ways are, by the profile of the device, and \
                    what they took."
        .to_owned();
    if document.device.simulated {
        lead += " It foresees hardware: what a simulated device takes says nothing of it.";
    }
    foresight::section(
        &foreseen,
        Words {
            lead,
            each: "ways of pinlane",
            columns: ["way", "experiment"],
            legend: &[("pinlane", "pinlane's way")],
        },
    )
}
