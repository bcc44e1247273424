//! Anonymous pages straight from the kernel: page-aligned, exact in size, in huge pages where that helps.
//!
//! Touching pages for the first time is most of what fresh memory costs: the kernel finds and clears each. Huge pages
//! make that cheap, and several threads share it. A mapping of at least one huge page therefore begins at the boundary of
//! one, so that all of it but the end can be huge pages.

use std::{
    ops::Range,
    ptr::{NonNull, null_mut},
};

use pinlane_driver::sync::{
    atomic::{AtomicUsize, Ordering},
    available_parallelism, spawn_scoped, thread,
};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use super::numa;
use crate::{Error, Result};

/// A huge page on x86-64 and most of AArch64; smaller mappings gain nothing from asking for one.
const HUGE_PAGE: usize = 2 << 20;
/// What a thread touches before it looks for more: whole huge pages, and much more work than starting the thread.
const PART: usize = 2 * HUGE_PAGE;
/// More threads than this wait for the kernel's locks rather than for memory.
const MAX_THREADS: usize = 8;

/// Owns a mapping of whole pages, which read as zeros until someone writes them.
#[derive(Debug)]
pub(crate) struct Mapping {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping owns its pages; access goes through its owner.
unsafe impl Send for Mapping {}
// SAFETY: no method changes what a page reads as after construction: populating one only makes it present.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes, rounded up to whole pages, on NUMA node `node` where one is named and the kernel allows it,
    /// and touches every page, so that pinning finds them present.
    pub(crate) fn touched(bytes: usize, node: Option<u32>) -> Result<Self> {
        let mapping = Self::reserve(bytes)?;
        if let Some(node) = node
            && let Err(error) = numa::prefer(mapping.ptr, mapping.bytes, node)
        {
            tracing::debug!(node, bytes, %error, "pinned memory may lie far from its device");
        }
        mapping.touch_all();
        Ok(mapping)
    }

