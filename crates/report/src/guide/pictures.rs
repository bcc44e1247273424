//! The pictures of one experiment: bars for each work, what ran when, and memory over time.

use pinlane::units;

use super::data::{Experiment, Figure, MemoryCurve, Way};
use crate::{
    chart::{
        area::{self, Area},
        bars::{self, Bar, Limit},
        timeline::{self, Group, Row},
    },
    error::Result,
    number::significant,
    page::{Cell, Key, Picture, Table},
};

const MIB: f64 = 1_048_576.0;

/// All of them, in the order of the document.
pub(super) fn of(experiment: &Experiment) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for (place, (group, ways)) in groups(experiment).into_iter().enumerate() {
        pictures.push(comparison(&format!("{}-{place}", experiment.id), group, &ways)?);
    }
    if !experiment.timelines.is_empty() {
        pictures.push(overlap(experiment)?);
    }
    if !experiment.memory_curves.is_empty() {
        pictures.push(memory(experiment)?);
    }
    Ok(pictures)
}

/// The ways, by the work that they do.
pub(super) fn groups(experiment: &Experiment) -> Vec<(&str, Vec<&Way>)> {
    let groups = experiment.ways.chunk_by(|a, b| a.group == b.group);
    groups
        .map(|ways| (ways[0].group.as_str(), ways.iter().collect()))
        .collect()
}

fn owners() -> Vec<Key> {
    vec![key("guide", "the guide's way"), key("pinlane", "pinlane's way")]
}

fn key(class: &str, words: &str) -> Key {
    Key {
        class: class.to_owned(),
        words: words.to_owned(),
    }
}

/// What is wrong with the bytes of a way, behind its name.
fn named(way: &Way) -> String {
    if way.landed == "wrong" {
        format!("{} \u{2717} wrong bytes", way.way)
    } else {
        way.way.clone()
    }
}

/// The ways of one work side by side.
fn comparison(id: &str, group: &str, ways: &[&Way]) -> Result<Picture> {
    let mut limit = None;
    let bars: Vec<Bar> = ways
        .iter()
        .map(|way| {
            let (value, text, between) = match &way.figure {
                Figure::Time {
                    median_seconds,
                    first_quartile_seconds,
                    third_quartile_seconds,
                    ..
                } => (
                    *median_seconds,
                    units::time(*median_seconds),
                    Some((*first_quartile_seconds, *third_quartile_seconds)),
                ),
                Figure::Count { count, of, .. } => {
                    limit = Some(Limit {
                        value: *of as f64,
                        text: format!("of {of}"),
                    });
                    (*count as f64, format!("{count} of {of}"), None)
                }
                Figure::Overlap { overlap } => {
                    limit = Some(Limit {
                        value: 1.0,
                        text: "all of the shorter".to_owned(),
                    });
                    (*overlap, format!("{:.0}%", 100.0 * overlap), None)
                }
                Figure::Memory {
                    peak_pinned_bytes,
                    peak_growth_bytes,
                } => {
                    let bytes = peak_growth_bytes.unwrap_or(*peak_pinned_bytes);
                    (bytes as f64, units::bytes(bytes), None)
                }
            };
            Bar {
                label: match &way.figure {
                    Figure::Count { counted, .. } => format!("{}: {counted}", named(way)),
                    Figure::Memory {
                        peak_growth_bytes, ..
                    } => {
                        let what = if peak_growth_bytes.is_some() {
                            "growth"
                        } else {
                            "pinned"
                        };
                        format!("{}: {what}", named(way))
                    }
                    _ => named(way),
                },
                value,
                text,
                between,
                class: way.owner.clone(),
            }
        })
        .collect();
    let parts: Vec<String> = bars
        .iter()
        .map(|bar| format!("{} {}", bar.label, bar.text))
        .collect();
    let what = match ways[0].figure {
        Figure::Time { .. } => "Time of one run",
        Figure::Count { .. } => "How often",
        Figure::Overlap { .. } => "Part of the shorter that ran beside the longer",
        Figure::Memory { .. } => "Host memory at its peak",
    };
    let words = format!("{what}, {group}: {}.", parts.join("; "));
    Ok(Picture {
        id: format!("picture-{id}"),
        title: format!("{what}: {group}"),
        svg: bars::draw(&words, &bars, limit.as_ref())?,
        kind: "bars",
        legend: owners(),
        table: table(group, ways),
    })
}

