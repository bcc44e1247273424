//! The outcome as JSON: whole, or without the cells for the results that are kept.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    figures::Figure,
    grid::{CellReport, ForeseenCell},
    link::LinkLimit,
    machine::Machine,
};

/// The shape of the document; raised when a reader of the old one would misread the new one.
pub const SCHEMA: u32 = 1;

/// Everything that a run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// The version of pinlane.
    pub pinlane: String,
    /// What it was measured on.
    pub machine: Machine,
    /// Where the engine's profile of the machine comes from: `assumed`, or `measured` by `pinlane tune`.
    pub profile: String,
    /// Whether the device only simulates, so that the figures say nothing of hardware.
    pub simulated: bool,
    /// Whether it was content with rough figures.
    pub quick: bool,
    /// When, in UTC, as RFC 3339 has it.
    pub date: String,
    /// Which commit, where the caller said so.
    pub commit: Option<String>,
    /// The link's limit in this run.
    pub link: LinkLimit,
    /// The cells, in the order in which they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<CellReport>,
    /// What was predicted of the cells, where they themselves are left out; see [`Document::foreseen_cells`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreseen: Vec<ForeseenCell>,
    /// Cells that were not begun, because the grid's time was up.
    pub cells_left: usize,
    /// The figures.
    pub figures: Vec<Figure>,
    /// What could not be measured, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

/// Something that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The cell or figure.
    pub id: String,
    /// What kind of failure it is.
    #[serde(default)]
    pub kind: FailureKind,
    /// What happened.
    pub error: String,
}

/// What a failure says of the other results of its run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Bytes landed that are not those of the source. How fast they did so is no figure, and neither is any other of the
    /// run: who commits results refuses it.
    WrongBytes,
    /// It could not be measured, which says nothing of the others.
    #[default]
    NotMeasured,
}

impl Failure {
    pub(crate) fn of(id: impl Into<String>, error: &Error) -> Self {
        Self {
            id: id.into(),
            kind: match error {
                Error::WrongBytes { .. } => FailureKind::WrongBytes,
                _ => FailureKind::NotMeasured,
            },
            error: error.to_string(),
        }
    }
}

impl Document {
    /// Reads one that was written before.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::Format`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|source| Error::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let refuse = |reason: String| Error::Format {
            path: path.to_owned(),
            what: "a result of `pinlane bench --json`",
            reason,
        };
        let document: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if document.schema != SCHEMA {
            return Err(refuse(format!(
                "its schema is {}, and this version reads {SCHEMA}; measure again",
                document.schema
            )));
        }
        Ok(document)
    }

    /// What was predicted of the cells and what they took: of each that has both, whether the cells are kept or not.
    #[must_use]
    pub fn foreseen_cells(&self) -> Vec<ForeseenCell> {
        if self.cells.is_empty() {
            return self.foreseen.clone();
        }
        self.cells.iter().filter_map(CellReport::foreseen).collect()
    }

    /// The same without the cells, which are many: only what was predicted of them stays, and what they took.
    #[must_use]
    pub fn without_cells(&self) -> Self {
        Self {
            foreseen: self.foreseen_cells(),
            cells: Vec::new(),
            ..self.clone()
        }
    }

    /// Whether everything could be measured, and no bytes were wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.failures.is_empty()
    }
}
