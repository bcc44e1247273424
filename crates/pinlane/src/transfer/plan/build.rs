//! Builds a plan: lays tensors out, and cuts and packs them into chunks.

use std::time::Duration;

use pinlane_driver::ScatterTable;

use super::{
    Chunk, Direction, Kind, Leaf, Plan, Region, Regions, Run, Segment, Tally,
    choice::{Choice, Why},
    gathering::Gathering,
    pace::Pace,
    placing::{SLAB_ALIGNMENT, lay_out},
};
use crate::{Error, Placement, Profile, Result, Route};

/// Alignment of a run in its slot: a cache line.
const SLOT_ALIGNMENT: usize = 64;
/// The longest word that a device's thread moves, in bytes.
const WORD: usize = 16;
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
        // Reading a gap does no harm; writing one would.
        Regions::Given(regions) => (Vec::new(), regions, direction == Direction::ToHost),
    };
    let bytes = leaves.iter().map(|leaf| leaf.bytes).sum();
    let gathering = Gathering::new(&means, direction, leaves, forced);
    let mut builder = Builder {
        done: 0,
        padded,
        gathering,
        plan: Plan {
            direction,
            leaves: leaves.len(),
            bytes,
            allocations,
            regions,
            chunks: Vec::new(),
            segments: Vec::with_capacity(leaves.len()),
            runs: Vec::new(),
            inline: false,
            stays: false,
            pace: Pace::new(0, direction, &means),
            predicted: Duration::ZERO,
            simulated: means.simulated,
            tallies: Vec::new(),
        },
    };
    let choice = Choice::new(direction, leaves.len() == 1, forced, gathering, means.profile);
    // What is copied or gathered from or to where it lies comes first: it keeps the link busy while the first slots are
    // filled.
    let mut pieces = Vec::new();
    let mut slotted = Vec::with_capacity(leaves.len());
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
            builder.plan.tally(route, why, leaf.bytes);
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
    let first_slotted = builder.plan.chunks.len();
    for &(index, ..) in &slotted {
        builder.push_slotted(index as usize, leaves[index as usize].bytes, alone);
    }
    let mut plan = builder.plan;
    if let Some(gathering) = gathering {
        plan.gather(gathering);
    }
    plan.tally_slotted(first_slotted, leaves, &slotted, forced.is_some());
    plan.stays = means.lent && matches!(plan.chunks.as_slice(), [chunk] if chunk.is_staged());
    plan.inline = plan.stays || plan.fits_inline(means.profile);
    plan.predicted = plan.predict(means.profile);
    Ok(plan)
}

struct Builder {
    /// Bytes that go through slots and are planned.
    done: u64,
    /// Whether a DMA may cover the gap between neighbours on the device.
    padded: bool,
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

    /// One leaf through slots: behind the leaves before it in the open chunk, and on into new ones. `bytes` is not zero.
    fn push_slotted(&mut self, leaf: usize, bytes: u64, alone: bool) {
        let region = self.plan.regions[leaf];
        let mut offset = 0;
        let mut fresh = alone || !self.plan.chunks.last().is_some_and(Chunk::is_staged);
        while offset < bytes {
            if fresh {
                self.plan.open_chunk(Route::Staged);
            }
            let place = Region {
                allocation: region.allocation,
                offset: region.offset + offset,
            };
            let (slot_offset, joins) = self.place(place);
            let chunk_bytes = self.plan.pace.chunk_bytes(self.done);
            let room = chunk_bytes.min(self.data_end(joins)).saturating_sub(slot_offset);
            let part = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(room);
            // A leaf that is not longer than a chunk is not cut merely to use up the rest of one.
            let whole_later = offset == 0 && (part as u64) < bytes && bytes <= chunk_bytes as u64;
            if part == 0 || (whole_later && !fresh) {
                fresh = true;
                continue;
            }
            self.push_run(place, slot_offset, part, joins);
            self.plan.push_segment(Segment {
                leaf: leaf as u32,
                offset,
                slot_offset,
                bytes: part,
            });
            offset += part as u64;
            self.done += part as u64;
            fresh = offset < bytes;
        }
        if let Some(chunk) = self.plan.chunks.last_mut()
            && chunk.is_staged()
            && chunk.segments.1 - chunk.segments.0 > 1
        {
            chunk.route = Route::Packed;
        }
    }

    /// Where the data in the open chunk's slot has to end, after another run or, if that `joins` the last one, none.
    fn data_end(&self, joins: bool) -> usize {
        let chunk = self.plan.chunks.last().expect("a chunk is open");
        let runs = (chunk.runs.1 - chunk.runs.0) as usize + usize::from(!joins);
        self.gathering
            .map_or(usize::MAX, |gathering| gathering.data_end(runs))
    }

