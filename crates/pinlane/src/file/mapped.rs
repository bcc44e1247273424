//! Writing to a file in memory by several threads at once, by way of a mapping.
//!
//! `pwrite` holds the file's lock while it finds pages and copies, so that threads which write to one file take turns. The
//! pages of a mapping are found without that lock. There are two ways to fill them:
//!
//! - `userfaultfd`: whole new pages are found, filled and added to the file in one call. This costs no more than `pwrite`.
//! - `process_vm_writev`, where containers forbid the other: it clears each page before it is written, which costs twice as
//!   much, so it pays with several processors only.
//!
//! Nothing here touches the mapping: the kernel is told to copy to it. Where a page can't be had, because the file system is
//! full or somebody has made the file shorter, that is an error then; a store of our own would be a signal that ends the
//! process.

use std::{
    ffi::c_void,
    fs::File,
    io::{self, IoSlice},
    os::fd::OwnedFd,
    ptr::{NonNull, null_mut},
};

use rustix::{
    mm::{self, Advice, MapFlags, ProtFlags},
    param::page_size,
};

use super::{faults, sink::WriteAt};

/// With fewer processors than this, threads that write in turns are as fast as such that fill pages, or clear and copy.
const WORTH_FILLING: usize = 2;
const WORTH_COPYING: usize = 4;

/// A file in memory, mapped to be written and never to be read.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<c_void>,
    bytes: usize,
    /// Fills the pages that the file does not have yet. Where this is, nobody may find such a page in another way: who does
    /// gets an error.
    faults: Option<OwnedFd>,
    /// The file, for what are no whole pages.
    file: File,
}

// SAFETY: the mapping is owned, and only its address is used: the kernel orders who writes where.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// The first `bytes` bytes of a file, which is at least as long; `None` where it can't be mapped, as where it is not open
    /// for reading too.
    pub(crate) fn of(file: &File, bytes: u64) -> Option<Self> {
        let mut mapped = Self::map(file, bytes)?;
        match faults::take(mapped.start, mapped.bytes.next_multiple_of(page_size())) {
            Ok(faults) => mapped.faults = Some(faults),
            Err(error) => tracing::debug!(%error, "writing a file in memory without userfaultfd"),
        }
        Some(mapped)
    }

    fn map(file: &File, bytes: u64) -> Option<Self> {
        let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes > 0)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let mapped = unsafe { mm::mmap(null_mut(), bytes, protection, MapFlags::SHARED, file, 0) };
        let start = match mapped {
            Ok(start) => NonNull::new(start)?,
            Err(error) => {
                tracing::debug!(%error, "writing a file in memory without a mapping");
                return None;
            }
        };
        let mapped = Self {
            start,
            bytes,
            faults: None,
            file: file.try_clone().ok()?,
        };
        // SAFETY: the range is the mapping. Where the file system has no huge pages, it stays as it is.
        let _refused = unsafe { mm::madvise(start.as_ptr(), bytes, Advice::LinuxHugepage) };
        Some(mapped)
    }

    /// Whether so many processors are faster with it than without.
    pub(crate) fn pays(&self, processors: usize) -> bool {
        let least = if self.faults.is_some() {
            WORTH_FILLING
        } else {
            WORTH_COPYING
        };
        processors >= least
    }

    /// The same without filling pages, as where that is forbidden.
    #[cfg(test)]
    pub(crate) fn that_copies(file: &File, bytes: u64) -> Option<Self> {
        Self::map(file, bytes)
    }

    /// Lets go of the page tables of a range, so that no more memory counts as this process's than is being written. The
    /// file keeps its pages.
    fn let_go(&self, at: usize, bytes: usize) {
        let start = at - at % page_size();
        // SAFETY: inside the mapping, which begins at a page, and nobody reads or writes through it.
        let _refused = unsafe {
            mm::madvise(
                self.start.as_ptr().byte_add(start),
                at + bytes - start,
                Advice::LinuxDontNeed,
            )
        };
    }
}

impl Mapped {
    /// Fills pages that the file does not have, as far as `from` is whole ones; else writes up to where they begin.
    fn fill(&self, faults: &OwnedFd, from: &[u8], at: usize) -> io::Result<usize> {
        let page = page_size();
        let whole = from.len() / page * page;
        let part = if !at.is_multiple_of(page) || whole == 0 {
            from.len().min(page - at % page)
        } else {
            // SAFETY: the caller has compared the range with the mapping, which nobody reads or writes.
            match unsafe { faults::fill(faults, self.start.byte_add(at), &from[..whole]) } {
                // Somebody's bytes are in the first page.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => whole,
                filled => {
                    self.let_go(at, *filled.as_ref().unwrap_or(&0));
                    return filled;
                }
            }
        };
        self.file.write_at(&[IoSlice::new(&from[..part])], at as u64)
    }

    /// Copies to the mapping, whether the file has the pages or not.
    fn copy(&self, from: &[IoSlice<'_>], at: usize, bytes: usize) -> io::Result<usize> {
        let to = libc::iovec {
            // SAFETY: the caller has compared the range with the mapping.
            iov_base: unsafe { self.start.as_ptr().byte_add(at) },
            iov_len: bytes,
        };
        // SAFETY: an `IoSlice` is an `iovec`. The kernel reads memory that is borrowed, and writes a mapping that is nobody's
        // to read; what it can't write is an error.
        let written = unsafe {
            libc::process_vm_writev(
                libc::getpid(),
                from.as_ptr().cast(),
                from.len() as libc::c_ulong,
                &raw const to,
                1,
                0,
            )
        };
        let written = usize::try_from(written).map_err(|_| io::Error::last_os_error())?;
        self.let_go(at, written);
        Ok(written)
    }
}

impl WriteAt for Mapped {
    fn write_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes = from.iter().map(|part| part.len()).sum();
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        if at.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match (&self.faults, from.first()) {
            (Some(faults), Some(first)) => self.fill(faults, first, at),
            _ => self.copy(from, at, bytes),
        }
    }

    /// There is nothing behind memory.
    fn past_the_cache(&self) -> Option<Box<dyn WriteAt>> {
        None
    }

    /// Nor is there anything to bring to a disk.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: made by `of`, unmapped once, and nobody else has its address.
        let _ = unsafe { mm::munmap(self.start.as_ptr(), self.bytes) };
    }
}
