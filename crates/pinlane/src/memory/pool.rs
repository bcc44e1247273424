//! The pinned pool: page-locked memory under one byte budget, handed out as leases of exact size.
//!
//! The pool owns *regions* (a mapping, pinned as a whole) and cuts leases out of their free ranges, best fit first.
//! A region that no lease uses stays pinned, ready for the next lease, until [`PinnedPool::trim`] or until another
//! size needs its share of the budget.
//!
//! Invariants, all under the one lock:
//! - the bytes of all regions, of regions being made, and of what others count in, never grow beyond the budget;
//! - part of the budget may be *reserved* (for the slots): other leases never grow into it;
//! - results that nobody asked to be pinned have half of what the slots leave, and regions of their own, which they get only
//!   where there is room for them without giving another up; tensors and slots take such regions when they are idle;
//! - free ranges of a region are disjoint, sorted and never adjacent (neighbours are merged).
//!
//! A lease that is leaked on purpose, because a lost device may still use it, keeps its region, and the pool, for ever.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use pinlane_driver::{
    Driver, fork,
    sync::{Arc, Condvar, Mutex, lock, wait},
};

use super::{
    lease::{PinnedLease, Purpose},
    mapping::round_to_pages,
    region::Region,
    shortage::Shortage,
};
use crate::{Error, Result};

/// Alignment of every lease, as device memory has.
const ALIGNMENT: usize = 256;
/// What a region holds at least, where the budget allows: small leases share it.
const REGION_BYTES: usize = 2 << 20;
/// Results that may as well be pageable have one of so many parts of what the slots leave of the budget.
const RESULTS_SHARE: usize = 2;
/// The shortest such result. Copying a shorter one takes less time than it is worth to keep account of.
const SMALLEST_RESULT: usize = 16 << 10;
/// The longest that is worth pinning at once. A longer one lands much faster the first time in memory that the system may move:
/// memory is pinned at 5 to 8 GB/s, its pages made and registered, where lanes write pages that nobody has touched at 25. So
/// that is where it lands, unless another of its size has come before, and more are likely to come.
const PINNED_AT_ONCE: usize = 8 << 20;
/// The longest that is pinned. Through slots longer ones land as fast in memory that has been touched.
const LONGEST_RESULT: usize = 256 << 20;
/// Of so many long results the sizes are remembered.
const REMEMBERED: usize = 16;

/// Page-locked memory under a byte budget.
pub(crate) struct PinnedPool {
    driver: Arc<dyn Driver>,
    state: Mutex<State>,
    /// Notified when a region is made, or could not be.
    grown: Condvar,
}

#[derive(Default)]
struct State {
    budget: usize,
    regions: BTreeMap<u64, Region>,
    next_region: u64,
    /// Regions that threads are making.
    growing: usize,
    /// Bytes of regions, those being made included, and of what is counted in.
    pinned: usize,
    leased: usize,
    /// Set aside for slots that are not made yet.
    reserved: usize,
    /// Leased for slots.
    slots: usize,
    /// Leased for results that may as well be pageable.
    results: usize,
    /// Bytes of the regions that such results lie in, those being made included.
    for_results: usize,
    /// Whether the system has refused to pin memory for such results: it is not asked again before something changes.
    refuses_results: bool,
    /// The sizes of the last long ones, as powers of two; since memory was trimmed.
    long_results: VecDeque<u32>,
    peak: usize,
}

/// What the pool holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinnedUsage {
    /// The most that may ever be pinned.
    pub budget: usize,
    /// Pinned now, leased or kept for the next lease.
    pub pinned: usize,
    /// Leased now: pinned tensors, slots, results.
    pub leased: usize,
    /// What of the budget is for slots, leased or not yet.
    pub slots: usize,
    /// What of the leased bytes are results that nobody asked to be pinned: see
    /// [`HostMemory::PinnedIfRoom`](crate::HostMemory::PinnedIfRoom).
    pub results: usize,
    /// The most that was pinned at any time.
    pub peak: usize,
}

impl PinnedPool {
    pub(crate) fn new(driver: Arc<dyn Driver>, budget: usize) -> Arc<Self> {
        let state = State {
            budget,
            ..State::default()
        };
        Arc::new(Self {
            driver,
            state: Mutex::new(state),
            grown: Condvar::new(),
        })
    }

    pub(crate) fn usage(&self) -> PinnedUsage {
        let state = lock(&self.state);
        PinnedUsage {
            budget: state.budget,
            pinned: state.pinned,
            leased: state.leased,
            slots: state.reserved + state.slots,
            results: state.results,
            peak: state.peak,
        }
    }

    /// Sets `bytes` of the budget aside for [`lease_reserved`](Self::lease_reserved).
    pub(crate) fn reserve(&self, bytes: usize) {
        lock(&self.state).reserved += bytes;
    }

    /// Gives `bytes` of the share that was set aside back to everyone.
    pub(crate) fn unreserve(&self, bytes: usize) {
        lock(&self.state).reserved -= bytes;
    }

