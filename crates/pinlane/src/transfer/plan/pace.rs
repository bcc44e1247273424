//! What follows from a transfer's size: how many lanes share it, how long its chunks are, how slots are filled.
//!
//! A long chunk is worth its calls: each costs the link 2.7 microseconds on an H200, and a lane that has one is left alone
//! for longer. But the link waits until the first chunk is filled, and a caller until the last is emptied. So chunks begin
//! short and double with each round of the lanes, or, towards the host, end so. At the other end they are half as long: there
//! lanes should finish together.

use std::time::Duration;

use super::{Direction, Means};
use crate::{
    Profile,
    memory::{copying::Stores, slots::Reuse},
};

/// The shortest chunk: below, a copy's call costs more than its bytes.
const SHORTEST: usize = 256 << 10;
/// A transfer is cut into about so many chunks, where slots are long enough.
const CHUNKS: u64 = 12;
/// Bytes for which it pays to wake one more lane.
const BYTES_PER_LANE: u64 = 512 << 10;
/// In a long transfer the other lanes keep the link busy meanwhile, so a lane that waits sleeps soon: after this part of the
/// patience that a caller has, which is longer where what it waits for is a copy and not its turn on the link.
const WHILE_OTHERS_FILL: u32 = 1024;
const WHILE_OTHERS_EMPTY: u32 = 256;
/// How many slots of a lane fly while it fills another, in a long transfer.
const FLYING: usize = 2;
/// Up to here a transfer is over before it pays to let a lane sleep.
const SHORT_TRANSFER: u64 = 64 << 20;

/// How a transfer of one size goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Lanes that share it, the caller's thread among them where it takes part.
    pub(crate) lanes: usize,
    /// The longest chunk.
    chunk_bytes: usize,
    /// The chunks where nothing overlaps: the first ones to the device, the last ones to the host.
    shortest: usize,
    /// The bytes in a round of those, as a power of two.
    round: u32,
    /// Whether those are the last ones.
    mirrored: bool,
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
        let most = most_lanes(means.lanes, direction, means.fresh);
        let lanes = lanes_for(bytes, most);
        let even = usize::try_from(bytes / CHUNKS)
            .unwrap_or(usize::MAX / 2)
            .next_power_of_two();
        let chunk_bytes = even.max(SHORTEST).min(means.slot_bytes);
        let shortest = SHORTEST.min(chunk_bytes);
        Self {
            lanes,
            chunk_bytes,
            shortest,
            round: (shortest * lanes).next_power_of_two().ilog2(),
            mirrored: direction == Direction::ToHost,
            stores: stores(bytes, direction, profile),
            // Slots towards the host don't fly: lanes empty them.
            reuse: if short || direction == Direction::ToHost {
                Reuse::WHEN_EMPTY
            } else {
                Reuse {
                    most_flying: FLYING,
                    patience: profile.patience / WHILE_OTHERS_FILL,
                }
            },
            patience: if short {
                profile.patience
            } else {
                profile.patience / WHILE_OTHERS_EMPTY
            },
            bytes,
        }
    }

    /// All in one chunk that nobody fills or empties.
    pub(crate) fn whole(bytes: u64, means: &Means<'_>) -> Self {
        Self {
            lanes: 1,
            chunk_bytes: means.slot_bytes,
            shortest: means.slot_bytes,
            round: u64::BITS - 1,
            mirrored: false,
            stores: Stores::Cached,
            reuse: Reuse::WHEN_EMPTY,
            patience: means.profile.patience,
            bytes,
        }
    }

    /// How long the chunk may be that begins where `done` bytes are planned.
    #[inline]
    pub(crate) fn chunk_bytes(&self, done: u64) -> usize {
        let left = self.bytes.saturating_sub(done);
        let (from_the_short_end, from_the_other) = if self.mirrored { (left, done) } else { (done, left) };
        let rounds = ((from_the_short_end >> self.round) + 1).ilog2();
        let doubled = self.shortest << rounds.min(self.chunk_bytes.ilog2());
        let near_the_other = (from_the_other >> self.round) < (self.chunk_bytes / self.shortest / 2) as u64;
        let most = if near_the_other {
            (self.chunk_bytes / 2).max(self.shortest)
        } else {
            self.chunk_bytes
        };
        doubled.min(most)
    }
}

