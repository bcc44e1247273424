//! Memory that processes share, cut into slabs, and whose each slab is.
//!
//! It is a file without a name: the system takes it back when the last process that has it open or mapped is gone, however
//! that came to its end. Pages are there from when they are first written, so a slab that is never used costs nothing, and one
//! that is used costs what was ever written to it.
//!
//! One process, the *reader*, hands the file to its *workers*. Of each slab there is a word in the file, which counts how often
//! the slab was claimed and says whose it is, and a record lock on the file, which the system takes from a worker that dies.
//!
//! | state | whose | left by |
//! | --- | --- | --- |
//! | free | nobody's | a worker that has the lock: *claimed*, and counted |
//! | claimed | the worker that has the lock fills it, and sends the word to the reader | the reader that gets the word: *taken*; the worker that thinks better of it: *free*; a worker that gets the lock, as the one that had it is dead: *claimed*, and counted |
//! | taken | the reader's | the reader, when it needs it no more: *free* |
//!
//! Each change is one exchange of a whole word, so two processes never both have a slab: a word that was sent by a worker that
//! has died is worth nothing once another worker has claimed its slab. A worker keeps the locks that it has got, and so its
//! slabs, whose pages it has mapped already.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr::{NonNull, null_mut},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    mm::{self, Advice, MapFlags, ProtFlags},
};

/// How many slabs a file can have: their words fill its first page.
pub(crate) const MOST_SLABS: usize = 512;
/// Where slabs begin, and what their size is a multiple of: a huge page.
pub(crate) const GRANULE: usize = 2 << 20;

const STATE: u64 = 0b11;
const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const TAKEN: u64 = 2;
const ONE_CLAIM: u64 = 1 << 2;

/// The file, open in one process.
#[derive(Debug)]
pub(crate) struct SlabFile {
    file: OwnedFd,
    words: Pages,
    slabs: usize,
    slab_bytes: usize,
    locks: Mutex<Locks>,
}

/// The record locks that a worker has. They belong to a file opened for them alone, not to the process: a process loses its
/// own when it closes any other that is the same file.
#[derive(Debug)]
struct Locks {
    /// Whose they are: a worker that was forked from another process inherits that one's.
    process: u32,
    /// The file again, opened when it is needed.
    file: Option<OwnedFd>,
    held: Vec<bool>,
}

impl SlabFile {
    /// A new file of `slabs` slabs of `slab_bytes` bytes, a multiple of [`GRANULE`].
    pub(crate) fn create(slabs: usize, slab_bytes: usize) -> io::Result<Self> {
        let file = memfd_create("pinlane", MemfdFlags::CLOEXEC)?;
        let bytes = slab_bytes
            .checked_mul(slabs)
            .and_then(|bytes| bytes.checked_add(GRANULE));
        let bytes = bytes.ok_or(io::ErrorKind::FileTooLarge)?;
        ftruncate(&file, bytes as u64)?;
        Self::open(file, slabs, slab_bytes)
    }

    /// A file of that shape that another process created.
    pub(crate) fn open(file: OwnedFd, slabs: usize, slab_bytes: usize) -> io::Result<Self> {
        let words = Pages::map(&file, 0, MOST_SLABS * size_of::<AtomicU64>())?;
        let locks = Mutex::new(Locks {
            process: std::process::id(),
            file: None,
            held: vec![false; slabs],
        });
        Ok(Self {
            file,
            words,
            slabs,
            slab_bytes,
            locks,
        })
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    pub(crate) fn slabs(&self) -> usize {
        self.slabs
    }

    pub(crate) fn slab_bytes(&self) -> usize {
        self.slab_bytes
    }

    /// Maps a slab.
    pub(crate) fn map(&self, slab: usize) -> io::Result<Pages> {
        let offset = GRANULE + slab * self.slab_bytes;
        let pages = Pages::map(&self.file, offset as u64, self.slab_bytes)?;
        // SAFETY: the mapping's own range. Advice that is refused leaves ordinary pages, which also work.
        let _refused = unsafe { mm::madvise(pages.ptr.as_ptr().cast(), pages.bytes, Advice::LinuxHugepage) };
        Ok(pages)
    }

    /// For a worker: a slab to fill, and the word to send with it. `None` when none is free.
    pub(crate) fn claim(&self) -> io::Result<Option<(usize, u64)>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.open(&self.file)?;
        for slab in (0..self.slabs).filter(|&slab| locks.held[slab]) {
            if let Some(word) = self.exchange(slab, |state| state == FREE) {
                return Ok(Some((slab, word)));
            }
        }
        for slab in 0..self.slabs {
            if locks.held[slab] || !locks.lock(slab)? {
                continue;
            }
            // Nobody else has the lock: a claim is one of a worker that is gone.
            if let Some(word) = self.exchange(slab, |state| state != TAKEN) {
                locks.held[slab] = true;
                return Ok(Some((slab, word)));
            }
            locks.unlock(slab)?;
        }
        Ok(None)
    }

