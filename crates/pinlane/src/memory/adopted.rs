//! Host memory of others, pinned for a device out of its budget.
//!
//! The pool counts its bytes as leased, from before it is pinned until after it is unpinned.

use std::{any::Any, mem, ptr::NonNull};

use pinlane_driver::{PinnedRange, fork, sync::Arc};

use super::pool::PinnedPool;
use crate::{Device, Error, Result};

/// A range of the host's memory that someone else owns, pinned for a device until this is dropped: memory that is shared with
/// another process, for instance.
///
/// ```
/// use std::{ptr::NonNull, sync::Arc};
/// use pinlane::{AdoptedPin, Device};
///
/// let device = Device::open("sim:0")?;
/// let driver = device.driver().expect("an accelerator has a driver");
/// let theirs = Arc::new(vec![0u8; 4096]);
/// let start = NonNull::from(&theirs[0]);
/// // SAFETY: the vector neither moves nor goes away while it is owned, and nobody else pins it.
/// let pin = unsafe { AdoptedPin::new(&device, start, 4096, theirs) }?;
/// assert!(driver.is_pinned(start.as_ptr(), 4096));
/// drop(pin);
/// assert!(!driver.is_pinned(start.as_ptr(), 4096));
/// # Ok::<(), pinlane::Error>(())
/// ```
#[derive(Debug)]
pub struct AdoptedPin {
    /// Taken on drop, before the bytes are given back to the budget.
    range: Option<PinnedRange>,
    pool: Arc<PinnedPool>,
    bytes: usize,
    /// Dropped last.
    _owner: Arc<dyn Any + Send + Sync>,
}

impl AdoptedPin {
    /// Pins `bytes` bytes from `ptr` on, which begin and end where pages do. `owner` is dropped when they are no longer
    /// pinned.
    ///
    /// # Safety
    ///
    /// The range is mapped while `owner` lives; it overlaps no other pinned range; and no transfer uses it when this is
    /// dropped: a tensor over it [made](crate::Tensor::from_raw_parts) as pinned has this among what its owner keeps.
    ///
    /// # Errors
    ///
    /// [`Error::PinnedBudget`] where the budget has no room, [`Error::Driver`] where the system refuses to pin that much, and
    /// [`Error::Unsupported`] for the host.
    pub unsafe fn new(
        device: &Device,
        ptr: NonNull<u8>,
        bytes: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self> {
        let accelerator = device.require_accelerator("pinning memory of others")?;
        let engine = accelerator.running.engine();
        engine.pool.count_in(bytes)?;
        let mut adopted = Self {
            range: None,
            pool: Arc::clone(&engine.pool),
            bytes,
            _owner: owner,
        };
        // SAFETY: the caller's promise; the owner goes after the range.
        let pinned = unsafe { PinnedRange::new(&engine.driver, ptr, bytes) };
        let refused = |source| Error::driver(format!("pinning {bytes} bytes of memory of others"), source);
        adopted.range = Some(pinned.map_err(refused)?);
        Ok(adopted)
    }

    /// How many bytes are pinned.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for AdoptedPin {
    fn drop(&mut self) {
        let range = self.range.take();
        if fork::is_child() {
            // What is pinned is the parent's, and the lock may be held for ever.
            return mem::forget(range);
        }
        drop(range);
        self.pool.count_out(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::sim::{DeviceConfig, Machine};

    use super::*;
    use crate::{DeviceOptions, HostMemory, memory::mapping::Mapping, profile::SLOT_GRANULE};

    const MIB: usize = 1 << 20;

    fn device(budget: usize) -> Device {
        let driver = Machine::new(DeviceConfig::default()).device(0).unwrap();
        let options = DeviceOptions {
            pinned_budget: Some(budget),
            lanes: Some(1),
            slots_per_lane: Some(1),
            slot_bytes: Some(SLOT_GRANULE),
            ..DeviceOptions::default()
        };
        Device::with_options(driver, &options).unwrap()
    }

    fn adopt(device: &Device, bytes: usize) -> Result<AdoptedPin> {
        let theirs = Arc::new(Mapping::reserve(bytes).unwrap());
        // SAFETY: a new mapping, which its owner keeps; no transfer ever uses it.
        unsafe { AdoptedPin::new(device, theirs.ptr(), bytes, theirs) }
    }

    #[test]
    fn adopted_memory_counts_as_leased_while_it_is_pinned() {
        let device = device(64 * MIB);
        let before = device.stats().unwrap().pinned;
        let pin = adopt(&device, 3 * MIB).unwrap();
        let during = device.stats().unwrap().pinned;
        assert_eq!(during.pinned, before.pinned + pin.bytes());
        assert_eq!(during.leased, before.leased + pin.bytes());
        drop(pin);
        let after = device.stats().unwrap().pinned;
        assert_eq!((after.pinned, after.leased), (before.pinned, before.leased));
    }

    #[test]
    fn what_is_beyond_the_budget_is_refused_and_counts_for_nothing() {
        let device = device(8 * MIB);
        let before = device.stats().unwrap().pinned;
        let refused = adopt(&device, 9 * MIB).unwrap_err();
        assert!(matches!(refused, Error::PinnedBudget { .. }), "{refused}");
        assert_eq!(device.stats().unwrap().pinned, before);
        drop(adopt(&device, 4 * MIB).unwrap());
    }

    #[test]
    fn pinned_memory_that_nothing_uses_makes_room_for_it() {
        let device = device(8 * MIB);
        let tensor = HostMemory::Pinned(&device)
            .empty(crate::DType::U8, &[5 * MIB])
            .unwrap();
        adopt(&device, 5 * MIB).unwrap_err();
        drop(tensor);
        adopt(&device, 5 * MIB).unwrap();
    }

    #[test]
    fn the_host_adopts_nothing() {
        let refused = adopt(&Device::host(), MIB).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    }
}
