//! Which chunks a kernel moves: those with many short runs, each of which would cost the link a copy of its own.
//!
//! The kernel's table lies at the end of the chunk's slot, behind the data. Room for it is left while a chunk is filled
//! that may come to need it.

use pinlane_driver::ScatterTable;

use super::{Run, build::Means};
use crate::Route;

/// A table begins at a cache line.
const TABLE_ALIGNMENT: usize = 64;

/// How chunks are gathered, where they can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathering {
    table: ScatterTable,
    slot_bytes: usize,
    /// Whether every chunk is, because the caller asked for it.
    forced: bool,
    fewest_runs: usize,
    longest_run: usize,
}

impl Gathering {
    /// `None` where the driver has no kernel for it, or the caller forces another route.
    pub(super) fn new(means: &Means<'_>, forced: Option<Route>) -> Option<Self> {
        let table = means.scatter?;
        // A table that leaves little room for data serves nobody.
        let fits = table.bytes(1, means.slot_bytes) <= means.slot_bytes / 2;
        (fits && matches!(forced, None | Some(Route::Gathered))).then(|| Self {
            table,
            slot_bytes: means.slot_bytes,
            forced: forced.is_some(),
            fewest_runs: means.profile.gathered_runs,
            longest_run: means.profile.gathered_run_bytes,
        })
    }

    /// Where the data of a chunk with so many runs has to end, for the table to fit behind it.
    pub(super) fn data_end(&self, runs: usize) -> usize {
        if runs == 1 && !self.forced {
            return self.slot_bytes;
        }
        self.table_offset(runs)
    }

    /// Where the table of a chunk begins that is to be gathered; `None` for a chunk that is better copied.
    pub(super) fn of(&self, runs: &[Run]) -> Option<usize> {
        let bytes: usize = runs.iter().map(|run| run.bytes).sum();
        let scattered = runs.len() >= self.fewest_runs && bytes / runs.len().max(1) <= self.longest_run;
        let offset = self.table_offset(runs.len());
        let fits = runs
            .last()
            .is_some_and(|last| last.slot_offset + last.bytes <= offset);
        ((self.forced || scattered) && fits).then_some(offset)
    }

    fn table_offset(&self, runs: usize) -> usize {
        let table = self.table.bytes(runs, self.slot_bytes);
        self.slot_bytes.saturating_sub(table) / TABLE_ALIGNMENT * TABLE_ALIGNMENT
    }
}
