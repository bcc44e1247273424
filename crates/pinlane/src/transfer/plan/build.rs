//! Builds a plan: lays tensors out, and cuts and packs them into chunks.

use std::time::Duration;

use pinlane_driver::ScatterTable;

use super::{
    Chunk, Direction, Kind, Leaf, Plan, Regions, Segment, Tally,
    choice::{Choice, Why},
    gathering::Gathering,
    pace::Pace,
    packing::Packing,
    placing::lay_out,
};
use crate::{Error, Placement, Profile, Result, Route, memory::list};

/// The longest direct copy: a huge one is cut so that others' copies get a turn between its parts.
const DIRECT_BYTES: u64 = 64 << 20;
/// The most copies handed to the driver in one batch.
const DIRECT_BATCH: usize = 256;
/// The most chunks that the caller's own thread enqueues when nothing needs a slot.
const INLINE_CHUNKS: usize = 64;

/// What the planner may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) lanes: usize,
    pub(crate) slot_bytes: usize,
    pub(crate) simulated: bool,
    /// Whether a slot is to be had that the whole result can stay in.
    pub(crate) lent: bool,
    /// Whether results on the host lie in memory that nobody has written yet.
    pub(crate) fresh: bool,
    /// Whether a caller who waits has it go the short way, by the driver's calls alone.
    pub(crate) short: bool,
    /// Whether the copies come after an event, which may not have fired.
    pub(crate) behind_event: bool,
    /// What the table of a kernel that moves scattered pieces takes, where the driver has one and it may be needed.
    pub(crate) scatter: Option<ScatterTable>,
}

/// Why there is no plan, and the leaf it was for.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) leaf: usize,
    pub(crate) error: Box<Error>,
}

/// Plans one request.
///
/// # Errors
///
/// [`Error::Route`] where the forced route can't carry a leaf, [`Error::HostMemory`] where sizes overflow; with the leaf.
pub(crate) fn plan(
    direction: Direction,
    leaves: &[Leaf],
    regions: Regions,
    forced: Option<Route>,
    means: Means<'_>,
) -> Result<Plan, Refused> {
    let (allocations, regions, padded) = match regions {
        Regions::Lay(placement) => {
            let (allocations, regions) = lay_out(leaves, placement)?;
            // Between the tensors of a slab of our own there is only padding, which a DMA may overwrite.
            (allocations, regions, placement == Placement::Slab)
        }
        Regions::Padded(regions) => (list::empty(), regions, true),
        // Reading a gap does no harm; writing one would.
        Regions::Given(regions) => (list::empty(), regions, direction == Direction::ToHost),
    };
    let bytes = leaves.iter().map(|leaf| leaf.bytes).sum();
    let gathering = Gathering::new(&means, direction, leaves, forced);
    let mut builder = Builder {
        gathering,
        plan: Plan {
            direction,
            leaves: leaves.len(),
            bytes,
            allocations,
            regions,
            chunks: Vec::new(),
            segments: list::with_capacity(leaves.len()),
            runs: list::empty(),
            inline: false,
            short: false,
            stays: false,
            pace: Pace::new(0, direction, &means),
            way: Duration::ZERO,
            predicted: Duration::ZERO,
            simulated: means.simulated,
            tallies: Vec::new(),
        },
    };
    let choice = Choice::new(direction, leaves.len() == 1, forced, gathering, &means);
    // What is copied or gathered from or to where it lies comes first: it keeps the link busy while the first slots are
    // filled.
    let mut pieces = list::empty();
    let mut slotted = list::with_capacity(leaves.len());
    let mut in_slots = 0;
    for (index, leaf) in leaves.iter().enumerate() {
        if let Err(error) = choice.check(leaf) {
            return Err(Refused {
                leaf: index,
                error: Box::new(error),
            });
        }
        let (route, why) = choice.route(leaf);
        let in_place = match route {
            Route::Direct | Route::Plain => {
                builder.push_direct(route, index, leaf.bytes);
                true
            }
            Route::Gathered if leaf.kind == Kind::Pinned => {
                pieces.push(index);
                true
            }
            Route::Staged | Route::Packed | Route::Gathered => leaf.bytes == 0,
        };
        if in_place {
            builder.plan.tally(route, why, 1, leaf.bytes);
        } else {
            slotted.push((index as u32, route, why));
            in_slots += leaf.bytes;
        }
    }
    for index in pieces {
        builder.push_direct(Route::Gathered, index, leaves[index].bytes);
    }
    let alone = forced == Some(Route::Staged);
    builder.plan.pace = if means.lent {
        Pace::whole(in_slots, &means)
    } else {
        Pace::new(in_slots, direction, &means)
    };
    let mut plan = builder.plan;
    let first_slotted = plan.chunks.len();
    let mut packing = Packing::new(&mut plan, padded, gathering);
    for &(index, ..) in &slotted {
        packing.push(index, leaves[index as usize], alone);
    }
    packing.finish();
    if let Some(gathering) = gathering {
        plan.gather(gathering);
    }
    plan.tally_slotted(first_slotted, leaves, &slotted, forced.is_some());
    plan.stays = means.lent && matches!(plan.chunks.as_slice(), [chunk] if chunk.is_staged());
    plan.short = means.short;
    plan.inline = plan.stays || plan.short || plan.fits_inline(means.profile);
    plan.predict(means.profile);
    Ok(plan)
}

