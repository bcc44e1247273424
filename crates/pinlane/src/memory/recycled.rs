//! Pageable memory of some size that is kept when it is given back, for the next result of about its size.
//!
//! Touching fresh pages costs more than copying into them does: a result in memory that an earlier one lay in arrives twice as
//! fast. What is kept stays below a limit for the whole process; what would not fit goes back to the system, the longest kept
//! first.

use std::{collections::VecDeque, ptr::NonNull};

use pinlane_driver::sync::{Mutex, OnceLock, lock};

use super::{buffer::MAPPED_FROM, mapping::Mapping};
use crate::Result;

/// The most that is kept unless told otherwise, in bytes: this, or what [`SHARE`] of the system's memory is.
const MOST: usize = 2 << 30;
const SHARE: usize = 16;

static KEPT: OnceLock<Mutex<Kept>> = OnceLock::new();

/// Mappings that nobody uses, the longest kept first.
#[derive(Debug)]
struct Kept {
    mappings: VecDeque<Mapping>,
    bytes: usize,
    limit: usize,
}

/// A mapping that is kept when it is dropped.
#[derive(Debug)]
pub(crate) struct Recycled(
    /// Taken on drop.
    Option<Mapping>,
);

impl Recycled {
    /// Fresh pages, which read as zeros.
    pub(crate) fn fresh(bytes: usize) -> Result<Self> {
        Mapping::reserve(bytes).map(|mapping| Self(Some(mapping)))
    }

    /// Pages that read as zeros, or as what their last user left there: at least `bytes` bytes, and not much more.
    pub(crate) fn any(bytes: usize) -> Result<Self> {
        let kept = lock(kept()).take(bytes);
        kept.map_or_else(|| Self::fresh(bytes), |mapping| Ok(Self(Some(mapping))))
    }

    /// The first byte.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.0.as_ref().map_or(NonNull::dangling(), Mapping::ptr)
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        if let Some(mapping) = self.0.take() {
            // Unmapping is slow: not under the lock.
            let beyond = lock(kept()).keep(mapping);
            drop(beyond);
        }
    }
}

/// Whether something is kept that a result of `bytes` bytes would lie in.
pub(crate) fn has(bytes: usize) -> bool {
    bytes >= MAPPED_FROM && lock(kept()).place_for(bytes).is_some()
}

/// The bytes that are kept.
pub(crate) fn bytes() -> usize {
    lock(kept()).bytes
}

/// Gives all that is kept back to the system; returns the bytes given back.
pub(crate) fn trim() -> usize {
    let gone = lock(kept()).shrink_to(0);
    gone.iter().map(Mapping::bytes).sum()
}

/// The most that is kept, in bytes.
pub(crate) fn limit() -> usize {
    lock(kept()).limit
}

/// Changes the most that is kept, in bytes.
pub(crate) fn set_limit(bytes: usize) {
    let gone = {
        let mut kept = lock(kept());
        kept.limit = bytes;
        kept.shrink_to(bytes)
    };
    drop(gone);
}

fn kept() -> &'static Mutex<Kept> {
    KEPT.get_or_init(|| Mutex::new(Kept::new(MOST.min(system_bytes() / SHARE))))
}

/// The memory of the system.
fn system_bytes() -> usize {
    // SAFETY: asks for a number. A system that does not know answers -1.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    usize::try_from(pages).map_or(MOST, |pages| pages.saturating_mul(rustix::param::page_size()))
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self {
            mappings: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    /// Where the smallest is that holds `bytes` and wastes no more than a quarter.
    fn place_for(&self, bytes: usize) -> Option<usize> {
        let fitting = bytes..=bytes.saturating_add(bytes / 3);
        let sizes = self.mappings.iter().map(Mapping::bytes).zip(0..);
        let (_, index) = sizes.filter(|(size, _)| fitting.contains(size)).min()?;
        Some(index)
    }

    fn take(&mut self, bytes: usize) -> Option<Mapping> {
        let mapping = self.mappings.remove(self.place_for(bytes)?)?;
        self.bytes -= mapping.bytes();
        Some(mapping)
    }

    /// Keeps a mapping; gives those that are beyond the limit.
    fn keep(&mut self, mapping: Mapping) -> Vec<Mapping> {
        if mapping.bytes() > self.limit {
            return vec![mapping];
        }
        let beyond = self.shrink_to(self.limit - mapping.bytes());
        self.bytes += mapping.bytes();
        self.mappings.push_back(mapping);
        beyond
    }

    /// Takes out the longest kept, until no more than `bytes` are left.
    fn shrink_to(&mut self, bytes: usize) -> Vec<Mapping> {
        let mut gone = Vec::new();
        while self.bytes > bytes
            && let Some(mapping) = self.mappings.pop_front()
        {
            self.bytes -= mapping.bytes();
            gone.push(mapping);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn mapping(bytes: usize) -> Mapping {
        Mapping::reserve(bytes).unwrap()
    }

    #[test]
    fn the_smallest_that_fits_is_taken_and_none_that_wastes_much() {
        let mut kept = Kept::new(100 * MIB);
        for size in [8, 5, 4, 16] {
            assert!(kept.keep(mapping(size * MIB)).is_empty());
        }
        assert_eq!(kept.take(4 * MIB + 1).unwrap().bytes(), 5 * MIB);
        assert!(kept.take(5 * MIB).is_none());
        assert_eq!(kept.take(13 * MIB).unwrap().bytes(), 16 * MIB);
        assert_eq!(kept.bytes, 12 * MIB);
    }

    #[test]
    fn what_is_kept_stays_within_the_limit_and_the_longest_kept_goes_first() {
        let mut kept = Kept::new(10 * MIB);
        assert!(kept.keep(mapping(4 * MIB)).is_empty());
        assert!(kept.keep(mapping(5 * MIB)).is_empty());
        let gone = kept.keep(mapping(6 * MIB));
        assert_eq!(
            gone.iter().map(Mapping::bytes).collect::<Vec<_>>(),
            [4 * MIB, 5 * MIB]
        );
        assert_eq!(kept.keep(mapping(11 * MIB))[0].bytes(), 11 * MIB);
        assert_eq!(kept.bytes, 6 * MIB);
        assert_eq!(kept.shrink_to(0).len(), 1);
        assert_eq!((kept.bytes, kept.mappings.len()), (0, 0));
    }
}
