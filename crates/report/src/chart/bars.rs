//! Bars that lie: one for each way of doing something, with its label above and its number behind.

use askama::Template;

use super::{percent, wrapped};
use crate::{error::Result, number::Scale};

/// The most characters of a line of a label that fit on a phone.
const LINE: usize = 46;
const LINE_HEIGHT: usize = 17;
const BAR_HEIGHT: usize = 14;
const GAP: usize = 12;

/// A bar.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// The number as people read it.
    pub(crate) text: String,
    /// From where to where half of the measurements lie, where that is known.
    pub(crate) between: Option<(f64, f64)>,
    /// The class that colours it.
    pub(crate) class: String,
}

/// A line across all bars.
pub(crate) struct Limit {
    pub(crate) value: f64,
    pub(crate) text: String,
}

struct Drawn<'a> {
    class: &'a str,
    lines: Vec<(usize, String)>,
    top: usize,
    middle: usize,
    width: String,
    whisker: Option<(String, String)>,
    text: &'a str,
    name: &'a str,
}

#[derive(Template)]
#[template(path = "chart/bars.svg")]
struct Svg<'a> {
    words: &'a str,
    height: usize,
    bar_height: usize,
    bars: Vec<Drawn<'a>>,
    limit: Option<(String, &'a str, &'static str)>,
}

/// Draws them on one scale from 0.
pub(crate) fn draw(words: &str, bars: &[Bar], limit: Option<&Limit>) -> Result<String> {
    let values = bars
        .iter()
        .map(|bar| bar.value)
        .chain(limit.map(|limit| limit.value));
    let whiskers = bars.iter().filter_map(|bar| Some(bar.between?.1));
    let most = values.chain(whiskers).fold(0.0, f64::max);
    let scale = Scale::Linear(if most > 0.0 { most } else { 1.0 });
    let mut top = if limit.is_some() { LINE_HEIGHT + 4 } else { 0 };
    let mut drawn = Vec::with_capacity(bars.len());
    for bar in bars {
        let lines = wrapped(&bar.label, LINE).into_iter().map(|line| {
            top += LINE_HEIGHT;
            (top - 5, line)
        });
        let lines: Vec<_> = lines.collect();
        drawn.push(Drawn {
            class: &bar.class,
            lines,
            top,
            middle: top + BAR_HEIGHT / 2,
            width: percent(scale.place(bar.value)),
            whisker: bar
                .between
                .map(|(from, to)| (percent(scale.place(from)), percent(scale.place(to)))),
            text: &bar.text,
            name: &bar.label,
        });
        top += BAR_HEIGHT + GAP;
    }
    let svg = Svg {
        words,
        height: top.saturating_sub(GAP - 2),
        bar_height: BAR_HEIGHT,
        bars: drawn,
        limit: limit.map(|limit| {
            let place = scale.place(limit.value);
            // The words stay above the bars on whichever side there is room.
            let anchor = if place < 0.5 { "start" } else { "end" };
            (percent(place), limit.text.as_str(), anchor)
        }),
    };
    Ok(svg.render()?)
}
