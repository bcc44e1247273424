//! Curves: one value over another, both by factors, with names at the ends of the lines.

use askama::Template;

use super::{Mark, across, inner, percent, size_mark, spread, upward};
use crate::{
    error::Result,
    number::{Scale, mark},
};

const HEIGHT: f64 = 320.0;
/// How far apart names at the ends of lines have to be, in pixels.
const APART: f64 = 15.0;

/// A curve.
pub(crate) struct Curve {
    /// Its name, short.
    pub(crate) name: String,
    /// The class that colours it.
    pub(crate) class: String,
    /// Bytes, and gigabytes per second. In the order of bytes.
    pub(crate) points: Vec<(f64, f64)>,
}

struct Drawn<'a> {
    name: &'a str,
    class: &'a str,
    line: String,
    dots: Vec<(String, String, String)>,
    label: String,
}

#[derive(Template)]
#[template(path = "chart/curves.svg")]
struct Svg<'a> {
    words: &'a str,
    height: f64,
    across: Vec<Mark>,
    upward: Vec<Mark>,
    limit: Option<(String, String)>,
    curves: Vec<Drawn<'a>>,
}

/// Draws rates over sizes; the last curve lies on top. `None` where there is nothing to draw.
pub(crate) fn draw(words: &str, curves: &[Curve], limit: Option<f64>) -> Result<Option<String>> {
    let points = || curves.iter().flat_map(|curve| curve.points.iter());
    let x = Scale::around(points().map(|point| point.0));
    let y = Scale::around(points().map(|point| point.1).chain(limit));
    let (Some(x), Some(y)) = (x, y) else {
        return Ok(None);
    };
    // Room above the highest line.
    let y = match y {
        Scale::Log(least, most) => Scale::Log(least, most * 1.25),
        linear => linear,
    };
    let curves: Vec<&Curve> = curves.iter().filter(|curve| !curve.points.is_empty()).collect();
    let down = |value: f64| 1.0 - y.place(value);
    let ends: Vec<f64> = curves
        .iter()
        .map(|curve| curve.points.last().map_or(1.0, |point| down(point.1)))
        .collect();
    let labels = spread(&ends, APART / HEIGHT);
    let drawn = curves.iter().zip(labels).map(|(curve, label)| {
        let line = curve
            .points
            .iter()
            .map(|&(bytes, rate)| format!("{},{}", inner(x.place(bytes)), inner(down(rate))));
        let dots = curve.points.iter().map(|&(bytes, rate)| {
            (
                percent(x.place(bytes)),
                percent(down(rate)),
                format!("{}, {}: {} GB/s", curve.name, size_mark(bytes), mark(rate)),
            )
        });
        Drawn {
            name: &curve.name,
            class: &curve.class,
            line: line.collect::<Vec<_>>().join(" "),
            dots: dots.collect(),
            label: percent(label),
        }
    });
    let svg = Svg {
        words,
        height: HEIGHT,
        across: across(x, 4.0, 5, size_mark),
        upward: upward(y, 10.0, 6, mark),
        limit: limit.map(|limit| (percent(down(limit)), format!("link {} GB/s", mark(limit)))),
        curves: drawn.collect(),
    };
    Ok(Some(svg.render()?))
}
