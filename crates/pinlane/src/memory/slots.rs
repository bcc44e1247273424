//! The slots of a device: equal pieces of pinned memory that lanes fill (to the device) or empty (from it).
//!
//! All lanes share one set, made whole at the first copy that needs it: on the hot path nothing is pinned.
//!
//! | state of a slot | who has it | who moves it on |
//! | --- | --- | --- |
//! | free | the set | a lane: [`Slots::acquire`] |
//! | held | one lane, which fills or empties it | that lane: [`Slots::put_back`] or [`Slots::put_flying`] |
//! | flying | the set, with the event after which the device no longer uses it | [`Slots::acquire`], which waits for the event |
//! | lost | nobody, for ever: the device is gone and may still use it | - |

use std::{collections::VecDeque, ptr::NonNull};

use pinlane_driver::{
    ErrorKind,
    sync::{Arc, Condvar, Mutex, lock, wait},
};

use super::pool::{PinnedLease, PinnedPool};
use crate::{Error, Result, transfer::mark::Mark};

/// Pinned memory of [`Slots::slot_bytes`] bytes that one lane holds.
#[derive(Debug)]
pub(crate) struct Slot {
    ptr: NonNull<u8>,
}

// SAFETY: a slot is the only name of its piece of the lease, and moves between lanes by value.
unsafe impl Send for Slot {}

impl Slot {
    /// The first byte.
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

/// The slots of one device.
#[derive(Debug)]
pub(crate) struct Slots {
    pool: Arc<PinnedPool>,
    slot_bytes: usize,
    wanted: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Keeps the memory; `None` until the first use.
    memory: Option<PinnedLease>,
    /// Slots that exist and are not lost.
    alive: usize,
    lost: usize,
    free: Vec<Slot>,
    flying: VecDeque<(Slot, Arc<Mark>)>,
    /// Who has to wait draws a number, and goes when it is its turn: a lane that needs slot after slot would otherwise
    /// overtake whoever is slower to wake up.
    next_number: u64,
    turn: u64,
}

impl State {
    /// Whether every slot is held by someone.
    fn is_exhausted(&self) -> bool {
        self.free.is_empty() && self.flying.is_empty() && self.alive > 0
    }
}

impl Slots {
    /// Sets the budget's share for `wanted` slots aside; nothing is pinned yet.
    pub(crate) fn new(pool: &Arc<PinnedPool>, slot_bytes: usize, wanted: usize) -> Self {
        pool.reserve(slot_bytes * wanted);
        Self {
            pool: Arc::clone(pool),
            slot_bytes,
            wanted,
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// The size of each, in bytes.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// How many there are at most.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Bytes of slots that a lost device may still use.
    pub(crate) fn lost_bytes(&self) -> usize {
        lock(&self.state).lost * self.slot_bytes
    }

    /// A slot that nobody uses: a free one, or one that was flying, once it has landed.
    ///
    /// With `may_block` false, returns `None` where every slot is held by some lane, or others are waiting already; the
    /// caller, who holds some itself, must put one back first.
    pub(crate) fn acquire(&self, may_block: bool) -> Result<Option<Slot>> {
        let mut state = lock(&self.state);
        if state.memory.is_none() {
            self.make(&mut state)?;
        }
        if may_block {
            let number = state.next_number;
            state.next_number += 1;
            while state.turn != number || state.is_exhausted() {
                state = wait(&self.returned, state);
            }
            state.turn += 1;
            if state.turn != state.next_number {
                self.returned.notify_all();
            }
        } else if state.turn != state.next_number || state.is_exhausted() {
            return Ok(None);
        }
        if let Some(slot) = state.free.pop() {
            return Ok(Some(slot));
        }
        // One that has landed already, for streams move at their own pace; else the one that has been flying longest.
        let landed = state.flying.iter().position(|(_, mark)| mark.is_reached());
        let Some((slot, mark)) = state.flying.remove(landed.unwrap_or(0)) else {
            return Err(Error::SlotsLost {
                bytes: state.lost * self.slot_bytes,
            });
        };
        drop(state);
        let _span = tracing::debug_span!("wait", bytes = self.slot_bytes).entered();
        let landed = mark.settle();
        match landed.map_err(|error| Error::waiting("waiting for a slot to come free", error)) {
            Ok(()) => Ok(Some(slot)),
            Err(error) if error.leaves_memory_in_use() => {
                self.lose(slot);
                Err(error)
            }
            // What failed was another transfer's copy, and that transfer reports it. It no longer uses the slot.
            Err(_) => Ok(Some(slot)),
        }
    }

    /// Returns a slot that the device does not use.
    pub(crate) fn put_back(&self, slot: Slot) {
        lock(&self.state).free.push(slot);
        self.returned.notify_all();
    }

    /// Returns a slot that the device reads until `mark` is reached.
    pub(crate) fn put_flying(&self, slot: Slot, mark: Arc<Mark>) {
        lock(&self.state).flying.push_back((slot, mark));
        self.returned.notify_all();
    }

    /// Gives up a slot that a lost device may still use.
    pub(crate) fn lose(&self, _slot: Slot) {
        let mut state = lock(&self.state);
        state.alive -= 1;
        state.lost += 1;
        // Whoever waits may be waiting for the last one.
        self.returned.notify_all();
    }

    /// Pins the memory, or as much of it as the host allows, and cuts it into slots.
    fn make(&self, state: &mut State) -> Result<()> {
        let mut count = self.wanted;
        let memory = loop {
            match self.pool.lease_reserved(count * self.slot_bytes) {
                Ok(memory) => break memory,
                Err(error) if count == 1 => return Err(error),
                Err(error) => {
                    tracing::warn!(slots = count, slot_bytes = self.slot_bytes, %error, "trying with half the slots");
                    count /= 2;
                }
            }
        };
        self.pool.unreserve((self.wanted - count) * self.slot_bytes);
        let cut = |index: usize| Slot {
            // SAFETY: each slot is its own piece of the lease, inside it.
            ptr: unsafe { memory.ptr().add(index * self.slot_bytes) },
        };
        state.free.extend((0..count).map(cut));
        state.alive = count;
        state.memory = Some(memory);
        Ok(())
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        for (_, mark) in std::mem::take(&mut state.flying) {
            if mark
                .settle()
                .is_err_and(|error| error.kind() != ErrorKind::CopyFailed)
            {
                state.alive -= 1;
                state.lost += 1;
            }
        }
        if state.lost > 0 {
            std::mem::forget(state.memory.take());
        }
    }
}
