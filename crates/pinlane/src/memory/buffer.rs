//! One pageable allocation of host memory, aligned for vector loads.

use std::{
    alloc::{self, Layout},
    ptr::NonNull,
};

use super::recycled::Recycled;
use crate::{Error, Result};

/// Alignment of every allocation: a cache line, which is also the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;

/// From here on the memory comes from the kernel, in huge pages, and is kept when it is given back: the pages of a large
/// allocation are touched for the first time when a result is written, and huge ones cost a third of what small ones do.
pub(super) const MAPPED_FROM: usize = 1 << 20;

/// Owns `bytes` bytes of pageable memory. Says nothing of who may read or write them: that is its owner's duty.
#[derive(Debug)]
pub(crate) enum Buffer {
    Heap { ptr: NonNull<u8>, layout: Layout },
    Mapped(Recycled),
}

// SAFETY: the buffer owns its memory, as a `Box<[u8]>` does; access goes through its owner.
unsafe impl Send for Buffer {}
// SAFETY: no method reads or writes through the pointer.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Memory whose content is undefined, for someone who writes all of it before anyone reads.
    pub(crate) fn uninit(bytes: usize) -> Result<Self> {
        match bytes {
            MAPPED_FROM.. => Ok(Self::Mapped(Recycled::any(bytes)?)),
            _ => Self::on_heap(bytes, alloc::alloc),
        }
    }

    /// Memory that reads as zeros, or as what its last user left there.
    pub(crate) fn initialised(bytes: usize) -> Result<Self> {
        match bytes {
            MAPPED_FROM.. => Ok(Self::Mapped(Recycled::any(bytes)?)),
            _ => Self::on_heap(bytes, alloc::alloc_zeroed),
        }
    }

    /// Memory that reads as zeros; large blocks come from the kernel untouched.
    pub(crate) fn zeroed(bytes: usize) -> Result<Self> {
        match bytes {
            MAPPED_FROM.. => Ok(Self::Mapped(Recycled::fresh(bytes)?)),
            _ => Self::on_heap(bytes, alloc::alloc_zeroed),
        }
    }

    fn on_heap(bytes: usize, allocate: unsafe fn(Layout) -> *mut u8) -> Result<Self> {
        let layout =
            Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| Error::HostMemory { bytes })?;
        // SAFETY: the layout's size is at least 1.
        let ptr = unsafe { allocate(layout) };
        let ptr = NonNull::new(ptr).ok_or(Error::HostMemory { bytes })?;
        Ok(Self::Heap { ptr, layout })
    }

    /// The first byte.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        match self {
            Self::Heap { ptr, .. } => *ptr,
            Self::Mapped(mapping) => mapping.ptr(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Self::Heap { ptr, layout } = self {
            // SAFETY: allocated by `with` with this layout.
            unsafe { alloc::dealloc(ptr.as_ptr(), *layout) };
        }
    }
}
