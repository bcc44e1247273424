//! A mapping that is pinned as a whole, and which parts of it are leased.

use std::collections::BTreeMap;

use pinlane_driver::{Driver, PinnedRange, sync::Arc};

use super::{lease::Purpose, mapping::Mapping};
use crate::{Error, Result};

/// Pinned pages and the ranges of them that no lease holds. The range is unpinned before its pages are unmapped:
/// fields drop in this order.
pub(super) struct Region {
    _pin: PinnedRange,
    pub(super) mapping: Mapping,
    /// Whether only results that may as well be pageable lie in it.
    pub(super) is_for_results: bool,
    /// The length of each range, by where it begins.
    pub(super) free: BTreeMap<usize, usize>,
}

impl Region {
    /// Fresh pages, pinned; none of them is leased.
    pub(super) fn new(driver: &Arc<dyn Driver>, bytes: usize, purpose: Purpose) -> Result<Self> {
        let mapping = Mapping::touched(bytes, driver.properties().numa_node)?;
        // SAFETY: the mapping is new, so nothing of it is pinned; `Region` drops the pin before the mapping; leases
        // keep the region until no work uses it.
        let pin = unsafe { PinnedRange::new(driver, mapping.ptr(), mapping.bytes()) }
            .map_err(|source| Error::driver(format!("pinning {bytes} bytes of host memory"), source))?;
        let free = BTreeMap::from([(0, mapping.bytes())]);
        Ok(Self {
            _pin: pin,
            mapping,
            is_for_results: purpose == Purpose::Result,
            free,
        })
    }

    /// Whether no lease lies in it.
    pub(super) fn is_idle(&self) -> bool {
        self.free.get(&0) == Some(&self.mapping.bytes())
    }

    /// Has a range back, and merges it with its neighbours.
    pub(super) fn insert_free(&mut self, mut offset: usize, mut bytes: usize) {
        if let Some((&before, &len)) = self.free.range(..offset).next_back()
            && before + len == offset
        {
            self.free.remove(&before);
            offset = before;
            bytes += len;
        }
        if let Some(len) = self.free.remove(&(offset + bytes)) {
            bytes += len;
        }
        self.free.insert(offset, bytes);
    }
}