/// The numbers of a comparison. All ways of one work are of one kind.
fn table(group: &str, ways: &[&Way]) -> Table {
    let first = ways.iter().find_map(|way| match way.figure {
        Figure::Time { median_seconds, .. } => Some(median_seconds),
        _ => None,
    });
    let columns: &[&str] = match ways[0].figure {
        Figure::Time { .. } => &[
            "predicted",
            "median",
            "first quartile",
            "third quartile",
            "speed",
            "measurements",
            "runs of each",
        ],
        Figure::Count { .. } => &["count", "of", "counted"],
        Figure::Overlap { .. } => &["overlap"],
        Figure::Memory { .. } => &["pinned at the peak", "growth at the peak"],
    };
    let rows = ways.iter().map(|way| {
        let mut row = vec![Cell::text(&way.way), Cell::text(&way.owner)];
        let time = |seconds: f64| Cell::number(seconds, units::time(seconds));
        let count = |count: u64| Cell::number(count as f64, count.to_string());
        let bytes = |bytes: f64| units::bytes(bytes as u64);
        match &way.figure {
            Figure::Time {
                median_seconds,
                first_quartile_seconds,
                third_quartile_seconds,
                measurements,
                runs_per_measurement,
            } => {
                row.push(Cell::maybe(way.predicted_seconds, units::time));
                row.extend([
                    time(*median_seconds),
                    time(*first_quartile_seconds),
                    time(*third_quartile_seconds),
                ]);
                let speed = first.map_or(1.0, |first| first / median_seconds);
                row.push(Cell::text(format!("{speed:.2}\u{d7}")));
                row.extend([count(*measurements), count(*runs_per_measurement)]);
            }
            Figure::Count {
                count: found,
                of,
                counted,
            } => {
                row.extend([count(*found), count(*of), Cell::text(counted)]);
            }
            Figure::Overlap { overlap } => {
                row.push(Cell::number(*overlap, format!("{:.1}%", 100.0 * overlap)));
            }
            Figure::Memory {
                peak_pinned_bytes,
                peak_growth_bytes,
            } => row.extend([
                Cell::number(*peak_pinned_bytes as f64, units::bytes(*peak_pinned_bytes)),
                Cell::maybe(peak_growth_bytes.map(|bytes| bytes as f64), bytes),
            ]),
        }
        row.push(Cell::text(match way.landed.as_str() {
            "right" => "verified",
            "wrong" => "WRONG",
            "counted" => "counted",
            _ => "none moved",
        }));
        row
    });
    let columns = ["way", "by"].iter().chain(columns).chain(&["bytes"]);
    Table {
        caption: format!("Numbers of {group}"),
        columns: columns.map(|column| (*column).to_owned()).collect(),
        rows: rows.collect(),
    }
}

/// What ran when.
fn overlap(experiment: &Experiment) -> Result<Picture> {
    let groups: Vec<Group> = experiment
        .timelines
        .iter()
        .map(|timeline| Group {
            title: timeline.title.clone(),
            rows: timeline
                .bars
                .iter()
                .map(|bar| Row {
                    name: bar.name.clone(),
                    class: if bar.name == "copy to" {
                        "copying"
                    } else {
                        "working"
                    },
                    start: bar.start_seconds,
                    end: bar.end_seconds,
                })
                .collect(),
        })
        .collect();
    let rows = experiment.timelines.iter().flat_map(|timeline| {
        timeline.bars.iter().map(|bar| {
            let time = |seconds: f64| Cell::number(seconds, units::time(seconds));
            vec![
                Cell::text(&timeline.title),
                Cell::text(&bar.name),
                time(bar.start_seconds),
                time(bar.end_seconds),
            ]
        })
    });
    let words = format!(
        "What ran when on the device, in {} cases: a copy to the device, the guide's or pinlane's, and what could run beside \
         it. Shaded is the time in which both ran.",
        groups.len()
    );
    Ok(Picture {
        id: format!("picture-{}-timeline", experiment.id),
        title: "What ran when on the device".to_owned(),
        svg: timeline::draw(&words, &groups)?,
        kind: "timeline",
        legend: vec![
            key("copying", "a copy to the device"),
            key("working", "a task, or a copy from the device"),
            key("both", "both at once"),
        ],
        table: Table {
            caption: "What ran when".to_owned(),
            columns: ["case", "what", "began", "ended"].map(str::to_owned).to_vec(),
            rows: rows.collect(),
        },
    })
}

fn peak(curve: &MemoryCurve) -> u64 {
    curve.points.iter().map(|point| point.bytes).max().unwrap_or(0)
}

/// How host memory grew.
fn memory(experiment: &Experiment) -> Result<Picture> {
    let areas: Vec<Area> = experiment
        .memory_curves
        .iter()
        .map(|curve| Area {
            name: if curve.owner == "pinlane" {
                "pinlane"
            } else {
                "guide"
            }
            .to_owned(),
            class: if curve.owner == "pinlane" {
                "pinlane"
            } else {
                "guide"
            },
            points: curve
                .points
                .iter()
                .map(|point| (point.seconds, point.bytes as f64 / MIB))
                .collect(),
        })
        .collect();
    let budget = experiment
        .memory_curves
        .iter()
        .find_map(|curve| curve.budget_bytes);
    let parts = experiment.memory_curves.iter().map(|curve| {
        format!(
            "{} grows by {} MiB at its peak",
            curve.way,
            significant(peak(curve) as f64 / MIB)
        )
    });
    let words = format!(
        "Host memory over time while a file goes to the device: {}.",
        parts.collect::<Vec<_>>().join("; ")
    );
    let rows = experiment.memory_curves.iter().flat_map(|curve| {
        curve.points.iter().map(|point| {
            vec![
                Cell::text(&curve.way),
                Cell::text(&curve.owner),
                Cell::number(point.seconds, units::time(point.seconds)),
                Cell::number(point.bytes as f64, units::bytes(point.bytes)),
            ]
        })
    });
    Ok(Picture {
        id: format!("picture-{}-memory", experiment.id),
        title: "Host memory while the file goes to the device".to_owned(),
        svg: area::draw(&words, &areas, budget.map(|bytes| bytes as f64 / MIB))?,
        kind: "area",
        legend: owners(),
        table: Table {
            caption: "Host memory over time".to_owned(),
            columns: ["way", "by", "after", "more than before"]
                .map(str::to_owned)
                .to_vec(),
            rows: rows.collect(),
        },
    })
}
