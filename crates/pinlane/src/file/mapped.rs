//! Writing to a file in memory by several threads at once, by way of a mapping.
//!
//! `pwrite` holds the file's lock while it finds pages and copies, so that threads which write to one file take turns. The
//! pages of a mapping are found without that lock. For that each is cleared before it is written, which is why one thread by
//! itself is slower this way, by half.
//!
//! Nothing here touches the mapping: the kernel is told to copy to it, as to the memory of another process
//! (`process_vm_writev`). Where a page can't be had, because the file system is full or somebody has made the file shorter,
//! that is an error then; a store of our own would be a signal that ends the process.

use std::{
    ffi::c_void,
    fs::File,
    io::{self, IoSlice},
    ptr::{NonNull, null_mut},
};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use super::sink::WriteAt;

/// With fewer processors than this, threads that take turns are as fast.
pub(crate) const WORTH_PROCESSORS: usize = 4;

/// A file in memory, mapped to be written and never to be read.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the mapping is owned, and only its address is used: the kernel orders who writes where.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// The first `bytes` bytes of a file, which is at least as long; `None` where it can't be mapped, as where it is not open
    /// for reading too.
    pub(crate) fn of(file: &File, bytes: u64) -> Option<Self> {
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
        let mapped = Self { start, bytes };
        // SAFETY: the range is the mapping. Where the file system has no huge pages, it stays as it is.
        let _refused = unsafe { mm::madvise(start.as_ptr(), bytes, Advice::LinuxHugepage) };
        Some(mapped)
    }

    /// Lets go of the page tables of a range, so that no more memory counts as this process's than is being written. The
    /// file keeps its pages.
    fn let_go(&self, at: usize, bytes: usize) {
        let start = at - at % rustix::param::page_size();
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

impl WriteAt for Mapped {
    fn write_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes = from.iter().map(|part| part.len()).sum();
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        if at.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let to = libc::iovec {
            // SAFETY: inside the mapping.
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
