//! The slots of a device: equal pieces of pinned memory that lanes fill (to the device) or empty (from it).
//!
//! All lanes share one set, made whole at the first copy that needs it: on the hot path nothing is pinned.
//!
//! | state of a slot | who has it | who moves it on |
//! | --- | --- | --- |
//! | free | the set | a lane: [`Slots::acquire`] |
//! | held | one lane, which fills or empties it | that lane: [`Slots::put_back`] or [`Slots::put_flying`] |
//! | flying | the set, with the event after which the device no longer uses it | [`Slots::acquire`], which waits for the event |
//! | held back | the same, behind an event of the caller's that had not fired | the same, after all others |
//! | lent | a result that landed in it and stays there, for as long as someone holds the result | [`LentSlot`], when dropped |
//! | lost | nobody, for ever: the device is gone and may still use it | - |

use std::{collections::VecDeque, ptr::NonNull};

use pinlane_driver::{
    ErrorKind, fork,
    sync::{Arc, Condvar, Duration, Mutex, lock, wait},
};

use super::{lease::PinnedLease, pool::PinnedPool, shortage::Shortage};
use crate::{
    Error, Result,
    trace::span::engine_span,
    transfer::mark::{LaneStream, Mark},
};

/// When a lane waits for a slot of its own in flight rather than to take a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reuse {
    /// So many of its own in flight keep the link busy. More need not fit the processor's caches any more, and one that
    /// another lane has filled is still in the caches of that lane's core.
    pub(crate) most_flying: usize,
    /// How long to spin for one in flight before sleeping.
    pub(crate) patience: Duration,
}

impl Reuse {
    /// Only where none is free.
    pub(crate) const WHEN_EMPTY: Self = Self {
        most_flying: usize::MAX,
        patience: Duration::from_micros(50),
    };
}

/// Of how many slots in flight it is asked whether they have landed. Asking takes microseconds, under the lock; the oldest
/// are the likeliest.
const ASKED: usize = 2;

/// Pinned memory of [`Slots::slot_bytes`] bytes that one lane holds.
#[derive(Debug)]
pub(crate) struct Slot {
    ptr: NonNull<u8>,
}

// SAFETY: a slot is the only name of its piece of the lease, and moves between lanes by value.
unsafe impl Send for Slot {}
// SAFETY: no method reads or writes through the pointer.
unsafe impl Sync for Slot {}

impl Slot {
    /// The first byte.
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

/// A slot that holds a result: the set has it back when the last tensor over it is gone.
#[derive(Debug)]
pub(crate) struct LentSlot {
    slots: Arc<Slots>,
    /// `None` only while dropping.
    slot: Option<Slot>,
}

impl LentSlot {
    /// The first byte.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.slot.as_ref().expect("the slot is there until drop").ptr
    }
}

impl Drop for LentSlot {
    fn drop(&mut self) {
        // In a forked child the slot is the parent's, and the lock may be held for ever.
        if let Some(slot) = self.slot.take()
            && !fork::is_child()
        {
            lock(&self.slots.state).lent -= 1;
            self.slots.put_back(slot);
        }
    }
}

/// One slot of so many may be lent: lanes need the others.
const LANES_SHARE: usize = 4;

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
    lent: usize,
    free: Vec<Slot>,
    flying: Flying,
    /// Flying behind an event that had not fired: they may take any time, so nobody waits for one while there are others.
    held_back: Flying,
    /// Who has to wait draws a number, and goes when it is its turn: a lane that needs slot after slot would otherwise
    /// overtake whoever is slower to wake up.
    next_number: u64,
    turn: u64,
}

/// Slots that the device uses until their marks are reached, oldest first.
type Flying = VecDeque<Flight>;

/// A slot in flight.
#[derive(Debug)]
struct Flight {
    slot: Slot,
    mark: Arc<Mark>,
}

impl State {
    /// Whether there is nothing to take but slots that are held back, while someone holds another and will return it.
    fn is_exhausted(&self) -> bool {
        self.free.is_empty()
            && self.flying.is_empty()
            && self.alive > self.held_back.len() + self.lent
            && !self.held_back.iter().any(|flight| flight.mark.is_reached())
    }

    /// The flying slot that comes free first: one that has landed, for streams move at their own pace, else the one that
    /// has been flying longest.
    fn take_flying(&mut self) -> Option<Flight> {
        let take_landed = |flying: &mut Flying| {
            let known = flying.iter().position(|flight| flight.mark.is_known_as_reached());
            let asked = || {
                flying
                    .iter()
                    .take(ASKED)
                    .position(|flight| flight.mark.is_reached())
            };
            let landed = known.or_else(asked)?;
            flying.remove(landed)
        };
        take_landed(&mut self.flying)
            .or_else(|| take_landed(&mut self.held_back))
            .or_else(|| self.flying.pop_front())
            .or_else(|| self.held_back.pop_front())
    }

