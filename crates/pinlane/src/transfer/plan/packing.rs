//! Packs leaves that go through slots into chunks.
//!
//! A leaf goes behind the ones before it in the open chunk, and on into new chunks. A run of a chunk is one piece on the
//! device: leaves that are neighbours there share one.
//!
//! What comes from a file lies in its slot as in a page of the file, where it begins a chunk, and is cut where a page ends: then
//! the pages are read straight into the slot, also past the page cache.

use super::{Chunk, Kind, Leaf, Plan, Region, Run, Segment, gathering::Gathering, placing::SLAB_ALIGNMENT};
use crate::{Route, file::source::PAGE};

/// Alignment of a run in its slot: a cache line.
const SLOT_ALIGNMENT: usize = 64;
/// The longest word that a device's thread moves, in bytes.
const WORD: usize = 16;

/// The chunk that is being filled.
pub(super) struct Packing<'a> {
    plan: &'a mut Plan,
    /// Whether a DMA may cover the gap between neighbours on the device.
    padded: bool,
    gathering: Option<Gathering>,
    /// Bytes that are planned.
    done: u64,
    open: Option<Open>,
}

/// A chunk with its last run, which may grow. Neither is in the plan yet; its segments and its runs before are.
struct Open {
    /// Bytes that were planned before.
    done: u64,
    /// The longest it may get.
    longest: usize,
    first_segment: usize,
    first_run: usize,
    run: Run,
}

/// Where in a slot a part of a leaf goes.
#[derive(Clone, Copy)]
struct Spot {
    slot_offset: usize,
    behind: Behind,
    /// The longest part that may go there.
    room: usize,
}

/// What a part of a leaf lies behind, in its slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// Nothing: it begins a chunk.
    Nothing,
    /// What lies before it on the device as well, so that both share a run.
    Neighbour,
    /// Any other run.
    Other,
}

impl Spot {
    /// The beginning of a chunk of up to `room` bytes, for a leaf's bytes from `offset` on.
    fn first(room: usize, kind: Kind, offset: u64) -> Self {
        let slot_offset = match kind {
            Kind::File { into_page } if room > 2 * PAGE as usize => {
                ((u64::from(into_page) + offset) % PAGE) as usize
            }
            _ => 0,
        };
        Self {
            slot_offset,
            behind: Behind::Nothing,
            room: room - slot_offset,
        }
    }
}

/// How far behind the end of a page of its file a leaf's part from `offset` on ends, if it begins before that.
fn beyond_page(kind: Kind, offset: u64, part: usize) -> usize {
    let Kind::File { into_page } = kind else {
        return 0;
    };
    let beyond = ((u64::from(into_page) + offset + part as u64) % PAGE) as usize;
    if beyond < part { beyond } else { 0 }
}

impl<'a> Packing<'a> {
    pub(super) fn new(plan: &'a mut Plan, padded: bool, gathering: Option<Gathering>) -> Self {
        Self {
            plan,
            padded,
            gathering,
            done: 0,
            open: None,
        }
    }

    /// Packs the leaf of number `leaf`, whose bytes are not none; `alone` says that it begins a chunk of its own.
    #[inline]
    pub(super) fn push(&mut self, leaf: u32, Leaf { bytes, kind }: Leaf, alone: bool) {
        let region = self.plan.regions[leaf as usize];
        // Most of many small leaves fit whole behind the one before.
        if !alone
            && let Some(spot) = self.spot_behind(region)
            && bytes <= spot.room as u64
        {
            self.put(leaf, region, 0, spot, bytes as usize);
        } else {
            self.push_parts(leaf, region, bytes, kind, alone);
        }
    }