    /// Leases `bytes` bytes outside the reserved share.
    pub(crate) fn lease(self: &Arc<Self>, bytes: usize) -> Result<PinnedLease> {
        self.lease_from(bytes, Purpose::Tensor)
    }

    /// Leases `bytes` bytes for a result that may as well lie in pageable memory; `None` where that is where it should lie.
    pub(crate) fn lease_for_result(self: &Arc<Self>, bytes: usize) -> Option<PinnedLease> {
        if !(SMALLEST_RESULT..=LONGEST_RESULT).contains(&bytes)
            || bytes > PINNED_AT_ONCE && !lock(&self.state).comes_again(bytes)
        {
            return None;
        }
        match self.lease_from(bytes, Purpose::Result) {
            Ok(lease) => Some(lease),
            Err(Error::PinnedBudget { .. }) => None,
            Err(error) => {
                tracing::debug!(%error, "results lie in pageable memory from now on");
                lock(&self.state).refuses_results = true;
                None
            }
        }
    }

    /// Leases `bytes` bytes of the reserved share and, if that succeeds, takes them off it.
    pub(crate) fn lease_reserved(self: &Arc<Self>, bytes: usize) -> Result<PinnedLease> {
        self.lease_from(bytes, Purpose::Slots)
    }

    /// Changes the budget. Regions that no lease uses go back to the system until it holds; what is leased beyond it stays,
    /// and nothing more is pinned before enough of that has been given back.
    pub(crate) fn set_budget(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.budget = bytes;
        state.refuses_results = false;
        let beyond = state.pinned.saturating_sub(bytes);
        state.release_idle(beyond);
    }

    /// Gives every region that no lease uses back to the system; returns the bytes given back.
    pub(crate) fn trim(&self) -> usize {
        let mut state = lock(&self.state);
        state.refuses_results = false;
        state.long_results.clear();
        state.release_idle(usize::MAX)
    }

    /// Counts memory that somebody else is about to pin, outside the reserved share, as leased.
    pub(crate) fn count_in(&self, bytes: usize) -> Result<()> {
        let mut state = lock(&self.state);
        let limit = state.budget.saturating_sub(state.reserved);
        let regions = state.regions.values();
        let idle: usize = regions
            .filter(|region| region.is_idle())
            .map(|region| region.mapping.bytes())
            .sum();
        if bytes > limit.saturating_sub(state.pinned - idle) {
            return Err(state.over_budget(bytes, Purpose::Tensor));
        }
        let room = limit.saturating_sub(state.pinned);
        state.release_idle(bytes.saturating_sub(room));
        state.pinned += bytes;
        state.leased += bytes;
        state.peak = state.peak.max(state.pinned);
        Ok(())
    }

    /// Undoes [`count_in`](Self::count_in) when the memory is no longer pinned.
    pub(crate) fn count_out(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.pinned -= bytes;
        state.leased -= bytes;
    }

    fn lease_from(self: &Arc<Self>, bytes: usize, purpose: Purpose) -> Result<PinnedLease> {
        let asked = bytes;
        let bytes = bytes
            .max(1)
            .checked_next_multiple_of(ALIGNMENT)
            .ok_or(Error::HostMemory { bytes })?;
        let exact = round_to_pages(bytes).ok_or(Error::HostMemory { bytes })?;
        let grow = {
            let mut state = lock(&self.state);
            if purpose == Purpose::Result && bytes > state.share_of_results().saturating_sub(state.results) {
                return Err(state.over_budget(asked, purpose));
            }
            let room = loop {
                if let Some(lease) = self.cut(&mut state, bytes, purpose) {
                    return Ok(lease);
                }
                let limit = match purpose {
                    Purpose::Slots => state.budget,
                    Purpose::Tensor | Purpose::Result => state.budget.saturating_sub(state.reserved),
                };
                let room = limit.saturating_sub(state.pinned);
                if purpose != Purpose::Result {
                    state.release_idle(exact.saturating_sub(room));
                } else if state.refuses_results {
                    return Err(state.over_budget(asked, purpose));
                }
                let mut room = limit.saturating_sub(state.pinned);
                if purpose == Purpose::Result {
                    room = room.min(state.share_of_results().saturating_sub(state.for_results));
                }
                if exact <= room {
                    break room;
                }
                if state.growing == 0 || purpose == Purpose::Result {
                    return Err(state.over_budget(asked, purpose));
                }
                // The region that another thread is making may have room for both.
                state = wait(&self.grown, state);
            };
            let grow =
                exact.max(REGION_BYTES.min(room / rustix::param::page_size() * rustix::param::page_size()));
            state.pinned += grow;
            if purpose == Purpose::Result {
                state.for_results += grow;
            }
            state.growing += 1;
            grow
        };
        // Pinning is slow and does not happen under the lock; the region's bytes are already counted. A host that
        // has not the room for further leases may still have what this one needs.
        let made = match Region::new(&self.driver, grow, purpose) {
            Err(error) if grow > exact && Shortage::behind(&error).is_some() => {
                Region::new(&self.driver, exact, purpose)
            }
            made => made,
        };
        let mut state = lock(&self.state);
        state.growing -= 1;
        self.grown.notify_all();
        match made {
            Ok(region) => {
                state.give_up(grow - region.mapping.bytes(), purpose == Purpose::Result);
                state.peak = state.peak.max(state.pinned);
                let id = state.next_region;
                state.next_region += 1;
                state.regions.insert(id, region);
                Ok(self.cut_from(&mut state, id, 0, bytes, purpose))
            }
            Err(error) => {
                state.give_up(grow, purpose == Purpose::Result);
                Err(error)
            }
        }
    }

