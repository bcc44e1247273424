//! The choice of a route for each leaf, and the reason that is given for it.

use std::fmt;

use super::{Direction, Kind, Leaf, Means, gathering::Gathering};
use crate::{Error, Result, Route};

/// What drivers take off the caller at once, whatever the device does; longer copies from pageable memory wait for their turn
/// on the device. CUDA takes 64 KiB.
pub(in crate::transfer) const TAKEN_AT_ONCE: u64 = 64 << 10;

/// Why leaves go the way they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Forced,
    AlreadyPinned,
    OnDevice,
    Tiny,
    SmallAmongMany,
    Pageable,
    Strided,
    File,
    Scattered,
    ScatteredPinned,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forced => "the caller asked for this route",
            Self::AlreadyPinned => "already pinned, so the device reads or writes it where it is",
            Self::OnDevice => "device memory, which needs no slot",
            Self::Tiny => "so small that the driver's own way is the shortest",
            Self::SmallAmongMany => "pinned but small: copying them together costs less than a call for each",
            Self::Pageable => {
                "pageable, so it goes through pinned slots while the link carries the chunk before"
            }
            Self::Strided => "strided, so it is gathered while the slot is filled",
            Self::File => "in a file, which slots are read from or written to",
            Self::ScatteredPinned => {
                "pinned and small, so one kernel moves them all from or to where they lie"
            }
            Self::Scattered => {
                "in many pieces on the device, so one kernel moves them all instead of a copy for each"
            }
        })
    }
}

/// Chooses a route for one leaf.
pub(super) struct Choice {
    /// Whether there is no other leaf.
    alone: bool,
    forced: Option<Route>,
    /// What the driver's kernel moves, if it has one.
    gathering: Option<Gathering>,
    /// Up to here a leaf that is alone goes the driver's own way.
    plain_bytes: u64,
    /// Below this size a pinned leaf is packed with others.
    direct_bytes: u64,
}

impl Choice {
    pub(super) fn new(
        direction: Direction,
        alone: bool,
        forced: Option<Route>,
        gathering: Option<Gathering>,
        means: &Means<'_>,
    ) -> Self {
        let plain_bytes = means.profile.plain_bytes as u64;

        Self {
            alone,
            forced,
            gathering,
            // To the host the driver's own way waits for each copy, and faults pages in while the link waits.
            plain_bytes: match direction {
                Direction::ToDevice if means.behind_event => plain_bytes.min(TAKEN_AT_ONCE),
                Direction::ToDevice => plain_bytes,
                Direction::ToHost | Direction::OnDevice => 0,
            },
            direct_bytes: means.profile.direct_bytes(),
        }
    }

    /// Refuses a leaf that can't go by the route that was asked for.
    #[inline]
    pub(super) fn check(&self, leaf: &Leaf) -> Result<()> {
        match self.forced {
            Some(route) => self.allowed(route, leaf.kind),
            None => Ok(()),
        }
    }

    /// The way `leaf` goes, and why.
    #[inline]
    pub(super) fn route(&self, leaf: &Leaf) -> (Route, Why) {
        if let Some(route) = self.forced {
            return (route, Why::Forced);
        }
        match leaf.kind {
            Kind::Device => (Route::Direct, Why::OnDevice),
            Kind::Pinned if self.gathering.is_some_and(|gathering| gathering.takes(leaf)) => {
                (Route::Gathered, Why::ScatteredPinned)
            }
            Kind::Pinned if leaf.bytes < self.direct_bytes && !self.alone => {
                (Route::Packed, Why::SmallAmongMany)
            }
            Kind::Pinned => (Route::Direct, Why::AlreadyPinned),
            Kind::Pageable if self.alone && leaf.bytes <= self.plain_bytes => (Route::Plain, Why::Tiny),
            Kind::Pageable => (Route::Packed, Why::Pageable),
            Kind::Strided => (Route::Packed, Why::Strided),
            Kind::File { .. } => (Route::Packed, Why::File),
        }
    }

    fn allowed(&self, route: Route, kind: Kind) -> Result<()> {
        let reason = match (route, kind) {
            (Route::Direct, Kind::Pageable | Kind::Strided | Kind::File { .. }) => {
                "the host's end is not one piece of pinned memory; pin it first, or use staged"
            }
            (Route::Plain, Kind::Strided) => "the driver copies one piece; make it contiguous, or use staged",
            (Route::Plain, Kind::File { .. }) => "the driver reads no files; use staged",
            (Route::Staged | Route::Packed | Route::Gathered | Route::Plain, Kind::Device) => {
                "both ends are on devices; only direct goes there"
            }
            (Route::Gathered, _) if self.gathering.is_none() => {
                "the driver has no kernel that moves scattered pieces; use packed"
            }
            _ => return Ok(()),
        };
        Err(Error::Route { route, reason })
    }
}