    /// Maps `bytes` bytes, rounded up to whole pages, and touches none of them: each page is found and cleared when it
    /// is first written.
    pub(crate) fn reserve(bytes: usize) -> Result<Self> {
        let bytes = round_to_pages(bytes).ok_or(Error::HostMemory { bytes })?;
        if bytes < HUGE_PAGE {
            return Self::map(bytes);
        }
        // Longer than asked for, by what is cut off before the first boundary and behind the end.
        let longer = bytes.checked_add(HUGE_PAGE).ok_or(Error::HostMemory { bytes })?;
        let mapping = Self::map(longer)?.trimmed(bytes);
        // SAFETY: the range is this mapping's own. Advice that is refused leaves ordinary pages, which also work.
        let _refused = unsafe { mm::madvise(mapping.ptr.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        Ok(mapping)
    }

    /// Makes the pages of a range of bytes present. Says whether the kernel did; where it does not (before Linux 5.14), the first write to each page will.
    ///
    /// # Panics
    ///
    /// When the range does not lie inside the mapping.
    fn populate(&self, range: Range<usize>) -> bool {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "{range:?} of a mapping of {} bytes",
            self.bytes
        );
        let start = range.start - range.start % rustix::param::page_size();
        let len = range.end - start;
        // SAFETY: inside the mapping, which is whole pages, so the kernel's rounding up stays inside too. Populating
        // changes no byte.
        len == 0
            || unsafe {
                mm::madvise(
                    self.ptr.as_ptr().add(start).cast(),
                    len,
                    Advice::LinuxPopulateWrite,
                )
            }
            .is_ok()
    }

    fn map(bytes: usize) -> Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let raw = unsafe {
            mm::mmap_anonymous(
                null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .map_err(|source| match source {
            rustix::io::Errno::NOMEM => Error::HostMemory { bytes },
            source => Error::HostMapping {
                bytes,
                source: source.into(),
            },
        })?;
        let ptr = NonNull::new(raw.cast::<u8>()).ok_or(Error::HostMemory { bytes })?;
        Ok(Self { ptr, bytes })
    }

    /// The `bytes` bytes from the first boundary of a huge page on; gives the rest back. The mapping is longer by a huge
    /// page.
    fn trimmed(self, bytes: usize) -> Self {
        let head = self.ptr.align_offset(HUGE_PAGE);
        let tail = self.bytes - bytes - head;
        // SAFETY: the boundary is less than a huge page on, and the mapping is longer than `bytes` by a whole one.
        let ptr = unsafe { self.ptr.add(head) };
        // Each part has an owner, which unmaps it; the parts are whole pages, for addresses of mappings and `bytes` are.
        let owned = |ptr: NonNull<u8>, bytes: usize| (bytes > 0).then_some(Self { ptr, bytes });
        let before = owned(self.ptr, head);
        // SAFETY: at most the end of the mapping.
        let behind = owned(unsafe { ptr.add(bytes) }, tail);
        std::mem::forget(self);
        drop((before, behind));
        Self { ptr, bytes }
    }

    /// Touches every page of a mapping that nobody else knows yet: a large one in several threads.
    fn touch_all(&self) {
        let parts = self.bytes.div_ceil(PART);
        if parts == 1 {
            return self.touch(0..self.bytes);
        }
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = cores.min(MAX_THREADS).min(parts);
        let next = AtomicUsize::new(0);
        let touch_parts = || {
            loop {
                let start = next.fetch_add(1, Ordering::Relaxed) * PART;
                if start >= self.bytes {
                    break;
                }
                self.touch(start..self.bytes.min(start + PART));
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                if spawn_scoped(scope, touch_parts).is_err() {
                    // The threads there are, this one included, take all parts.
                    break;
                }
            }
            touch_parts();
        });
    }

    /// Touches the pages of a range of whole pages that nobody else knows yet.
    fn touch(&self, range: Range<usize>) {
        if self.populate(range.clone()) {
            return;
        }
        for offset in range.step_by(rustix::param::page_size()) {
            // SAFETY: inside the mapping, and in a range that only this thread knows; the page reads as zero already.
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
        // SAFETY: these pages were mapped and are this value's own; the owner has let go of every pointer into them.
        // Unmapping a range that is mapped does not fail.
        let _unmapped = unsafe { mm::munmap(self.ptr.as_ptr().cast(), self.bytes) };
    }
}

/// `bytes` rounded up to whole pages, at least one; `None` where that overflows.
pub(crate) fn round_to_pages(bytes: usize) -> Option<usize> {
    bytes.max(1).checked_next_multiple_of(rustix::param::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the kernel holds a page at each of the mapping's addresses.
    fn pages_present(mapping: &Mapping) -> usize {
        let pages = mapping.bytes() / rustix::param::page_size();
        let mut present = vec![0_u8; pages];
        // SAFETY: the mapping's own range, and a byte for each of its pages.
        let told = unsafe {
            libc::mincore(
                mapping.ptr().as_ptr().cast(),
                mapping.bytes(),
                present.as_mut_ptr(),
            )
        };
        assert_eq!(told, 0);
        present.iter().filter(|page| **page & 1 == 1).count()
    }

    fn bytes_of(mapping: &Mapping) -> &[u8] {
        // SAFETY: mapped, and nobody writes it.
        unsafe { std::slice::from_raw_parts(mapping.ptr().as_ptr(), mapping.bytes()) }
    }

    #[test]
    fn a_mapping_is_as_long_as_asked_for_in_whole_pages_and_reads_as_zeros() {
        let page = rustix::param::page_size();
        for bytes in [
            0,
            1,
            page,
            page + 1,
            HUGE_PAGE - 1,
            HUGE_PAGE,
            5 * PART + page + 1,
        ] {
            let mapping = Mapping::touched(bytes, None).unwrap();
            assert_eq!(mapping.bytes(), bytes.max(1).next_multiple_of(page));
            assert_eq!(pages_present(&mapping), mapping.bytes() / page);
            assert!(bytes_of(&mapping).iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_large_mapping_begins_where_a_huge_page_does() {
        let page = rustix::param::page_size();
        for bytes in [HUGE_PAGE, HUGE_PAGE + page, 3 * HUGE_PAGE - page] {
            let mapping = Mapping::reserve(bytes).unwrap();
            assert_eq!(mapping.ptr().align_offset(HUGE_PAGE), 0);
        }
    }

    #[test]
    fn reserved_pages_are_made_present_where_they_are_populated_and_keep_their_bytes() {
        let page = rustix::param::page_size();
        // Too small for huge pages, so that neighbours are not made present as well.
        let mapping = Mapping::reserve(16 * page).unwrap();
        assert_eq!(pages_present(&mapping), 0);
        // SAFETY: inside the mapping, which nobody else knows.
        unsafe { mapping.ptr().as_ptr().add(3 * page).write(7) };
        // From the end of one page to the beginning of another.
        if !mapping.populate(3 * page - 1..5 * page + 1) {
            println!("this kernel does not populate");
            return;
        }
        assert_eq!(pages_present(&mapping), 4);
        assert!(mapping.populate(page..page));
        assert_eq!(pages_present(&mapping), 4);
        assert_eq!(bytes_of(&mapping)[3 * page], 7);
    }

    #[test]
    fn a_node_that_does_not_exist_is_only_a_wish() {
        for node in [0, 63, 64, 1023, 1024, u32::MAX] {
            let mapping = Mapping::touched(HUGE_PAGE, Some(node)).unwrap();
            assert_eq!(bytes_of(&mapping)[HUGE_PAGE - 1], 0);
        }
    }
}
