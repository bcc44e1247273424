//! What an experiment found: rows to compare, operation tables, pictures, notes, and a judgement.

use std::fmt;

use serde::Serialize;

use pinlane::trace::OperationTable;

use crate::{timeline::Timeline, timer::Measurement, units, verdict::Judgement};

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
        /// Bytes by which the process grew, a simulated device's memory not counted; `None` where that is not known.
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

/// What became of the bytes that a way moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Landed {
    /// All of them landed, every one as it was sent.
    Right,
    /// Some did not, against the way's promise.
    Wrong,
    /// How often some did not is what the row's figure counts: the way promises nothing.
    Counted,
    /// The way moves none.
    Nothing,
}

impl Landed {
    /// What a comparison of every byte says.
    #[must_use]
    pub fn of_check(right: bool) -> Self {
        if right { Self::Right } else { Self::Wrong }
    }

    /// Whether every byte was right; `None` where that is not the question.
    #[must_use]
    pub fn verified(self) -> Option<bool> {
        match self {
            Self::Right => Some(true),
            Self::Wrong => Some(false),
            Self::Counted | Self::Nothing => None,
        }
    }
}

/// One way to do the experiment's work, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The work: rows of one group compare with each other.
    pub group: String,
    /// The way.
    pub way: String,
    /// Whose way it is.
    pub owner: Owner,
    /// What was found.
    pub figure: Figure,
    /// What became of the bytes.
    pub landed: Landed,
    /// The seconds that pinlane's plan foresees, for a way that is timed and has one.
    pub predicted_seconds: Option<f64>,
}

/// How much host memory the process had more than at the start of a way, over its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryCurve {
    /// The way.
    pub way: String,
    /// Whose way it is.
    pub owner: Owner,
    /// The bytes that would be enough, where that is known.
    pub budget_bytes: Option<u64>,
    /// What was seen, in the order of time.
    pub points: Vec<MemoryPoint>,
}

/// One look at the process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MemoryPoint {
    /// When, from the start of the way.
    pub seconds: f64,
    /// By how much the process had grown, a simulated device's memory not counted.
    pub bytes: u64,
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
    /// What ran when.
    pub timelines: Vec<Timeline>,
    /// How host memory grew.
    pub memory_curves: Vec<MemoryCurve>,
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
            timelines: Vec::new(),
            memory_curves: Vec::new(),
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

    /// Adds what ran when.
    #[must_use]
    pub fn with_timeline(mut self, timeline: Timeline) -> Self {
        self.timelines.push(timeline);
        self
    }

    /// Adds how host memory grew.
    #[must_use]
    pub fn with_memory_curve(mut self, curve: MemoryCurve) -> Self {
        self.memory_curves.push(curve);
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
        self.rows.iter().all(|row| row.landed != Landed::Wrong)
    }
}