    /// Packs a leaf that may have to be cut, or to begin a chunk.
    fn push_parts(&mut self, leaf: u32, region: Region, bytes: u64, kind: Kind, alone: bool) {
        let mut offset = 0;
        let mut fresh = alone;
        while offset < bytes {
            let place = Region {
                allocation: region.allocation,
                offset: region.offset + offset,
            };
            let behind = if fresh { None } else { self.spot_behind(place) };
            let longest = self.plan.pace.chunk_bytes(self.done);
            let spot = behind.unwrap_or_else(|| Spot::first(longest.min(self.data_end(1)), kind, offset));
            fresh = spot.behind == Behind::Nothing;
            let part = usize::try_from(bytes - offset).map_or(spot.room, |rest| rest.min(spot.room));
            let part = match (part as u64) < bytes - offset {
                true => part - beyond_page(kind, offset, part),
                false => part,
            };
            // A leaf that is not longer than a chunk is not cut merely to use up the rest of one.
            let whole_later = offset == 0 && (part as u64) < bytes && bytes <= longest as u64;
            if !fresh && (part == 0 || whole_later) {
                fresh = true;
                continue;
            }
            self.put(leaf, place, offset, spot, part);
            offset += part as u64;
            fresh = true;
        }
    }

    /// Where bytes for `place` go in the open chunk, if there is one.
    #[inline]
    fn spot_behind(&self, place: Region) -> Option<Spot> {
        let open = self.open.as_ref()?;
        let last = &open.run;
        let slot_end = last.slot_offset + last.bytes;
        // How far behind the last run's end on the device.
        let gap = place.offset.wrapping_sub(last.region.offset + last.bytes as u64);
        let widest = if self.padded { SLAB_ALIGNMENT as u64 } else { 1 };
        let joins = place.allocation == last.region.allocation && gap < widest;
        let slot_offset = if joins {
            slot_end + gap as usize
        } else {
            // Both ends the same number of bytes off a word, so that a kernel can move words.
            slot_end.next_multiple_of(SLOT_ALIGNMENT) + (place.offset % WORD as u64) as usize
        };
        let runs = self.plan.runs.len() - open.first_run + if joins { 1 } else { 2 };
        Some(Spot {
            slot_offset,
            behind: if joins { Behind::Neighbour } else { Behind::Other },
            room: open.longest.min(self.data_end(runs)).saturating_sub(slot_offset),
        })
    }

    /// Where the data in a chunk's slot has to end, with so many runs.
    fn data_end(&self, runs: usize) -> usize {
        self.gathering
            .map_or(usize::MAX, |gathering| gathering.data_end(runs))
    }

    /// Puts `bytes` bytes of a leaf, from `offset` on, in that spot.
    #[inline]
    fn put(&mut self, leaf: u32, place: Region, offset: u64, spot: Spot, bytes: usize) {
        let Spot {
            slot_offset, behind, ..
        } = spot;
        let run = Run {
            region: place,
            slot_offset,
            bytes,
        };
        match (&mut self.open, behind) {
            (Some(open), Behind::Neighbour) => open.run.bytes = slot_offset + bytes - open.run.slot_offset,
            (Some(open), Behind::Other) => self.plan.runs.push(std::mem::replace(&mut open.run, run)),
            _ => self.open_with(run),
        }
        self.plan.segments.push(Segment {
            leaf,
            offset,
            slot_offset,
            bytes,
        });
        self.done += bytes as u64;
    }

    /// Closes the last chunk.
    pub(super) fn finish(mut self) {
        self.close();
    }

    fn open_with(&mut self, run: Run) {
        self.close();
        self.open = Some(Open {
            done: self.done,
            longest: self.plan.pace.chunk_bytes(self.done),
            first_segment: self.plan.segments.len(),
            first_run: self.plan.runs.len(),
            run,
        });
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        self.plan.runs.push(open.run);
        let segments = (open.first_segment as u32, self.plan.segments.len() as u32);
        self.plan.chunks.push(Chunk {
            route: match segments.1 - segments.0 {
                1 => Route::Staged,
                _ => Route::Packed,
            },
            bytes: (self.done - open.done) as usize,
            table_offset: None,
            segments,
            runs: (open.first_run as u32, self.plan.runs.len() as u32),
        });
    }
}
