//! The figures that pinlane is held to: one function for each, in a file by what it measures.

mod both_ways;
mod judge;
mod over_grid;
mod pinned_any;
mod pinned_peak;
mod pool_ready;
mod processor_time;
mod to_device;
mod to_host;
mod tracing;

use pinlane::HostMemory;

use crate::{
    cell::{Cell, Direction, Memory},
    error::Result,
    grid::CellReport,
    link::LinkLimit,
    peers::Peers,
    rig::Rig,
    rounds::{Effort, race},
    ways::{PlainCall, Sources},
};
use judge::Draft;
pub use judge::{Figure, Unit};

/// What the figures measure with.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The device and the bytes.
    pub rig: &'a Rig,
    /// The link's limit, of this run.
    pub link: &'a LinkLimit,
    /// Peers that were measured elsewhere.
    pub peers: &'a Peers,
    /// How long to measure each.
    pub effort: Effort,
    /// How large the work is.
    pub scale: Scale,
    /// The bytes that `pinned-peak` moves.
    pub peak_bytes: u64,
}

/// What sizes are divided by: 1 on hardware; a simulated device, whose figures mean nothing, moves less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale(pub usize);

impl Scale {
    /// A size, in whole pages.
    #[must_use]
    pub fn bytes(self, bytes: usize) -> usize {
        match self.0 {
            1 => bytes,
            divisor => (bytes / divisor).next_multiple_of(4096),
        }
    }

    /// What to say of it.
    #[must_use]
    pub fn note(self) -> Option<String> {
        (self.0 != 1).then(|| format!("{SCALED}{} of the size", self.0))
    }
}

/// What the note of a scale begins with.
const SCALED: &str = "simulated device, 1/";

impl Figure {
    /// What was said of its scale, where its work was smaller than its name says.
    #[must_use]
    pub fn scale_note(&self) -> Option<&str> {
        let note = self.detail.split("; ").next()?;
        note.starts_with(SCALED).then_some(note)
    }
}

