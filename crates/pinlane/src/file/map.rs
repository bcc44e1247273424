//! A whole file as memory: read by the kernel page by page, when somebody looks.

use std::{
    ffi::c_void,
    fs::File,
    io,
    ptr::{NonNull, null_mut},
};

use rustix::mm::{self, MapFlags, ProtFlags};

/// A private mapping of a file. Whoever writes to its memory writes a copy of the page, which nobody else sees.
#[derive(Debug)]
pub(crate) struct FileMap {
    start: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the mapping owns its pages; access goes through its owner.
unsafe impl Send for FileMap {}
// SAFETY: as above.
unsafe impl Sync for FileMap {}

impl FileMap {
    /// The first `bytes` bytes of a file; not 0.
    ///
    /// # Safety
    ///
    /// While it lives nobody makes the file shorter or changes those bytes of it.
    ///
    /// # Errors
    ///
    /// Those of the system, and where the file is shorter.
    pub(crate) unsafe fn of(file: &File, bytes: u64) -> io::Result<Self> {
        if file.metadata()?.len() < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe { mm::mmap(null_mut(), bytes, protection, flags, file, 0) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }

    /// The byte at `offset`, which is not behind the end.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.bytes);
        // SAFETY: inside the mapping, or at its end.
        unsafe { self.start.cast::<u8>().add(offset) }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // SAFETY: made by `of`, unmapped once; whoever used the memory kept the mapping.
        let _ = unsafe { mm::munmap(self.start.as_ptr(), self.bytes) };
    }
}
