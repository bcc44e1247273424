//! A piece of the pinned pool, and what it is for: cut by the [`PinnedPool`], which has it back when it is dropped.

use std::ptr::NonNull;

use pinlane_driver::sync::Arc;

use super::pool::PinnedPool;

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A tensor that is to be pinned.
    Tensor,
    /// The slots: they have the reserved share.
    Slots,
    /// A result that may as well lie in pageable memory.
    Result,
}

/// Pinned memory of the pool, given back on drop. Whoever lets the device use it keeps the lease until that is done.
#[derive(Debug)]
pub(crate) struct PinnedLease {
    pub(super) pool: Arc<PinnedPool>,
    /// The number of the region that it is cut out of, and where it begins there.
    pub(super) region: u64,
    pub(super) offset: usize,
    pub(super) bytes: usize,
    pub(super) ptr: NonNull<u8>,
    pub(super) purpose: Purpose,
}

// SAFETY: a lease is the only owner of its range; access goes through its holder.
unsafe impl Send for PinnedLease {}
// SAFETY: no method reads or writes through the pointer.
unsafe impl Sync for PinnedLease {}

impl PinnedLease {
    /// The first byte.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }
}

impl Drop for PinnedLease {
    fn drop(&mut self) {
        self.pool.give_back(self);
    }
}