/// A figure that can be measured.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name.
    pub id: &'static str,
    /// What work it is of, for people.
    pub about: &'static str,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// Measured by itself, with work in the scale of the context.
    Alone(fn(&Context<'_>) -> Result<Draft>),
    /// Measured by itself, with the same work everywhere.
    Whole(fn(&Context<'_>) -> Result<Draft>),
    /// Follows from the cells of the grid, of which there are so many.
    OverGrid(fn(&[CellReport], usize) -> Option<Draft>),
}

/// All figures, in their usual order.
pub const ALL: &[Spec] = &[
    alone(
        "h2d-pageable-1gib",
        "1 GiB, pageable to device",
        to_device::pageable_1gib,
    ),
    alone(
        "h2d-tree-100x1m",
        "100 x 1M floats, pageable to device",
        to_device::tree_100x1m,
    ),
    alone(
        "h2d-pageable-16mib",
        "16 MiB, pageable to device",
        to_device::pageable_16mib,
    ),
    whole(
        "h2d-small-1000",
        "1000 tensors of 1000 floats, pageable to device",
        to_device::small_1000,
    ),
    whole(
        "d2h-small-1000",
        "1000 tensors of 1000 floats, each allocated by itself, device to host",
        to_host::small_1000,
    ),
    alone(
        "d2h-pinned-1gib",
        "1 GiB, device to pinned memory of the pool",
        to_host::pinned_1gib,
    ),
    alone(
        "d2h-warm-1gib",
        "1 GiB, device to touched pageable memory",
        to_host::warm_1gib,
    ),
    alone(
        "d2h-fresh-1gib",
        "1 GiB, device to fresh pageable memory",
        to_host::fresh_1gib,
    ),
    alone(
        "bidirectional",
        "1 GiB each way at once, pageable",
        both_ways::bidirectional,
    ),
    alone(
        "pinned-any",
        "already pinned, 4 B to 4 GiB: worst of pinlane / the bare copy",
        pinned_any::pinned_any,
    ),
    over_grid(
        "never-slower",
        "worst cell of pinlane / plain",
        over_grid::never_slower,
    ),
    over_grid(
        "regret",
        "worst cell of pinlane's choice / the best route",
        over_grid::regret,
    ),
    over_grid(
        "predict-error",
        "error of the planner's predicted time, median over the cells",
        over_grid::predict_error,
    ),
    alone(
        "pool-ready",
        "a pool of 128 MiB made ready",
        pool_ready::pool_ready,
    ),
    alone(
        "cpu-per-gb",
        "processor time for each GB moved, beside a memcpy's",
        processor_time::cpu_per_gb,
    ),
    alone(
        "trace-on",
        "transfers while a trace is taken, worst of five: with / without",
        tracing::trace_on,
    ),
    alone(
        "pinned-peak",
        "pinned memory while much is moved",
        pinned_peak::pinned_peak,
    ),
];

const fn alone(id: &'static str, about: &'static str, work: fn(&Context<'_>) -> Result<Draft>) -> Spec {
    Spec {
        id,
        about,
        work: Work::Alone(work),
    }
}

const fn whole(id: &'static str, about: &'static str, work: fn(&Context<'_>) -> Result<Draft>) -> Spec {
    Spec {
        id,
        about,
        work: Work::Whole(work),
    }
}

const fn over_grid(
    id: &'static str,
    about: &'static str,
    work: fn(&[CellReport], usize) -> Option<Draft>,
) -> Spec {
    Spec {
        id,
        about,
        work: Work::OverGrid(work),
    }
}

impl Spec {
    /// Whether it follows from the cells of the grid.
    #[must_use]
    pub fn needs_grid(&self) -> bool {
        matches!(self.work, Work::OverGrid(_))
    }

    /// Measures and judges it; `None` where it follows from cells.
    ///
    /// # Errors
    ///
    /// [`Error::WrongBytes`](crate::Error::WrongBytes), and what the engine and the driver say.
    pub fn measure(&self, context: &Context<'_>) -> Result<Option<Figure>> {
        let (work, note) = match self.work {
            Work::Alone(work) => (work, context.scale.note()),
            Work::Whole(work) => (work, None),
            Work::OverGrid(_) => return Ok(None),
        };
        let mut draft = work(context)?;
        if let Some(note) = note {
            let parts = [note, draft.detail];
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            draft.detail = parts.join("; ");
        }
        Ok(Some(draft.judge(self.id)))
    }

    /// Judges it by cells, of which there are `planned` in the whole grid; `None` where it does not follow from any.
    #[must_use]
    pub fn over(&self, cells: &[CellReport], planned: usize) -> Option<Figure> {
        match self.work {
            Work::OverGrid(work) => Some(work(cells, planned)?.judge(self.id)),
            Work::Alone(_) | Work::Whole(_) => None,
        }
    }
}

/// The work of the figures, as cells.
pub(crate) mod work {
    use super::{Cell, Direction, Memory, Scale};

    pub(crate) fn one_gib(direction: Direction, memory: Memory, scale: Scale) -> Cell {
        Cell {
            direction,
            memory,
            bytes: scale.bytes(1 << 30),
            count: 1,
        }
    }

    pub(crate) fn one_of_16_mib(scale: Scale) -> Cell {
        Cell {
            bytes: scale.bytes(16 << 20),
            ..one_gib(Direction::H2d, Memory::Pageable, scale)
        }
    }

    pub(crate) fn hundred_of_1m_floats(scale: Scale) -> Cell {
        Cell {
            bytes: scale.bytes(4_000_000),
            count: 100,
            ..one_gib(Direction::H2d, Memory::Pageable, scale)
        }
    }

    pub(crate) fn thousand_of_1000_floats(direction: Direction) -> Cell {
        Cell {
            direction,
            memory: Memory::Pageable,
            bytes: 4000,
            count: 1000,
        }
    }

    /// What is moved while a trace is taken: long and short, by lanes and by the caller.
    pub(crate) fn traced(scale: Scale) -> [Cell; 5] {
        let (h2d, pageable) = (Direction::H2d, Memory::Pageable);
        let one = |memory, bytes| Cell {
            bytes: scale.bytes(bytes),
            ..one_gib(h2d, memory, scale)
        };
        [
            one(pageable, 256 << 20),
            one(pageable, 16 << 20),
            one(Memory::Pinned, 16 << 20),
            thousand_of_1000_floats(h2d),
            one(pageable, 4096),
        ]
    }

    /// One tensor of each power of 4 from 4 B to 4 GiB, pinned.
    pub(crate) fn pinned_of_any_size(direction: Direction, scale: Scale) -> impl Iterator<Item = Cell> {
        let largest = scale.bytes(4 << 30);
        let sizes = (1..=16).map(|power| 4_usize.pow(power));
        sizes
            .take_while(move |bytes| *bytes <= largest)
            .map(move |bytes| Cell {
                direction,
                memory: Memory::Pinned,
                bytes,
                count: 1,
            })
    }

    /// The cells that an arena has to hold.
    pub(crate) fn all(scale: Scale) -> [Cell; 3] {
        [
            Cell {
                bytes: scale.bytes(4 << 30),
                ..one_gib(Direction::H2d, Memory::Pinned, scale)
            },
            hundred_of_1m_floats(scale),
            thousand_of_1000_floats(Direction::H2d),
        ]
    }
}

/// The median seconds of pinlane's own choice and of the plain way, bytes checked.
fn race_plain(context: &Context<'_>, sources: &Sources<'_>, plain: PlainCall) -> Result<(f64, f64)> {
    let ways = vec![sources.pinlane(), sources.plain(plain)];
    let check = |way: &str, landed| context.rig.check(sources, way, landed);
    let timings = race(ways, context.effort, check)?;
    Ok((timings[0].seconds, timings[1].seconds))
}

/// While it lives, the engine keeps no pageable memory for later results: they lie in fresh pages.
struct NothingKept {
    limit: usize,
}

impl NothingKept {
    fn new() -> Self {
        let limit = HostMemory::kept_limit();
        HostMemory::set_kept_limit(0);
        Self { limit }
    }
}

impl Drop for NothingKept {
    fn drop(&mut self) {
        HostMemory::set_kept_limit(self.limit);
    }
}

/// The names of all figures, for people.
#[must_use]
pub fn names() -> String {
    let names: Vec<_> = ALL.iter().map(|spec| spec.id).collect();
    names.join(", ")
}