    /// Where in the open chunk's slot the bytes for `place` go, and whether they join the run before.
    fn place(&self, place: Region) -> (usize, bool) {
        let chunk = self.plan.chunks.last().expect("a chunk is open");
        let Some(run) = self.plan.runs[chunk.runs.0 as usize..].last() else {
            return (0, false);
        };
        let end = run.region.offset + run.bytes as u64;
        let gap = place
            .offset
            .checked_sub(end)
            .filter(|_| place.allocation == run.region.allocation);
        match gap {
            Some(gap) if gap == 0 || (self.padded && gap < SLAB_ALIGNMENT as u64) => {
                (run.slot_offset + run.bytes + gap as usize, true)
            }
            _ => {
                let next = (run.slot_offset + run.bytes).next_multiple_of(SLOT_ALIGNMENT);
                // Both ends the same number of bytes off a word, so that a kernel can move words.
                (next + (place.offset % WORD as u64) as usize, false)
            }
        }
    }

    fn push_run(&mut self, place: Region, slot_offset: usize, bytes: usize, joins: bool) {
        if joins && let Some(run) = self.plan.runs.last_mut() {
            run.bytes = slot_offset + bytes - run.slot_offset;
        } else {
            self.plan.runs.push(Run {
                region: place,
                slot_offset,
                bytes,
            });
            let chunk = self.plan.chunks.last_mut().expect("a chunk is open");
            chunk.runs.1 += 1;
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
        let mut slotted = slotted.iter();
        for number in first..self.chunks.len() {
            let chunk = &self.chunks[number];
            let scattered = chunk.route == Route::Gathered && !forced;
            let begins = |segment: &&Segment| segment.offset == 0;
            let begun = self.segments(chunk).iter().filter(begins).count();
            for &(index, route, why) in slotted.by_ref().take(begun) {
                let (route, why) = if scattered {
                    (Route::Gathered, Why::Scattered)
                } else {
                    (route, why)
                };
                self.tally(route, why, leaves[index as usize].bytes);
            }
        }
    }

    fn tally(&mut self, route: Route, why: Why, bytes: u64) {
        // Most go as the one before.
        let known = self
            .tallies
            .iter_mut()
            .rev()
            .find(|tally| tally.route == route && tally.why == why);
        match known {
            Some(tally) => {
                tally.leaves += 1;
                tally.bytes += bytes;
            }
            None => self.tallies.push(Tally {
                route,
                why,
                leaves: 1,
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

    fn predict(&self, profile: &Profile) -> Duration {
        if self.chunks.is_empty() {
            return Duration::ZERO;
        }
        let (mut slotted, mut first, mut plain) = (0, 0, 0);
        let mut blocked = 0;
        for chunk in &self.chunks {
            if chunk.is_staged() {
                slotted += chunk.bytes;
                first = if first == 0 { chunk.bytes } else { first };
            } else if chunk.route == Route::Plain {
                plain += chunk.bytes as u64;
                blocked += self.segments(chunk).len();
            }
        }
        let calls: usize = self.chunks.iter().map(|chunk| self.calls(chunk)).sum();
        let lanes = if self.inline { 1 } else { self.pace.lanes };
        let link = (self.bytes - plain) as f64 / profile.link_bytes_per_second;
        let fill = slotted as f64 / (profile.memcpy_bytes_per_second * lanes as f64);
        let ramp = first as f64 / profile.memcpy_bytes_per_second;
        let calls = calls as f64 * profile.copy_call.as_secs_f64();
        // The driver stages by itself, one tensor after the other; towards the host each call waits for the device.
        let plain = plain as f64 / profile.plain_bytes_per_second;
        let blocked = match self.direction {
            Direction::ToHost => blocked as f64 * profile.latency.as_secs_f64(),
            Direction::ToDevice | Direction::OnDevice => 0.0,
        };
        let seconds = ramp + link.max(fill).max(calls) + plain + blocked;
        // A rate next to nothing makes it longer than a duration can be.
        profile
            .latency
            .saturating_add(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// How many pieces of work the device is given for a chunk.
    fn calls(&self, chunk: &Chunk) -> usize {
        match chunk.route {
            Route::Gathered => 1,
            Route::Staged | Route::Packed => self.runs(chunk).len(),
            Route::Direct | Route::Plain => self.segments(chunk).len(),
        }
    }
}
