//! The planner: decides before a byte moves how every byte will go. Pure: the same request gives the same plan.
//!
//! A request is a list of *leaves* (bytes, and what kind of memory they lie in). The plan gives
//! - where each leaf lies on the device: *regions* of one or several allocations;
//! - *chunks*, the unit of work: at most one slot of bytes, or a batch of direct copies;
//! - *segments*, the part of a leaf that a chunk carries, and *runs*, the copies between slot and device. Segments that
//!   are neighbours on the device share a run: a slab of a thousand tensors is one DMA for each chunk.

mod build;
mod choice;
mod explanation;
mod gathering;
mod pace;
mod packing;
mod placing;
mod prediction;
mod workload;

use std::{fmt, time::Duration};

use super::{Placement, Route};
use crate::{memory::list::List, units};
pub(crate) use build::{Means, plan};
pub(super) use choice::TAKEN_AT_ONCE;
use choice::Why;
pub use explanation::{Alternative, Explanation};
pub(crate) use pace::{Pace, lanes_for, most_lanes};
pub use workload::{HostEnd, Workload};

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Direction {
    /// From the host to a device.
    ToDevice,
    /// From a device to the host.
    ToHost,
    /// Between devices, or within one.
    OnDevice,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ToDevice => "to the device",
            Self::ToHost => "to the host",
            Self::OnDevice => "between devices",
        })
    }
}

/// The kind of memory at the end of a copy that is not the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Host memory that the device reaches by itself, elements in one piece.
    Pinned,
    /// Host memory in one piece that it doesn't.
    Pageable,
    /// Host memory whose elements have to be gathered.
    Strided,
    /// A file, whose bytes begin so far into a page of it.
    File { into_page: u16 },
    /// Device memory.
    Device,
}

/// One tensor to move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    pub(crate) bytes: u64,
    pub(crate) kind: Kind,
}

/// Where a leaf lies on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) allocation: u32,
    pub(crate) offset: u64,
}

/// Where leaves lie on the device: to be laid out, or given.
pub(crate) enum Regions {
    Lay(Placement),
    Given(List<Region>),
    /// Given, and what lies between neighbours in one allocation is nobody's, so that it may be written.
    Padded(List<Region>),
}

/// The part of a leaf that a chunk carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) leaf: u32,
    /// Where the part begins in the leaf.
    pub(crate) offset: u64,
    /// Where it lies in the slot; 0 where there is none.
    pub(crate) slot_offset: usize,
    pub(crate) bytes: usize,
}

/// One copy between a slot and the device: a DMA, or a part of what a kernel moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) region: Region,
    pub(crate) slot_offset: usize,
    pub(crate) bytes: usize,
}

/// The unit of work that a lane claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) route: Route,
    pub(crate) bytes: usize,
    /// Where the kernel's table begins in the slot, for a chunk that is gathered: behind the data, if that goes through
    /// the slot at all.
    pub(crate) table_offset: Option<usize>,
    segments: (u32, u32),
    runs: (u32, u32),
}

impl Chunk {
    /// Whether its bytes go through a slot. Those that are gathered from and into pinned memory don't.
    pub(crate) fn is_staged(&self) -> bool {
        self.runs.0 != self.runs.1
    }

    /// Whether it needs a slot, for its bytes or for the kernel's table.
    pub(crate) fn needs_slot(&self) -> bool {
        matches!(self.route, Route::Staged | Route::Packed | Route::Gathered)
    }
}

/// Leaves that go the same way for the same reason.
#[derive(Clone, Debug, PartialEq)]
struct Tally {
    route: Route,
    why: Why,
    leaves: usize,
    bytes: u64,
}

/// How a tree will be moved, and why. Prints itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    direction: Direction,
    leaves: usize,
    bytes: u64,
    pub(crate) allocations: List<u64>,
    pub(crate) regions: List<Region>,
    pub(crate) chunks: Vec<Chunk>,
    segments: List<Segment>,
    runs: List<Run>,
    inline: bool,
    /// Whether a caller who waits has the only tensor go the short way.
    short: bool,
    /// Whether the result stays in the slot that it lands in.
    stays: bool,
    pub(crate) pace: Pace,
    /// The part of the predicted time that the way costs, however much goes by it.
    way: Duration,
    predicted: Duration,
    /// Whether the device only simulates, so that the predicted time is none of its own.
    simulated: bool,
    tallies: Vec<Tally>,
}

