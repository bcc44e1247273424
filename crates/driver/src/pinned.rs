//! A host range that is unpinned on drop.

use std::ptr::NonNull;

use crate::{Driver, Result, sync::Arc};

/// A page-locked range of host memory. It does not own the memory, only the lock on its pages.
#[derive(Debug)]
pub struct PinnedRange {
    driver: Arc<dyn Driver>,
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the pointer is only a name for the range; this type never reads or writes through it.
unsafe impl Send for PinnedRange {}
// SAFETY: as above; no method touches the memory.
unsafe impl Sync for PinnedRange {}

impl PinnedRange {
    /// Pins a range; see [`Driver::pin`].
    ///
    /// # Safety
    ///
    /// The range is mapped and stays so while the returned value lives, it overlaps no other pinned range, and no
    /// enqueued work uses it when the value is dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PinLimit`](crate::ErrorKind::PinLimit) where the host may not pin that much, and whatever else the
    /// driver says; the range is then as it was.
    pub unsafe fn new(driver: &Arc<dyn Driver>, ptr: NonNull<u8>, bytes: usize) -> Result<Self> {
        // SAFETY: the caller keeps `Driver::pin`'s contract for as long as the value lives.
        unsafe { driver.pin(ptr, bytes)? };
        Ok(Self {
            driver: Arc::clone(driver),
            ptr,
            bytes,
        })
    }

    /// The range's size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for PinnedRange {
    fn drop(&mut self) {
        // SAFETY: pinned by `new` with these arguments; no enqueued work uses it by the contract of `new`.
        let _gone = unsafe { self.driver.unpin(self.ptr, self.bytes) };
    }
}
