//! Two results side by side: what got slower, what got faster.

use std::path::Path;

use crate::{
    document::Document,
    error::{Error, Result},
};

/// A cell or figure that both results have.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its name.
    pub id: String,
    /// Whether it is a figure; otherwise it is a cell, by pinlane's own choice.
    pub is_figure: bool,
    /// What the first result says, with its unit.
    pub before: String,
    /// What the second says.
    pub after: String,
    /// How much worse the second is: above 1 it got slower.
    pub ratio: f64,
}

/// What two results have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Every cell and figure of both.
    pub changes: Vec<Change>,
    /// Cells and figures that only one has.
    pub alone: usize,
    /// What ratio is still noise.
    pub tolerance: f64,
    /// Whether both results are of simulated devices, so that neither says anything of hardware's speed.
    pub simulated: bool,
}

impl Comparison {
    /// Reads and compares two results.
    ///
    /// # Errors
    ///
    /// What is wrong with a file; [`Error::Incomparable`] where one is of a simulated device and the other is not, and
    /// where they have nothing in common.
    pub fn of_files(before: &Path, after: &Path, tolerance: f64) -> Result<Self> {
        let (left, right) = (Document::read(before)?, Document::read(after)?);
        let refuse = |reason| Error::Incomparable {
            left: before.to_owned(),
            right: after.to_owned(),
            reason,
        };
        if left.simulated != right.simulated {
            return Err(refuse("one of them is of a simulated device"));
        }
        let comparison = Self::of(&left, &right, tolerance);
        if comparison.changes.is_empty() {
            return Err(refuse("they have neither a cell nor a figure in common"));
        }
        Ok(comparison)
    }

    /// Compares two results.
    #[must_use]
    pub fn of(before: &Document, after: &Document, tolerance: f64) -> Self {
        let mut changes = Vec::new();
        for old in &before.figures {
            let new = after
                .figures
                .iter()
                .find(|figure| figure.id == old.id && figure.unit == old.unit);
            let Some(new) = new else { continue };
            let (worse, better) = if old.unit.more_is_better() {
                (old.value, new.value)
            } else {
                (new.value, old.value)
            };
            changes.push(Change {
                id: old.id.clone(),
                is_figure: true,
                before: format!("{:.3} {}", old.value, old.unit),
                after: format!("{:.3} {}", new.value, new.unit),
                ratio: worse / better,
            });
        }
        for old in &before.cells {
            let new = after.cells.iter().find(|cell| cell.cell == old.cell);
            if let Some((old_seconds, new_seconds)) = old.pinlane().zip(new.and_then(|new| new.pinlane())) {
                changes.push(Change {
                    id: old.id.clone(),
                    is_figure: false,
                    before: pinlane_guide::units::time(old_seconds),
                    after: pinlane_guide::units::time(new_seconds),
                    ratio: new_seconds / old_seconds,
                });
            }
        }
        let all = |document: &Document| document.figures.len() + document.cells.len();
        Self {
            alone: all(before) + all(after) - 2 * changes.len(),
            changes,
            tolerance,
            simulated: before.simulated && after.simulated,
        }
    }

    /// Those that got slower than the tolerance allows, the worst first.
    #[must_use]
    pub fn slower(&self) -> Vec<&Change> {
        self.beyond(|change| change.ratio > self.tolerance)
    }

    /// Whether nothing got slower on hardware.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.simulated || self.slower().is_empty()
    }

    /// Those that got faster by as much, the best last.
    #[must_use]
    pub fn faster(&self) -> Vec<&Change> {
        self.beyond(|change| change.ratio * self.tolerance < 1.0)
    }

    fn beyond(&self, is_beyond: impl Fn(&&Change) -> bool) -> Vec<&Change> {
        let mut changes: Vec<_> = self.changes.iter().filter(is_beyond).collect();
        changes.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
        changes
    }
}
