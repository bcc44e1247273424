//! Points: what was foreseen across, what was measured upward, both by factors, with a line where they are equal.

use askama::Template;

use super::{Mark, across, inner, percent, upward};
use crate::{error::Result, number::Scale};

const HEIGHT: f64 = 380.0;

/// A point.
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) class: &'static str,
    /// Seconds.
    pub(crate) foreseen: f64,
    /// Seconds.
    pub(crate) measured: f64,
}

struct Drawn {
    class: &'static str,
    x: String,
    y: String,
    words: String,
}

#[derive(Template)]
#[template(path = "chart/scatter.svg")]
struct Svg<'a> {
    words: &'a str,
    height: f64,
    across: Vec<Mark>,
    upward: Vec<Mark>,
    band: String,
    points: Vec<Drawn>,
}

/// Draws them, with a band in which what was foreseen is off by less than `within` (a share of what was measured). `None`
/// where there are none.
pub(crate) fn draw(words: &str, points: &[Point], within: f64) -> Result<Option<String>> {
    let values = points.iter().flat_map(|point| [point.foreseen, point.measured]);
    let Some(scale @ Scale::Log(least, most)) = Scale::around(values) else {
        return Ok(None);
    };
    let down = |value: f64| inner(1.0 - scale.place(value));
    // Where the band leaves the picture it is cut by its edge: both lines are drawn by their ends alone.
    let edge =
        |measured: f64, factor: f64| format!("{},{}", inner(scale.place(measured * factor)), down(measured));
    let corners = [
        edge(least, 1.0 - within),
        edge(least, 1.0 + within),
        edge(most / (1.0 + within), 1.0 + within),
        format!("1000,{}", down(most)),
        edge(most, 1.0 - within),
        format!("{},{}", inner(0.0), down(least / (1.0 - within))),
    ];
    let drawn = points.iter().map(|point| Drawn {
        class: point.class,
        x: percent(scale.place(point.foreseen)),
        y: percent(1.0 - scale.place(point.measured)),
        words: format!(
            "{}: foreseen {}, measured {}",
            point.name,
            pinlane::units::time(point.foreseen),
            pinlane::units::time(point.measured)
        ),
    });
    let svg = Svg {
        words,
        height: HEIGHT,
        across: across(scale, 10.0, 5, time_mark),
        upward: upward(scale, 10.0, 7, time_mark),
        band: corners.join(" "),
        points: drawn.collect(),
    };
    Ok(Some(svg.render()?))
}

/// A time as a mark: powers of ten in the unit that they fill.
fn time_mark(seconds: f64) -> String {
    // What should be a whole power may be a little less than one.
    let unit = pinlane::units::time_unit(seconds * 1.000_001);
    format!("{} {}", crate::number::mark(seconds / unit.seconds), unit.name)
}
