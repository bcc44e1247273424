//! A thousand rounds of what must never go wrong: memory that is used again while a copy still reads or writes it.
//!
//! Each round sends trees to the device and back behind a stream that is busy for a while, so that copies are late for
//! sure. Meanwhile whatever could be used again is, and is filled with poison: sources whose tensors are dropped poison
//! themselves when they are freed, the pinned pool's free ranges and the device's freed blocks are taken and overwritten,
//! slots are too few for all chunks. Some transfers are dropped in flight, some land in tensors that exist and are full of
//! poison. All that lands is compared byte for byte.
//!
//! A round is a function of its number; a failure names it.

mod bytes;
mod round;
mod sources;

use std::thread;

use pinlane::{DeviceOptions, Profile};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{rig, rig::Rig};
use round::Round;

const ROUNDS: u64 = 1000;
/// After so many rounds an engine gives way to one that is set up otherwise.
const ROUNDS_OF_AN_ENGINE: u64 = 50;

pub(crate) fn what_is_used_again_under_a_stalled_stream_never_shows_in_a_result() {
    for first in (0..ROUNDS).step_by(ROUNDS_OF_AN_ENGINE as usize) {
        let rig = engine(first);
        for number in first..first + ROUNDS_OF_AN_ENGINE {
            let named = NamedOnPanic(number);
            Round::new(&rig, number).run();
            drop(named);
        }
        rig.finish();
    }
}

/// Says in which round a panic happened, be it of an assertion or of the engine.
struct NamedOnPanic(u64);

impl Drop for NamedOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this was round {} of {ROUNDS}", self.0);
        }
    }
}

/// An engine for the rounds from `first` on: the first as the hardware suggests, the others with few, short slots.
fn engine(first: u64) -> Rig {
    if first == 0 {
        return rig(&DeviceOptions::default());
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(first);
    let probe = rig(&DeviceOptions::default());
    let mut profile = Profile::assumed(probe.device().driver().unwrap().properties());
    if random.random_bool(0.5) {
        // All that needs a slot goes through the lanes.
        profile.inline_bytes = 0;
    }
    let (lanes, slots_per_lane) = (random.random_range(1..=4), random.random_range(1..=3));
    let slot_bytes = [4 << 10, 16 << 10, 64 << 10][random.random_range(0..3)];
    rig(&DeviceOptions {
        pinned_budget: Some(2 * lanes * slots_per_lane * slot_bytes + random.random_range(0..2 << 20)),
        lanes: Some(lanes),
        slots_per_lane: Some(slots_per_lane),
        slot_bytes: Some(slot_bytes),
        profile: Some(profile),
    })
}