    /// For a worker: sends no word for a slab that it has claimed.
    pub(crate) fn give_up(&self, slab: usize, word: u64) {
        self.change(slab, word, word & !STATE | FREE);
    }

    /// For the reader that got a word: says whether the slab is still what the word was sent for. It is the reader's then.
    pub(crate) fn take(&self, slab: usize, word: u64) -> bool {
        word & STATE == CLAIMED && slab < self.slabs && self.change(slab, word, word & !STATE | TAKEN)
    }

    /// For the reader: gives back a slab that it took with this word.
    pub(crate) fn free(&self, slab: usize, word: u64) {
        self.change(slab, word & !STATE | TAKEN, word & !STATE | FREE);
    }

    /// Claims a slab whose state allows it; gives the new word. The caller has the slab's lock.
    fn exchange(&self, slab: usize, may: impl Fn(u64) -> bool) -> Option<u64> {
        let now = self.word(slab).load(Ordering::Acquire);
        let claimed = (now & !STATE).wrapping_add(ONE_CLAIM) | CLAIMED;
        (may(now & STATE) && self.change(slab, now, claimed)).then_some(claimed)
    }

    fn change(&self, slab: usize, from: u64, to: u64) -> bool {
        let changed = self
            .word(slab)
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        changed.is_ok()
    }

    fn word(&self, slab: usize) -> &AtomicU64 {
        assert!(slab < self.slabs, "slab {slab} of {}", self.slabs);
        // SAFETY: inside the first page, aligned as the page is, and used by every process through atomics alone.
        unsafe { &*self.words.ptr.as_ptr().cast::<AtomicU64>().add(slab) }
    }
}

impl Locks {
    /// Makes them this process's, which has none to begin with.
    fn open(&mut self, file: &OwnedFd) -> io::Result<()> {
        let process = std::process::id();
        if self.process != process || self.file.is_none() {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let again = File::options().read(true).write(true).open(path)?;
            self.process = process;
            self.file = Some(again.into());
            self.held.fill(false);
        }
        Ok(())
    }

    /// Gets a slab's lock, unless another process has it.
    fn lock(&self, slab: usize) -> io::Result<bool> {
        match self.set(slab, libc::F_WRLCK) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unlock(&self, slab: usize) -> io::Result<()> {
        self.set(slab, libc::F_UNLCK)
    }

    fn set(&self, slab: usize, kind: libc::c_int) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        // SAFETY: zeros are a value of this plain struct, and what it says of the process is to be zero.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = slab as libc::off_t;
        lock.l_len = 1;
        // SAFETY: an open file and a complete record.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Pages of the file, mapped.
#[derive(Debug)]
pub(crate) struct Pages {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: this owns the mapping, not what is in it: who reads and writes that is said by the words.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn map(file: &OwnedFd, offset: u64, bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice. The file is never cut shorter.
        let raw = unsafe {
            mm::mmap(
                null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                offset,
            )
        }?;
        let ptr = NonNull::new(raw.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { ptr, bytes })
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping, and whoever had pointers into it kept the value. It does not fail.
        let _unmapped = unsafe { mm::munmap(self.ptr.as_ptr().cast(), self.bytes) };
    }
}

/// A slab that the reader has: given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    file: Arc<SlabFile>,
    slab: usize,
    word: u64,
    /// Who took it: in a forked child this is only a copy.
    process: u32,
}

impl Taken {
    /// Takes a slab, if a word is still worth something.
    pub(crate) fn new(file: &Arc<SlabFile>, slab: usize, word: u64) -> Option<Self> {
        file.take(slab, word).then(|| Self {
            file: Arc::clone(file),
            slab,
            word,
            process: std::process::id(),
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.file.free(self.slab, self.word);
        }
    }
}
