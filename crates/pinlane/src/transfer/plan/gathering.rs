//! What a kernel moves: many short pieces, each of which would cost the link a copy of its own.
//!
//! - Leaves in pinned memory, from or to where they lie.
//! - Chunks of other leaves, whose bytes are packed in a slot, with many short runs.
//!
//! The kernel's table lies in the chunk's slot, behind such bytes. Room for it is left while a chunk is filled that may
//! come to need it.

use pinlane_driver::ScatterTable;

use super::{Direction, Kind, Leaf, Run, build::Means};
use crate::Route;

/// A table begins at a cache line.
const TABLE_ALIGNMENT: usize = 64;

/// Pieces in pinned memory that are shorter than this reach the device sooner when the processor packs them beside others that
/// need a slot anyway, or when there are few bytes of them.
const PACKED_BELOW: u64 = 2 << 10;
/// So many bytes are packed as fast as a kernel is launched (3.5 microseconds): more are better left to it where all lie in
/// pinned memory, so that none needs a slot.
const PACKED_UP_TO: u64 = 32 << 10;
/// From so many bytes on several lanes pack at once, while the kernel's table is one thread's work.
const PACKED_FROM: u64 = 2 << 20;
/// By so much longer than the runs in a slot pieces may be that the kernel moves from or to where they lie: the other way
/// takes a call for each.
const IN_PLACE: usize = 4;

/// How chunks are gathered, where they can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathering {
    table: ScatterTable,
    slot_bytes: usize,
    /// What a slot has left for data and one entry for each run, beside the entries for what long runs are cut into.
    room: usize,
    /// Whether every chunk is, because the caller asked for it.
    forced: bool,
    /// Whether there are so many short leaves in pinned memory that they are worth a launch.
    takes_pinned: bool,
    fewest_runs: usize,
    longest_run: usize,
    /// The least a piece in pinned memory has.
    shortest_piece: u64,
}

impl Gathering {
    /// `None` where the driver has no kernel for it, or the caller forces another route.
    pub(super) fn new(
        means: &Means<'_>,
        direction: Direction,
        leaves: &[Leaf],
        forced: Option<Route>,
    ) -> Option<Self> {
        let table = means.scatter?;
        // A table that leaves little room for data serves nobody.
        let fits = table.bytes(1, means.slot_bytes) <= means.slot_bytes / 2;
        let mut gathering = Self {
            table,
            slot_bytes: means.slot_bytes,
            room: means.slot_bytes.saturating_sub(table.bytes(0, means.slot_bytes)),
            forced: forced.is_some(),
            takes_pinned: true,
            fewest_runs: means.profile.fewest_gathered(direction),
            longest_run: means.profile.gathered_run_bytes,
            shortest_piece: match (direction, forced) {
                (Direction::ToDevice, None) if !are_worth_a_launch(leaves) => PACKED_BELOW,
                _ => 1,
            },
        };
        let pieces = leaves.iter().filter(|leaf| gathering.takes(leaf)).count();
        gathering.takes_pinned = pieces > 0 && pieces >= gathering.fewest_runs;
        (fits && matches!(forced, None | Some(Route::Gathered))).then_some(gathering)
    }

    /// Whether a leaf is a piece that the kernel moves from or to where it lies, unless the caller asked for a route.
    pub(super) fn takes(&self, leaf: &Leaf) -> bool {
        let longest = (IN_PLACE * self.longest_run) as u64;
        let short = (self.shortest_piece..=longest).contains(&leaf.bytes);
        self.takes_pinned && leaf.kind == Kind::Pinned && short
    }

    /// The most pieces in pinned memory, and the most bytes of them, whose table one slot holds: half of it for each.
    pub(super) fn most_in_place(&self) -> (usize, u64) {
        let pieces = self.slot_bytes / 2 / self.table.entry_bytes.max(1);
        (
            pieces,
            (pieces as u64).saturating_mul(self.table.piece_bytes as u64),
        )
    }

    /// Where the data of a chunk with so many runs has to end, for the table to fit behind it.
    pub(super) fn data_end(&self, runs: usize) -> usize {
        if runs == 1 && !self.forced {
            return self.slot_bytes;
        }
        self.table_offset(runs)
    }

    /// Where the table of a chunk begins that is to be gathered; `None` for a chunk that is better copied.
    pub(super) fn table_behind(&self, runs: &[Run]) -> Option<usize> {
        let bytes: usize = runs.iter().map(|run| run.bytes).sum();
        let scattered = runs.len() >= self.fewest_runs && bytes / runs.len().max(1) <= self.longest_run;
        let offset = self.table_offset(runs.len());
        let fits = runs
            .last()
            .is_some_and(|last| last.slot_offset + last.bytes <= offset);
        ((self.forced || scattered) && fits).then_some(offset)
    }

    fn table_offset(&self, runs: usize) -> usize {
        let entries = runs.saturating_mul(self.table.entry_bytes);
        self.room.saturating_sub(entries) / TABLE_ALIGNMENT * TABLE_ALIGNMENT
    }
}

/// Whether a kernel moves leaves from where they lie sooner than the processor packs the short ones.
fn are_worth_a_launch(leaves: &[Leaf]) -> bool {
    let mut short = 0;
    for leaf in leaves {
        if leaf.kind != Kind::Pinned {
            return false;
        }
        if leaf.bytes < PACKED_BELOW {
            short += leaf.bytes;
        }
    }
    (PACKED_UP_TO + 1..PACKED_FROM).contains(&short)
}
