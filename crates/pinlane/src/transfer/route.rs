//! How a chunk goes.

use std::fmt;

/// How bytes get from here to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// Straight from or into memory that the device reaches by itself: pinned host memory, its own, a peer's.
    Direct,
    /// One tensor, or a part of one, through a pinned slot.
    Staged,
    /// Many tensors through one pinned slot.
    Packed,
    /// Many pieces by one kernel, which reads and writes pinned memory by itself, instead of a copy for each: tensors in
    /// pinned memory where they lie, others through a slot as when packed.
    Gathered,
    /// Pageable memory handed to the driver as it is, which blocks the caller: what torch does.
    Plain,
}

impl Route {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::Direct,
        Self::Staged,
        Self::Packed,
        Self::Gathered,
        Self::Plain,
    ];
}

impl Route {
    /// The route's name, in one word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Staged => "staged",
            Self::Packed => "packed",
            Self::Gathered => "gathered",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the tensors of a tree land.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// All in one allocation, each aligned to 256 bytes. One tensor that is kept keeps the whole allocation.
    #[default]
    Slab,
    /// Each in an allocation of its own.
    Separate,
}
