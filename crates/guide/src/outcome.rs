//! What an experiment found: rows to compare, operation tables, pictures, notes, and a judgement.

use std::fmt;

use serde::Serialize;

use crate::{operations::OperationTable, timer::Measurement, units, verdict::Judgement};

/// Whose way of doing it a row shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The guide's, which is torch's, over the raw driver.
    Guide,
    /// The engine's.
    Pinlane,
}

/// One figure of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figure {
    /// Seconds for one run.
    Time(Measurement),
    /// How many of how many.
    Count {
        /// So many.
        count: u64,
        /// Of so many.
        of: u64,
        /// What is counted.
        counted: &'static str,
    },
    /// How much of the shorter of two things ran beside the longer.
    Overlap {
        /// From 0, one after the other, to 1.
        overlap: f64,
    },
    /// Host memory at its peak.
    Memory {
        /// Page-locked bytes.
        peak_pinned_bytes: u64,
        /// Bytes by which the process grew, a simulated device's memory among them; `None` where that is not known.
        peak_growth_bytes: Option<u64>,
    },
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(measurement) => measurement.fmt(f),
            Self::Count { count, of, counted } => write!(f, "{count} of {of} {counted}"),
            Self::Overlap { overlap } => write!(f, "{:.0}% overlapped", 100.0 * overlap),
            Self::Memory {
                peak_pinned_bytes,
                peak_growth_bytes,
            } => {
                write!(f, "peak pinned: {}", units::bytes(*peak_pinned_bytes))?;
                match peak_growth_bytes {
                    Some(bytes) => write!(f, "\npeak growth: {}", units::bytes(*bytes)),
                    None => Ok(()),
                }
            }
        }
    }
}

/// One way to do the experiment's work, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The work: rows of one group compare with each other.
    pub group: String,
    /// The way.
    pub way: String,
    /// Whose way it is.
    pub owner: Owner,
    /// What was found.
    #[serde(flatten)]
    pub figure: Figure,
    /// Whether every byte that landed was right. `None` where nothing lands, or where wrong bytes are what the
    /// experiment is after.
    pub verified: Option<bool>,
}

/// An operation table and what it is of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TitledTable {
    /// What was recorded.
    pub title: String,
    /// The operations.
    #[serde(flatten)]
    pub table: OperationTable,
}

/// What an experiment found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The ways, in the order in which they ran.
    pub rows: Vec<Row>,
    /// Operation tables.
    pub tables: Vec<TitledTable>,
    /// Drawings in text, several lines each.
    pub pictures: Vec<String>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
    /// What it says of the claim.
    pub judgement: Judgement,
}

impl Outcome {
    /// Rows with a judgement, and nothing else yet.
    #[must_use]
    pub fn new(rows: Vec<Row>, judgement: Judgement) -> Self {
        Self {
            rows,
            tables: Vec::new(),
            pictures: Vec::new(),
            notes: Vec::new(),
            judgement,
        }
    }

    /// Adds an operation table.
    #[must_use]
    pub fn with_table(mut self, title: impl Into<String>, table: OperationTable) -> Self {
        self.tables.push(TitledTable {
            title: title.into(),
            table,
        });
        self
    }

    /// Adds a drawing.
    #[must_use]
    pub fn with_picture(mut self, picture: impl Into<String>) -> Self {
        self.pictures.push(picture.into());
        self
    }

    /// Adds a remark.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Whether no way landed wrong bytes against its promise.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.rows.iter().all(|row| row.verified != Some(false))
    }
}
