//! A timeline: what ran when, in rows on one axis, with the time in which all of a group ran shaded.

use askama::Template;

use super::{Mark, across, percent, wrapped};
use crate::{
    error::Result,
    number::{Scale, mark},
};

const ROW: usize = 22;
const BAR_HEIGHT: usize = 14;
const LINE_HEIGHT: usize = 17;
const GAP: usize = 14;
/// The most characters of a line of a title that fit on a phone.
const LINE: usize = 46;

/// Things that ran, and could have run at once.
pub(crate) struct Group {
    pub(crate) title: String,
    /// What it says of the group, behind the title.
    pub(crate) rows: Vec<Row>,
}

/// Something that ran: from when to when, in seconds.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) class: &'static str,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

struct DrawnRow<'a> {
    name: &'a str,
    class: &'a str,
    top: usize,
    text: usize,
    start: String,
    width: String,
    words: String,
}

struct DrawnGroup<'a> {
    lines: Vec<(usize, String)>,
    rows: Vec<DrawnRow<'a>>,
    top: usize,
    height: usize,
    both: Option<(String, String)>,
}

#[derive(Template)]
#[template(path = "chart/timeline.svg")]
struct Svg<'a> {
    words: &'a str,
    height: usize,
    bar_height: usize,
    across: Vec<Mark>,
    groups: Vec<DrawnGroup<'a>>,
}

/// Draws groups one below the other.
pub(crate) fn draw(words: &str, groups: &[Group]) -> Result<String> {
    let ends = groups
        .iter()
        .flat_map(|group| group.rows.iter().map(|row| row.end * 1e3));
    let scale = Scale::up_to(ends.fold(0.0, f64::max));
    let place = |seconds: f64| scale.place(seconds * 1e3);
    let mut top = 0;
    let mut drawn = Vec::with_capacity(groups.len());
    for group in groups {
        let lines = wrapped(&group.title, LINE).into_iter().map(|line| {
            top += LINE_HEIGHT;
            (top - 4, line)
        });
        let lines: Vec<_> = lines.collect();
        let rows_top = top;
        let rows = group.rows.iter().map(|row| {
            top += ROW;
            DrawnRow {
                name: &row.name,
                class: row.class,
                top: top - ROW + (ROW - BAR_HEIGHT) / 2,
                text: top - ROW / 2,
                start: percent(place(row.start)),
                width: percent((place(row.end) - place(row.start)).max(0.004)),
                words: format!(
                    "{}: {} to {} ms",
                    row.name,
                    mark(row.start * 1e3),
                    mark(row.end * 1e3)
                ),
            }
        });
        let rows: Vec<_> = rows.collect();
        let from = group.rows.iter().map(|row| row.start).fold(0.0, f64::max);
        let to = group.rows.iter().map(|row| row.end).fold(f64::INFINITY, f64::min);
        drawn.push(DrawnGroup {
            lines,
            rows,
            top: rows_top,
            height: top - rows_top,
            both: (to.is_finite() && to > from)
                .then(|| (percent(place(from)), percent(place(to) - place(from)))),
        });
        top += GAP;
    }
    let svg = Svg {
        words,
        height: top.saturating_sub(GAP - 4),
        bar_height: BAR_HEIGHT,
        across: across(scale, 10.0, 6, mark),
        groups: drawn,
    };
    Ok(svg.render()?)
}