struct Builder {
    gathering: Option<Gathering>,
    plan: Plan,
}

impl Builder {
    /// Copies of one leaf from or to where it lies. Small ones share a chunk; large ones are cut.
    fn push_direct(&mut self, route: Route, leaf: usize, bytes: u64) {
        let (most, longest) = match (route, self.gathering) {
            (Route::Gathered, Some(gathering)) => gathering.most_in_place(),
            _ => (DIRECT_BATCH, DIRECT_BYTES),
        };
        let longest = longest.min(DIRECT_BYTES);
        let plan = &mut self.plan;
        let mut offset = 0;
        while offset < bytes {
            let part = (bytes - offset).min(longest);
            let full = |chunk: &Chunk| {
                chunk.bytes as u64 + part > longest || (chunk.segments.1 - chunk.segments.0) as usize >= most
            };
            if plan
                .chunks
                .last()
                .is_none_or(|chunk| chunk.route != route || full(chunk))
            {
                let chunk = plan.open_chunk(route);
                chunk.table_offset = (route == Route::Gathered).then_some(0);
            }
            plan.push_segment(Segment {
                leaf: leaf as u32,
                offset,
                slot_offset: 0,
                bytes: part as usize,
            });
            offset += part;
        }
    }
}

impl Plan {
    fn open_chunk(&mut self, route: Route) -> &mut Chunk {
        let (segment, run) = (self.segments.len() as u32, self.runs.len() as u32);
        self.chunks.push(Chunk {
            route,
            bytes: 0,
            table_offset: None,
            segments: (segment, segment),
            runs: (run, run),
        });
        self.chunks.last_mut().expect("one was just pushed")
    }

    /// Leaves to a kernel what is better moved by one.
    fn gather(&mut self, gathering: Gathering) {
        for chunk in self.chunks.iter_mut().filter(|chunk| chunk.is_staged()) {
            let runs = &self.runs[chunk.runs.0 as usize..chunk.runs.1 as usize];
            chunk.table_offset = gathering.table_behind(runs);
            if chunk.table_offset.is_some() {
                chunk.route = Route::Gathered;
            }
        }
    }

    fn push_segment(&mut self, segment: Segment) {
        self.segments.push(segment);
        let chunk = self.chunks.last_mut().expect("a chunk is open");
        chunk.segments.1 += 1;
        chunk.bytes += segment.bytes;
    }

    /// Counts the leaves that go through slots, each by the chunk it begins in: those from `first` on, where the leaves
    /// begin in the order of `slotted`.
    fn tally_slotted(&mut self, first: usize, leaves: &[Leaf], slotted: &[(u32, Route, Why)], forced: bool) {
        let mut slotted = slotted;
        for number in first..self.chunks.len() {
            let chunk = &self.chunks[number];
            let begins = |segment: &&Segment| segment.offset == 0;
            let count = self.segments(chunk).iter().filter(begins).count();
            let (begun, rest) = slotted.split_at(count);
            slotted = rest;
            if chunk.route == Route::Gathered && !forced {
                let bytes = begun
                    .iter()
                    .map(|&(index, ..)| leaves[index as usize].bytes)
                    .sum();
                self.tally(Route::Gathered, Why::Scattered, count, bytes);
                continue;
            }
            // What was chosen is a slot; whether a leaf shares it shows when it is packed.
            let in_slot = chunk.route;
            for same in begun.chunk_by(|a, b| (a.1, a.2) == (b.1, b.2)) {
                let bytes = same.iter().map(|&(index, ..)| leaves[index as usize].bytes).sum();
                let route = if forced { same[0].1 } else { in_slot };
                self.tally(route, same[0].2, same.len(), bytes);
            }
        }
    }

    fn tally(&mut self, route: Route, why: Why, leaves: usize, bytes: u64) {
        // Most go as the one before.
        let known = self
            .tallies
            .iter_mut()
            .rev()
            .find(|tally| tally.route == route && tally.why == why);
        match known {
            Some(tally) => {
                tally.leaves += leaves;
                tally.bytes += bytes;
            }
            None => self.tallies.push(Tally {
                route,
                why,
                leaves,
                bytes,
            }),
        }
    }

    fn fits_inline(&self, profile: &Profile) -> bool {
        let slotted: usize = self
            .chunks
            .iter()
            .filter(|chunk| chunk.is_staged())
            .map(|chunk| chunk.bytes)
            .sum();
        slotted <= profile.inline_bytes && self.chunks.len() <= INLINE_CHUNKS
    }
}
