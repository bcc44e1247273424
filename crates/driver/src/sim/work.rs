//! What an engine is given to do.

use std::time::Duration;

use super::{allocations::Block, arena::Key, convert::Elements, scatter::Piece};
use crate::sync::{Arc, Instant};

/// What one end of a copy is, and so what is held while the copy is enqueued.
#[derive(Clone, Debug)]
pub(super) enum Home {
    /// Memory of the device with this ordinal.
    Device(usize),
    /// Pinned host memory.
    Pinned,
    /// A piece of the driver's own memory, kept alive by the work itself, and the device whose spare it becomes.
    Bounce(usize, Arc<Block>),
}

/// One end of a copy.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) ptr: *mut u8,
    pub(super) home: Home,
}

impl End {
    pub(super) fn address(&self) -> usize {
        self.ptr.addr()
    }
}

// SAFETY: an end is the name of memory that outlives the work: the simulator keeps device and bounce memory mapped
// while work holds it, and `Driver::copy`'s caller keeps host memory valid until the work is done. Whichever thread
// reads or writes it does so through raw pointers only.
unsafe impl Send for End {}

/// Which way a copy goes, and so which engine runs it and whether the link's rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Host to device.
    Up,
    /// Device to host.
    Down,
    /// Within a device, or between two.
    Across,
}

/// One piece of work.
#[derive(Debug)]
pub(super) enum Work {
    Copy {
        dst: End,
        src: End,
        bytes: usize,
        direction: Direction,
    },
    Scatter {
        table: End,
        pieces: Vec<Piece>,
    },
    Fill {
        dst: End,
        value: u8,
        bytes: usize,
    },
    Convert(Elements),
    Busy(Duration),
}

/// What the fault plan has in store for one piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    Fails,
    Late(Duration),
}

/// Work, and where it stands in its stream.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) stream: Key,
    pub(super) work: Work,
    pub(super) mishap: Option<Mishap>,
    /// When the device could have started on it: what the link's rate and the events' times are reckoned from.
    pub(super) ready_at: Instant,
}