impl Plan {
    /// The parts of leaves that a chunk carries.
    pub(crate) fn segments(&self, chunk: &Chunk) -> &[Segment] {
        &self.segments[chunk.segments.0 as usize..chunk.segments.1 as usize]
    }

    /// The copies of a chunk that goes through a slot, between that and the device.
    pub(crate) fn runs(&self, chunk: &Chunk) -> &[Run] {
        &self.runs[chunk.runs.0 as usize..chunk.runs.1 as usize]
    }

    /// Which way the bytes go.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// How many bytes move.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many chunks the work is cut into.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// How many chunks go by `route`.
    #[must_use]
    pub fn chunks_by(&self, route: Route) -> usize {
        self.chunks.iter().filter(|chunk| chunk.route == route).count()
    }

    /// Whether the caller's own thread does the work, without lanes.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.inline
    }

    /// Whether `other` would move the same bytes by the same steps, whatever the reasons and the predictions.
    #[must_use]
    pub fn moves_like(&self, other: &Self) -> bool {
        self.direction == other.direction
            && self.allocations == other.allocations
            && self.regions == other.regions
            && self.chunks == other.chunks
            && self.segments == other.segments
            && self.runs == other.runs
            && self.inline == other.inline
            && self.stays == other.stays
            && self.pace == other.pace
    }

    /// Whether the result stays in the slot that it lands in: there is one chunk, and it is not emptied.
    pub(crate) fn stays_in_slot(&self) -> bool {
        self.stays
    }

    /// The same, told as of hardware: for the profile of a machine that is not here, which a simulated device stands in for.
    #[must_use]
    pub fn of_hardware(self) -> Self {
        Self {
            simulated: false,
            ..self
        }
    }

    /// Whether it is one tensor that a caller who waits for it ([`Tree::to`](crate::Tree::to)) has go the short way: by the
    /// driver's calls alone. The predicted time is that of this way. A [`Transfer`](crate::Transfer) that nobody waits for
    /// at once takes `latency` of the profile instead of `short_copy`.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// The time it should take, by the profile.
    #[must_use]
    pub fn predicted(&self) -> Duration {
        self.predicted
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} {}",
            Count(self.leaves as u64, "tensor"),
            Count(self.bytes, "byte"),
            self.direction,
        )?;
        if self.chunks.is_empty() {
            return f.write_str(": nothing to do");
        }
        write!(f, ", {} ", Count(self.chunks.len() as u64, "chunk"))?;
        if self.inline {
            f.write_str("by the caller's thread")?;
        } else {
            write!(f, "by up to {}", Count(self.pace.lanes as u64, "lane"))?;
        }
        write!(f, ", about {}", units::time(self.predicted.as_secs_f64()))?;
        if self.simulated {
            f.write_str(" if the device were no simulated one")?;
        }
        for (place, tally) in self.tallies.iter().enumerate() {
            // Routes that are taken for one reason are told of once.
            let is_alike = |other: &&Tally| other.why == tally.why;
            if self.tallies[..place].iter().any(|before| is_alike(&before)) {
                continue;
            }
            let alike = || self.tallies[place..].iter().filter(is_alike);
            let routes: Vec<String> = alike().map(|tally| tally.route.to_string()).collect();
            write!(
                f,
                "\n  {:<8} {}, {}: {}",
                routes.join(" and "),
                Count(alike().map(|tally| tally.leaves as u64).sum(), "tensor"),
                Count(alike().map(|tally| tally.bytes).sum(), "byte"),
                tally.why
            )?;
        }
        if self.stays {
            f.write_str("\n  the result stays in the pinned memory that it lands in")?;
        }
        if self.short {
            f.write_str("\n  alone and waited for, so it goes the short way: the driver's calls, without lane or event")?;
        }
        Ok(())
    }
}

/// A number of things, for people.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}