/// How many of a direction's lanes may share a transfer. The more read what the link has just written, the less of it is still
/// in the caches; into fresh memory they wait for the kernel's pages.
pub(crate) fn most_lanes(lanes: usize, direction: Direction, fresh: bool) -> usize {
    match direction {
        Direction::ToHost if !fresh => lanes.div_ceil(2),
        Direction::ToHost | Direction::ToDevice | Direction::OnDevice => lanes,
    }
}

/// How many lanes share so many bytes, of `most` that may.
pub(crate) fn lanes_for(bytes: u64, most: usize) -> usize {
    usize::try_from(bytes / BYTES_PER_LANE)
        .unwrap_or(usize::MAX)
        .clamp(1, most.max(1))
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

#[cfg(test)]
mod tests {
    use pinlane_driver::sim::{Machine, MachineConfig};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn profile() -> Profile {
        let machine = Machine::new(MachineConfig::default());
        Profile::assumed(machine.device(0).unwrap().properties())
    }

    fn means(profile: &Profile, lanes: usize, slot_bytes: usize) -> Means<'_> {
        Means {
            profile,
            lanes,
            slot_bytes,
            simulated: false,
            lent: false,
            fresh: false,
            short: false,
            behind_event: false,
            scatter: None,
        }
    }

    /// The chunks that a transfer in one piece is cut into.
    fn chunks(pace: &Pace, bytes: u64) -> Vec<u64> {
        let mut done = 0;
        std::iter::from_fn(|| {
            let chunk = (pace.chunk_bytes(done) as u64).min(bytes - done);
            done += chunk;
            (chunk > 0).then_some(chunk)
        })
        .collect()
    }

    proptest! {
        #[test]
        fn chunks_are_no_longer_than_a_slot_and_carry_every_byte(
            bytes in 1_u64..4 << 30,
            lanes in 1_usize..40,
            pages in 1_usize..4096,
            to_host: bool,
        ) {
            let (profile, slot_bytes) = (profile(), pages * 4096);
            let direction = if to_host { Direction::ToHost } else { Direction::ToDevice };
            let pace = Pace::new(bytes, direction, &means(&profile, lanes, slot_bytes));
            let chunks = chunks(&pace, bytes.min(slot_bytes as u64 * 10_000));
            prop_assert!(chunks.iter().all(|&chunk| chunk <= slot_bytes as u64));
            prop_assert_eq!(chunks.iter().sum::<u64>(), bytes.min(slot_bytes as u64 * 10_000));
            prop_assert!((1..=lanes).contains(&pace.lanes));
        }
    }

    #[test]
    fn chunks_begin_short_and_double_and_towards_the_host_end_so() {
        let (profile, gib) = (profile(), 1_u64 << 30);
        let means = means(&profile, 8, 4 << 20);
        let there = chunks(&Pace::new(gib, Direction::ToDevice, &means), gib);
        let back = chunks(&Pace::new(gib, Direction::ToHost, &means), gib);
        let kib = |chunk: u64| chunk >> 10;
        assert_eq!(
            [0, 8, 16, 24, 40].map(|index| kib(there[index])),
            [256, 512, 1024, 2048, 4096]
        );
        let middle = there.iter().filter(|&&chunk| kib(chunk) == 4096).count();
        assert!(
            middle as u64 * 4 > 7 * (gib >> 20) / 8,
            "most are as long as a slot: {there:?}"
        );
        assert_eq!(kib(back[0]), 2048);
        let end = &back[back.len() - 12..];
        assert!(end.is_sorted_by(|a, b| a >= b), "{back:?}");
        assert_eq!((kib(end[0]), kib(end[11])), (2048, 256));
    }
}
