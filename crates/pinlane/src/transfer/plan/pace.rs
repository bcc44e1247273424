//! What follows from a transfer's size: how many lanes share it, how long its chunks are, how slots are filled.
//!
//! A long chunk is worth its calls, and a lane that has one is left alone for longer. But the link waits until the first
//! chunk is filled, and a caller until the last is emptied; so chunks are shorter at both ends of a transfer.

use std::time::Duration;

use super::{Direction, Means};
use crate::{
    Profile,
    memory::{copying::Stores, slots::Reuse},
};

/// The shortest chunk: below, a copy's call costs as much as its bytes.
const SHORTEST: usize = 128 << 10;
/// A transfer is cut into about so many chunks, where slots are long enough.
const CHUNKS: u64 = 12;
/// Bytes for which it pays to wake one more lane.
const BYTES_PER_LANE: u64 = 1 << 20;
/// The shortest chunk at either end of a transfer, where its slots are longer.
const SHORTEST_END: usize = 512 << 10;
/// Up to here a transfer is over before more lanes than half are awake.
const SHORT_TRANSFER: u64 = 64 << 20;

/// How a transfer of one size goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Lanes that share it, the caller's thread among them where it takes part.
    pub(crate) lanes: usize,
    /// The longest chunk.
    chunk_bytes: usize,
    /// The chunks at both ends.
    end_bytes: usize,
    /// How many bytes each end has.
    ends: u64,
    /// How slots are filled, or emptied.
    pub(crate) stores: Stores,
    /// When lanes wait for a slot.
    pub(crate) reuse: Reuse,
    /// How long a lane spins for a copy before it sleeps.
    pub(crate) patience: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(bytes: u64, direction: Direction, means: &Means<'_>) -> Self {
        let profile = means.profile;
        let short = bytes <= SHORT_TRANSFER;
        // Lanes that only copy what has landed are of use as soon as they are awake.
        let most = if short && direction != Direction::ToHost {
            means.lanes.div_ceil(2)
        } else {
            means.lanes
        };
        let lanes = usize::try_from(bytes / BYTES_PER_LANE)
            .unwrap_or(usize::MAX)
            .clamp(1, most.max(1));
        let even = usize::try_from(bytes / CHUNKS)
            .unwrap_or(usize::MAX / 2)
            .next_power_of_two();
        let chunk_bytes = even.max(2 * SHORTEST).min(means.slot_bytes);
        let end_bytes = (chunk_bytes / 2).max(SHORTEST_END).min(chunk_bytes);
        Self {
            lanes,
            chunk_bytes,
            end_bytes,
            ends: (end_bytes * lanes) as u64,
            stores: stores(bytes, direction, profile),
            reuse: if short {
                Reuse::WHEN_EMPTY
            } else {
                Reuse {
                    most_flying: lanes,
                    patience: profile.patience / 1024,
                }
            },
            patience: if short {
                profile.patience
            } else {
                profile.patience / 256
            },
            bytes,
        }
    }

    /// All in one chunk that nobody fills or empties.
    pub(crate) fn whole(bytes: u64, means: &Means<'_>) -> Self {
        Self {
            lanes: 1,
            chunk_bytes: means.slot_bytes,
            end_bytes: means.slot_bytes,
            ends: 0,
            stores: Stores::Cached,
            reuse: Reuse::WHEN_EMPTY,
            patience: means.profile.patience,
            bytes,
        }
    }

    /// How long the chunk may be that begins where `done` bytes are planned.
    pub(crate) fn chunk_bytes(&self, done: u64) -> usize {
        let at_an_end = done < self.ends || self.bytes.saturating_sub(done) <= self.ends;
        if at_an_end {
            self.end_bytes
        } else {
            self.chunk_bytes
        }
    }
}

fn stores(bytes: u64, direction: Direction, profile: &Profile) -> Stores {
    let streamed = match direction {
        Direction::ToDevice => bytes > profile.inline_bytes as u64 && bytes <= profile.streamed_up_to,
        Direction::ToHost => bytes > profile.streamed_from,
        Direction::OnDevice => false,
    };
    if streamed {
        Stores::Streamed
    } else {
        Stores::Cached
    }
}