    /// The oldest in flight on a lane's own stream, if it has enough of them; else a free one, else any in flight.
    fn take(&mut self, stream: Option<&Arc<LaneStream>>, reuse: Reuse) -> Option<Taken> {
        let is_own = |flight: &Flight| stream.is_some_and(|stream| flight.mark.is_on(stream));
        let own = self.flying.iter().filter(|flight| is_own(flight)).count();
        if own >= reuse.most_flying
            && let Some(oldest) = self.flying.iter().position(is_own)
        {
            return self.flying.remove(oldest).map(Taken::Flying);
        }
        let free = self.free.pop().map(Taken::Free);
        free.or_else(|| self.take_flying().map(Taken::Flying))
    }
}

/// A slot that the set has given away.
enum Taken {
    Free(Slot),
    Flying(Flight),
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

    /// How many could be had at this moment without waiting.
    pub(crate) fn available(&self) -> usize {
        let state = lock(&self.state);
        if state.memory.is_none() {
            return self.wanted;
        }
        let flying = state.flying.iter().chain(&state.held_back);
        state.free.len() + flying.filter(|flight| flight.mark.is_reached()).count()
    }

    /// Bytes of slots that a lost device may still use.
    pub(crate) fn lost_bytes(&self) -> usize {
        lock(&self.state).lost * self.slot_bytes
    }

    /// A slot that nobody uses: a free one, or one that was flying, once it has landed.
    ///
    /// `stream` is that of the lane which asks. With `may_block` false, returns `None` where every slot is held by some lane, or others are waiting already; the
    /// caller, who holds some itself, must put one back first.
    pub(crate) fn acquire(
        &self,
        stream: Option<&Arc<LaneStream>>,
        may_block: bool,
        reuse: Reuse,
    ) -> Result<Option<Slot>> {
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
        let Flight { slot, mark } = match state.take(stream, reuse) {
            Some(Taken::Free(slot)) => return Ok(Some(slot)),
            Some(Taken::Flying(flight)) => flight,
            None => {
                return Err(Error::SlotsLost {
                    bytes: state.lost * self.slot_bytes,
                });
            }
        };
        drop(state);
        let _span = engine_span!("wait", self.slot_bytes);
        let landed = mark.settle(reuse.patience);
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

    /// A slot for a result to stay in, where one is free and lanes keep most of them.
    pub(crate) fn lend(self: &Arc<Self>) -> Option<LentSlot> {
        let mut state = lock(&self.state);
        if state.memory.is_none() {
            self.make(&mut state).ok()?;
        }
        // The last slot that is not held back is for whoever comes next.
        if state.free.len() + state.flying.len() <= 1 {
            return None;
        }
        // Whoever waits for a slot goes first.
        if !Self::may_lend(&state) || state.turn != state.next_number {
            return None;
        }
        let slot = match state.free.pop() {
            Some(slot) => slot,
            // A mark that can't be asked about is no end: who acquires a slot settles it, and nobody does here.
            None => {
                let mark = &state.flying.front()?.mark;
                if !(mark.is_reached() && mark.is_known_as_reached()) {
                    return None;
                }
                state.flying.pop_front()?.slot
            }
        };
        state.lent += 1;
        drop(state);
        Some(LentSlot {
            slots: Arc::clone(self),
            slot: Some(slot),
        })
    }

    fn may_lend(state: &State) -> bool {
        (state.lent + 1) * LANES_SHARE <= state.alive
    }

    /// Whether [`lend`](Self::lend) may give a slot.
    pub(crate) fn lends(&self) -> bool {
        let state = lock(&self.state);
        match state.memory {
            None => self.wanted >= LANES_SHARE,
            Some(_) => Self::may_lend(&state),
        }
    }

    /// Returns a slot that the device does not use.
    pub(crate) fn put_back(&self, slot: Slot) {
        lock(&self.state).free.push(slot);
        self.returned.notify_all();
    }

    /// Returns a slot that the device reads until `mark` is reached: soon, or, `held_back`, when the caller's event fires.
    pub(crate) fn put_flying(&self, slot: Slot, mark: Arc<Mark>, held_back: bool) {
        let mut state = lock(&self.state);
        let flying = if held_back {
            &mut state.held_back
        } else {
            &mut state.flying
        };
        flying.push_back(Flight { slot, mark });
        drop(state);
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

    /// Pins the memory, or as much of it as there is, and cuts it into slots. What fails for another reason than a shortage
    /// would fail with less as well.
    fn make(&self, state: &mut State) -> Result<()> {
        let mut count = self.wanted;
        let mut short_of = None;
        let memory = loop {
            match self.pool.lease_reserved(count * self.slot_bytes) {
                Ok(memory) => break memory,
                Err(error) => match Shortage::behind(&error) {
                    Some(shortage) if count > 1 => {
                        count /= 2;
                        short_of = Some((shortage, error));
                    }
                    _ => return Err(error),
                },
            }
        };
        if let Some((shortage, error)) = short_of {
            tracing::warn!(
                slots = count,
                wanted = self.wanted,
                slot_bytes = self.slot_bytes,
                %error,
                advice = shortage.advice(),
                "less memory can be pinned than copies overlap best with: they go on through fewer slots, perhaps slower"
            );
        }
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
        let flying = std::mem::take(&mut state.flying);
        let held_back = std::mem::take(&mut state.held_back);
        for flight in flying.into_iter().chain(held_back) {
            if flight
                .mark
                .settle(Reuse::WHEN_EMPTY.patience)
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
