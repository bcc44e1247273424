//! Areas: amounts over time, with a line for what would be enough.

use askama::Template;

use super::{Mark, across, inner, percent, spread, upward};
use crate::{
    error::Result,
    number::{Scale, mark},
};

const HEIGHT: f64 = 260.0;
/// How far apart names have to be, in pixels.
const APART: f64 = 16.0;

/// An amount over time.
pub(crate) struct Area {
    pub(crate) name: String,
    pub(crate) class: &'static str,
    /// Seconds, and mebibytes.
    pub(crate) points: Vec<(f64, f64)>,
}

struct Drawn<'a> {
    name: &'a str,
    class: &'a str,
    area: String,
    line: String,
    peak: String,
    label: String,
    words: String,
}

#[derive(Template)]
#[template(path = "chart/area.svg")]
struct Svg<'a> {
    words: &'a str,
    height: f64,
    across: Vec<Mark>,
    upward: Vec<Mark>,
    limit: Option<(String, String)>,
    areas: Vec<Drawn<'a>>,
}

/// Draws them over each other, each named at the height of its peak; the last lies on top.
pub(crate) fn draw(words: &str, areas: &[Area], enough: Option<f64>) -> Result<String> {
    let points = || areas.iter().flat_map(|area| area.points.iter());
    let x = Scale::up_to(points().map(|point| point.0 * 1e3).fold(0.0, f64::max));
    let y = Scale::up_to(points().map(|point| point.1).chain(enough).fold(0.0, f64::max));
    let down = |value: f64| 1.0 - y.place(value);
    let peaks: Vec<f64> = areas
        .iter()
        .map(|area| area.points.iter().map(|point| point.1).fold(0.0, f64::max))
        .collect();
    let places: Vec<f64> = peaks.iter().map(|peak| down(*peak)).collect();
    let labels = spread(&places, APART / HEIGHT);
    let drawn = areas.iter().zip(&peaks).zip(labels).map(|((area, peak), label)| {
        let at = |&(seconds, amount): &(f64, f64)| {
            format!("{},{}", inner(x.place(seconds * 1e3)), inner(down(amount)))
        };
        let line: Vec<String> = area.points.iter().map(at).collect();
        let end = area.points.last().map_or(0.0, |point| x.place(point.0 * 1e3));
        Drawn {
            name: &area.name,
            class: area.class,
            area: format!("0,1000 {} {},1000", line.join(" "), inner(end)),
            line: line.join(" "),
            peak: percent(down(*peak)),
            label: percent(label),
            words: format!("{}: {} MiB at its peak", area.name, mark(*peak)),
        }
    });
    let svg = Svg {
        words,
        height: HEIGHT,
        across: across(x, 10.0, 6, mark),
        upward: upward(y, 10.0, 6, mark),
        limit: enough.map(|enough| (percent(down(enough)), format!("budget {} MiB", mark(enough)))),
        areas: drawn.collect(),
    };
    Ok(svg.render()?)
}
