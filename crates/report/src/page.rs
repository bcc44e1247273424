//! What a page is made of.

use askama::Template;
use serde_json::Value;

use crate::error::Result;

/// A page.
pub(crate) struct Page {
    pub(crate) title: String,
    /// What it is of, in a sentence.
    pub(crate) lead: String,
    pub(crate) simulated: bool,
    /// A few numbers for a glance.
    pub(crate) glance: Vec<Glance>,
    pub(crate) sections: Vec<Section>,
    pub(crate) machine: Table,
    /// How the figures were measured, a paragraph each.
    pub(crate) method: Vec<String>,
    pub(crate) footer: String,
}

/// A number for a glance, and what it is.
pub(crate) struct Glance {
    pub(crate) number: String,
    pub(crate) words: String,
    pub(crate) mood: Mood,
}

/// How good something is. Never told by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    Bad,
    Mixed,
    Plain,
}

impl Mood {
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Mixed => "mixed",
            Self::Plain => "plain-mood",
        }
    }

    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Good => "\u{2713}",
            Self::Bad => "\u{2717}",
            Self::Mixed => "\u{7e}",
            Self::Plain => "",
        }
    }
}

/// A part of the page.
pub(crate) struct Section {
    /// Its anchor.
    pub(crate) id: String,
    pub(crate) title: String,
    /// A sentence or two above the pictures.
    pub(crate) lead: String,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) pictures: Vec<Picture>,
    /// Tables that are not behind a picture.
    pub(crate) tables: Vec<Table>,
    pub(crate) notes: Vec<String>,
}

/// What is said of a claim.
pub(crate) struct Verdict {
    pub(crate) mood: Mood,
    pub(crate) word: String,
    pub(crate) reason: String,
}

/// A picture with the numbers behind it.
pub(crate) struct Picture {
    /// Its anchor.
    pub(crate) id: String,
    pub(crate) title: String,
    /// The SVG, which says in words what it shows.
    pub(crate) svg: String,
    /// What kind of picture it is: its class on the page.
    pub(crate) kind: &'static str,
    /// What its colours mean, where it has several.
    pub(crate) legend: Vec<Key>,
    pub(crate) table: Table,
}

/// What a colour means.
pub(crate) struct Key {
    pub(crate) class: String,
    pub(crate) words: String,
}

/// A table.
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// The number as the document has it, where the cell shows one.
    pub(crate) value: Option<f64>,
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            value: None,
        }
    }

    pub(crate) fn number(value: f64, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            value: Some(value),
        }
    }

    /// The number, or a dash where there is none.
    pub(crate) fn maybe(value: Option<f64>, text: impl FnOnce(f64) -> String) -> Self {
        value.map_or_else(
            || Self::text("\u{2013}"),
            |value| Self::number(value, text(value)),
        )
    }
}

#[derive(Template)]
#[template(path = "page.html")]
struct Html<'a> {
    page: &'a Page,
    simulated: &'static str,
    document: String,
}

impl Page {
    /// The page, with its document in it.
    pub(crate) fn render(&self, document: &Value) -> Result<String> {
        let html = Html {
            page: self,
            simulated: pinlane::SIMULATED,
            // Nothing in a script ends it but this.
            document: document.to_string().replace('<', "\\u003c"),
        };
        Ok(html.render()?)
    }
}
