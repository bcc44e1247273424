//! What was predicted beside what was measured, as a section of a page: a point for each, and the numbers.

use pinlane::units;

use crate::{
    chart::scatter::{self, Point},
    error::Result,
    page::{Cell, Key, Picture, Section, Table},
};

/// The band of the picture: what the planner may be wrong by in all but one of twenty, as a share of what was measured.
const BAND: f64 = 0.25;

/// Something that was predicted and measured.
pub(crate) struct Foreseen {
    pub(crate) name: String,
    /// What else tells it from the others.
    pub(crate) part: String,
    /// A class of the legend.
    pub(crate) class: &'static str,
    /// Seconds.
    pub(crate) predicted: f64,
    /// Seconds.
    pub(crate) measured: f64,
}

impl Foreseen {
    /// How far the prediction is off, as a share of what was measured.
    fn error(&self) -> f64 {
        (self.predicted - self.measured).abs() / self.measured
    }
}

/// What the words of the section are.
pub(crate) struct Words<'a> {
    pub(crate) lead: String,
    /// What each is, in the plural.
    pub(crate) each: &'a str,
    /// The heads of the columns of name and part.
    pub(crate) columns: [&'a str; 2],
    /// The classes and what they stand for.
    pub(crate) legend: &'a [(&'a str, &'a str)],
}

/// The section; `None` where nothing was predicted.
pub(crate) fn section(foreseen: &[Foreseen], words: Words<'_>) -> Result<Option<Section>> {
    let points: Vec<Point> = foreseen
        .iter()
        .map(|foreseen| Point {
            name: foreseen.name.clone(),
            class: foreseen.class,
            foreseen: foreseen.predicted,
            measured: foreseen.measured,
        })
        .collect();
    let within = |bound: f64| {
        foreseen
            .iter()
            .filter(|foreseen| foreseen.error() <= bound)
            .count()
    };
    let told = format!(
        "Predicted against measured time of {} {}: {} are off by 10% or less of what was measured, {} by 25% or less.",
        points.len(),
        words.each,
        within(0.10),
        within(BAND)
    );
    let Some(svg) = scatter::draw(&told, &points, BAND)? else {
        return Ok(None);
    };
    let rows = foreseen.iter().map(|foreseen| {
        vec![
            Cell::text(&foreseen.name),
            Cell::text(&foreseen.part),
            Cell::number(foreseen.predicted, units::time(foreseen.predicted)),
            Cell::number(foreseen.measured, units::time(foreseen.measured)),
            Cell::number(foreseen.error(), format!("{:.0}%", 100.0 * foreseen.error())),
        ]
    });
    let band = [("band", "off by 25% or less")];
    let legend = words.legend.iter().chain(&band).map(|(class, words)| Key {
        class: (*class).to_owned(),
        words: (*words).to_owned(),
    });
    let [name, part] = words.columns;
    Ok(Some(Section {
        id: "foresight".to_owned(),
        title: "Predicted and measured".to_owned(),
        lead: words.lead,
        verdict: None,
        pictures: vec![Picture {
            id: "picture-foresight".to_owned(),
            title: format!(
                "Predicted against measured, a point for each of the {}",
                words.each
            ),
            svg,
            kind: "scatter",
            legend: legend.collect(),
            table: Table {
                caption: "Predicted and measured".to_owned(),
                columns: [name, part, "predicted", "measured", "off by"]
                    .map(str::to_owned)
                    .to_vec(),
                rows: rows.collect(),
            },
        }],
        tables: Vec::new(),
        notes: Vec::new(),
    }))
}
