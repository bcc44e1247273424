//! Anonymous pages straight from the kernel: page-aligned, exact in size, in huge pages where that helps.

use std::ptr::{NonNull, null_mut};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::{Error, Result};

/// A huge page on x86-64 and most of AArch64; smaller mappings gain nothing from asking for one.
const HUGE_PAGE: usize = 2 << 20;

/// Owns a mapping of whole pages, zeroed when made.
#[derive(Debug)]
pub(crate) struct Mapping {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping owns its pages; access goes through its owner.
unsafe impl Send for Mapping {}
// SAFETY: no method reads or writes through the pointer after construction.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes, rounded up to whole pages, and touches every page, so that pinning finds them present.
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let failed = |source: rustix::io::Errno| Error::HostMapping {
            bytes,
            source: source.into(),
        };
        let bytes = round_to_pages(bytes).ok_or(Error::HostMemory { bytes })?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let raw = unsafe {
            mm::mmap_anonymous(
                null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .map_err(failed)?;
        let ptr = NonNull::new(raw.cast::<u8>()).ok_or(Error::HostMemory { bytes })?;
        let mapping = Self { ptr, bytes };
        if bytes >= HUGE_PAGE {
            // SAFETY: the range is this mapping's own. Advice that is refused leaves ordinary pages, which also work.
            let _refused = unsafe { mm::madvise(raw, bytes, Advice::LinuxHugepage) };
        }
        // SAFETY: as above; populating writes no byte that anyone has written.
        if unsafe { mm::madvise(raw, bytes, Advice::LinuxPopulateWrite) }.is_err() {
            mapping.touch();
        }
        Ok(mapping)
    }

    /// Touches each page by hand, for kernels before 5.14.
    fn touch(&self) {
        for offset in (0..self.bytes).step_by(rustix::param::page_size()) {
            // SAFETY: inside the mapping, which nobody else knows yet; the page reads as zero already.
            unsafe { self.ptr.as_ptr().add(offset).write_volatile(0) };
        }
    }

    /// The first byte.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The size in bytes, a multiple of the page size.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; the owner has let go of every pointer into it. Unmapping a range
        // that is mapped does not fail.
        let _unmapped = unsafe { mm::munmap(self.ptr.as_ptr().cast(), self.bytes) };
    }
}

/// `bytes` rounded up to whole pages, at least one; `None` where that overflows.
pub(crate) fn round_to_pages(bytes: usize) -> Option<usize> {
    bytes.max(1).checked_next_multiple_of(rustix::param::page_size())
}
