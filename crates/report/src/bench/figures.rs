//! The figures: pinlane beside its peers, with the limit, and what is asked.

use std::{collections::HashMap, sync::LazyLock};

use pinlane_bench::{document::Document, figures::Figure};

use crate::{
    chart::bars::{self, Bar, Limit},
    error::Result,
    number::significant,
    page::{Cell, Key, Mood, Picture, Section, Table},
};

/// The work that each figure is about.
static WORKS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let works: Vec<(String, String)> = serde_json::from_str(include_str!("../../../../bench/figures.json"))
        .expect("bench/figures.json is a list of names and works");
    works.into_iter().collect()
});

fn work(id: &str) -> &str {
    WORKS.get(id).map_or(id, String::as_str)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>());
    first.unwrap_or_default() + letters.as_str()
}

fn mood(figure: &Figure) -> Mood {
    match figure.holds {
        Some(true) => Mood::Good,
        Some(false) => Mood::Bad,
        None => Mood::Plain,
    }
}

fn verdict(figure: &Figure) -> String {
    match figure.holds {
        Some(true) => format!("{} holds", Mood::Good.sign()),
        Some(false) => format!("{} falls short", Mood::Bad.sign()),
        None => "not judged".to_owned(),
    }
}

pub(super) fn section(document: &Document) -> Result<Section> {
    let mut pictures = Vec::new();
    for figure in &document.figures {
        // What has neither a peer nor a limit has nothing to be drawn beside.
        if !figure.peers.is_empty() || figure.limit.is_some() {
            pictures.push(picture(figure)?);
        }
    }
    Ok(Section {
        id: "figures".to_owned(),
        title: "The figures".to_owned(),
        lead: "What pinlane is held to: each figure, what is asked of it, and what others reach in the same run.".to_owned(),
        verdict: None,
        pictures,
        tables: vec![table(document)],
        notes: left_out(document).map(str::to_owned).into_iter().collect(),
    })
}

/// What to say where the cells were not kept.
fn left_out(document: &Document) -> Option<&'static str> {
    match (document.cells.is_empty(), document.foreseen.is_empty()) {
        (false, _) => None,
        (true, true) => {
            Some("This result was kept without the cells of the grid: what they show is not here.")
        }
        (true, false) => Some(
            "This result was kept without the cells of the grid: what they show is not here, but for what was predicted of \
             them and what they took.",
        ),
    }
}

fn picture(figure: &Figure) -> Result<Picture> {
    let text = |value: f64| format!("{} {}", significant(value), figure.unit);
    let bar = |label: &str, value: f64, class: &str| Bar {
        label: label.to_owned(),
        value,
        text: text(value),
        between: None,
        class: class.to_owned(),
    };
    let mut peers: Vec<(&String, &f64)> = figure.peers.iter().collect();
    // The best first.
    peers.sort_by(|a, b| a.1.total_cmp(b.1));
    if figure.unit.more_is_better() {
        peers.reverse();
    }
    let mut drawn = vec![bar("pinlane", figure.value, "pinlane")];
    drawn.extend(
        peers
            .iter()
            .map(|(name, value)| bar(&name.replace('_', " "), **value, "guide")),
    );
    let limit = figure.limit.map(|limit| Limit {
        value: limit,
        text: format!("limit {}", text(limit)),
    });
    let parts: Vec<String> = drawn
        .iter()
        .map(|bar| format!("{} {}", bar.label, bar.text))
        .collect();
    let better = if figure.unit.more_is_better() {
        "more"
    } else {
        "less"
    };
    let mut words = format!("{}: {}", work(&figure.id), parts.join("; "));
    if let Some(limit) = &limit {
        words += &format!("; {}", limit.text);
    }
    words += &format!(". In {}: {better} is better.", figure.unit);
    let mut rows = vec![vec![
        Cell::text("pinlane"),
        Cell::number(figure.value, text(figure.value)),
    ]];
    rows.extend(
        peers
            .iter()
            .map(|(name, value)| vec![Cell::text(name.as_str()), Cell::number(**value, text(**value))]),
    );
    if let Some(limit) = figure.limit {
        rows.push(vec![Cell::text("limit"), Cell::number(limit, text(limit))]);
    }
    let asked = match figure.asked.as_str() {
        "" => verdict(figure),
        asked => format!("{}; asked: {asked}", verdict(figure)),
    };
    Ok(Picture {
        id: format!("picture-{}", figure.id),
        title: match figure.scale_note() {
            Some(note) => format!("{} ({note})", capitalised(work(&figure.id))),
            None => capitalised(work(&figure.id)),
        },
        svg: bars::draw(&words, &drawn, limit.as_ref())?,
        kind: "bars",
        legend: vec![Key {
            class: mood(figure).class().to_owned(),
            words: asked,
        }],
        table: Table {
            caption: format!("Numbers of {}", figure.id),
            columns: ["who", "value"].map(str::to_owned).to_vec(),
            rows,
        },
    })
}

fn table(document: &Document) -> Table {
    let rows = document.figures.iter().map(|figure| {
        let text = |value: f64| format!("{} {}", significant(value), figure.unit);
        vec![
            Cell::text(&figure.id),
            Cell::text(work(&figure.id)),
            Cell::number(figure.value, text(figure.value)),
            Cell::maybe(figure.limit, text),
            Cell::text(&figure.asked),
            Cell::text(verdict(figure)),
            Cell::text(&figure.detail),
        ]
    });
    Table {
        caption: "All figures".to_owned(),
        columns: ["figure", "work", "pinlane", "limit", "asked", "verdict", "remark"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
    }
}