    /// A lease out of the smallest free range that holds it.
    fn cut(self: &Arc<Self>, state: &mut State, bytes: usize, purpose: Purpose) -> Option<PinnedLease> {
        let (_, id, offset) = state
            .regions
            .iter()
            .filter(|(_, region)| region.is_for_results == (purpose == Purpose::Result))
            .flat_map(|(&id, region)| region.free.iter().map(move |(&offset, &len)| (len, id, offset)))
            .filter(|&(len, ..)| len >= bytes && (purpose != Purpose::Result || !wastes(len, bytes)))
            .min()?;
        Some(self.cut_from(state, id, offset, bytes, purpose))
    }

    /// Takes `bytes` from the free range at `offset` of region `id`, which is at least that long.
    fn cut_from(
        self: &Arc<Self>,
        state: &mut State,
        id: u64,
        offset: usize,
        bytes: usize,
        purpose: Purpose,
    ) -> PinnedLease {
        let region = state
            .regions
            .get_mut(&id)
            .expect("the caller found the region under this lock");
        let len = region
            .free
            .remove(&offset)
            .expect("the caller found the range under this lock");
        if len > bytes {
            region.free.insert(offset + bytes, len - bytes);
        }
        // SAFETY: the range lies inside the mapping.
        let ptr = unsafe { region.mapping.ptr().add(offset) };
        state.leased += bytes;
        match purpose {
            Purpose::Tensor => {}
            Purpose::Slots => {
                state.reserved = state.reserved.saturating_sub(bytes);
                state.slots += bytes;
            }
            Purpose::Result => state.results += bytes,
        }
        PinnedLease {
            pool: Arc::clone(self),
            region: id,
            offset,
            bytes,
            ptr,
            purpose,
        }
    }

    pub(super) fn give_back(&self, lease: &PinnedLease) {
        if fork::is_child() {
            // The memory is the parent's, and the lock may be held for ever.
            return;
        }
        let mut state = lock(&self.state);
        state.leased -= lease.bytes;
        match lease.purpose {
            Purpose::Tensor => {}
            Purpose::Slots => state.slots -= lease.bytes,
            Purpose::Result => state.results -= lease.bytes,
        }
        if let Some(region) = state.regions.get_mut(&lease.region) {
            region.insert_free(lease.offset, lease.bytes);
        }
    }
}

impl State {
    /// Whether a result of about this size has come before, as far as is remembered; it is from here on.
    fn comes_again(&mut self, bytes: usize) -> bool {
        let size = bytes.ilog2();
        let again = self.long_results.contains(&size);
        if !again {
            self.long_results.truncate(REMEMBERED - 1);
            self.long_results.push_front(size);
        }
        again
    }

    /// What results may have of the budget that may as well be pageable, regions and all.
    fn share_of_results(&self) -> usize {
        self.budget.saturating_sub(self.reserved + self.slots) / RESULTS_SHARE
    }

    /// Counts bytes of a region as no longer pinned.
    fn give_up(&mut self, bytes: usize, for_results: bool) {
        self.pinned -= bytes;
        if for_results {
            self.for_results -= bytes;
        }
    }

    /// The error where the budget has no room for `asked` bytes.
    fn over_budget(&self, asked: usize, purpose: Purpose) -> Error {
        Error::PinnedBudget {
            asked,
            leased: self.leased - self.slots,
            reserved: match purpose {
                Purpose::Slots => 0,
                Purpose::Tensor | Purpose::Result => self.reserved + self.slots,
            },
            budget: self.budget,
        }
    }

    /// Unpins regions that no lease uses until at least `bytes` are gone or none is left; returns the bytes gone. It
    /// happens under the lock, though unpinning is slow, because bytes still pinned must not be promised to others.
    fn release_idle(&mut self, bytes: usize) -> usize {
        let mut gone = 0;
        while gone < bytes {
            let Some((&id, _)) = self.regions.iter().find(|(_, region)| region.is_idle()) else {
                break;
            };
            if let Some(region) = self.regions.remove(&id) {
                let bytes = region.mapping.bytes();
                self.give_up(bytes, region.is_for_results);
                gone += bytes;
                drop(region);
            }
        }
        gone
    }
}

/// Whether a result of `bytes` bytes should not lie in a free range that long, which the next one may want.
fn wastes(range: usize, bytes: usize) -> bool {
    range > REGION_BYTES && range - bytes > bytes / 3
}

impl fmt::Debug for PinnedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedPool")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
