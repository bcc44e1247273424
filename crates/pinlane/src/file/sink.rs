//! An open file that tensors are written to.
//!
//! Its length is known before anything is written, and on a disk its room is reserved: a full disk is told at once, and
//! writes past the page cache, which do not make the file longer, need not wait for each other. Long files in memory are
//! written by way of a mapping, where there are processors enough for that.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use pinlane_driver::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
    available_parallelism,
};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::{Errno, retry_on_intr},
};

use super::{FileAccess, cached, mapped::Mapped};
use crate::{Error, Result};

/// A file that gets longer than this is written past the page cache, unless someone decides: what is that long would
/// drive out of it what others want to find there, and is on the disk no sooner.
const LONG: u64 = 64 << 20;

/// An open file, to write tensors to. Cheap to clone; clones are the same file.
///
/// ```
/// use pinlane::{DType, Device, FileSink, Tensor, Tree};
///
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let path = folder.path().join("weights");
/// let there = Tensor::ones(DType::U8, &[4])?.to(&Device::open("sim:0")?)?;
/// let sink = FileSink::create(&path, 6)?;
/// there.write_to(&[(sink.clone(), 2)])?;
/// sink.sync()?; // now it is on the disk, too
/// assert_eq!(std::fs::read(&path).expect("the file"), [0, 0, 1, 1, 1, 1]);
/// # Ok::<(), pinlane::Error>(())
/// ```
#[derive(Clone)]
pub struct FileSink(Arc<OpenSink>);

impl FileSink {
    /// Makes a file of `bytes` bytes, which are zero until they are written. One that exists loses what it holds.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where it can't be made, or the disk has no room for it.
    pub fn create(path: impl AsRef<Path>, bytes: u64) -> Result<Self> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // A file that may not be read is written all the same.
        let opened = match options.clone().read(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => options.open(path),
            opened => opened,
        };
        let file = opened.map_err(|source| Error::File {
            doing: "creating".to_owned(),
            path: path.to_owned(),
            source,
        })?;
        Self::new(file, path, bytes, FileAccess::default())
    }

    /// A file that is open for writing, to get `bytes` bytes. `path` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where the disk has no room for it.
    pub fn new(file: File, path: impl Into<PathBuf>, bytes: u64, access: FileAccess) -> Result<Self> {
        let path = path.into();
        let in_memory = cached::is_in_memory(&file);
        let reserved = if in_memory {
            // Reserving clears all pages, in one thread, before the first is written.
            file.set_len(bytes)
        } else {
            reserve(&file, bytes)
        };
        reserved.map_err(|source| Error::File {
            doing: format!("making room for {bytes} bytes in"),
            path: path.clone(),
            source,
        })?;
        let direct = match access {
            FileAccess::Auto => bytes >= LONG && !in_memory,
            FileAccess::Buffered => false,
            FileAccess::Direct => !in_memory,
        };
        let mapped = if in_memory && bytes >= LONG && access != FileAccess::Buffered {
            let processors = available_parallelism().map_or(1, usize::from);
            Mapped::of(&file, bytes).filter(|mapped| mapped.pays(processors))
        } else {
            None
        };
        Ok(Self::of(Box::new(file), path, bytes, direct, mapped))
    }

    /// A file whose bytes `writer` takes; with `direct`, past the page cache as far as it can.
    #[cfg(test)]
    pub(crate) fn over(writer: Box<dyn WriteAt>, path: PathBuf, bytes: u64, direct: bool) -> Self {
        Self::of(writer, path, bytes, direct, None)
    }

    /// The same, and where it is `mapped` by way of that, as far as it can.
    pub(crate) fn of(
        writer: Box<dyn WriteAt>,
        path: PathBuf,
        bytes: u64,
        direct: bool,
        mapped: Option<Mapped>,
    ) -> Self {
        Self(Arc::new(OpenSink {
            path,
            bytes,
            writer,
            direct: OnceLock::new(),
            avoids_direct: AtomicBool::new(!direct),
            mapped,
            avoids_mapped: AtomicBool::new(false),
        }))
    }

    /// Where it was made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How long it is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Returns when all that was written is on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where the disk failed.
    pub fn sync(&self) -> Result<()> {
        let synced = self.0.writer.sync();
        synced.map_err(|source| {
            self.0
                .error("writing to the disk what is cached of".to_owned(), source)
        })
    }

    /// Whether both are the same open file.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn opened(&self) -> &Arc<OpenSink> {
        &self.0
    }
}

impl fmt::Debug for FileSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileSink").field(&self.path()).finish()
    }
}

/// Makes a file `bytes` long, with room on the disk for all of them where the file system can say so.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    if bytes == 0 {
        return Ok(());
    }
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        reserved => Ok(reserved?),
    }
}

/// What a file is to whoever writes pieces of it. Tests have one that fails.
pub(crate) trait WriteAt: fmt::Debug + Send + Sync {
    /// Writes `from`, one after the other, from `offset` on; says how many bytes.
    fn write_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// The same file past the page cache, which takes whole pages in memory and in the file; `None` where that can't be had.
    fn past_the_cache(&self) -> Option<Box<dyn WriteAt>>;

    /// Returns when all that was written is on the disk.
    fn sync(&self) -> io::Result<()>;
}

impl WriteAt for File {
    fn write_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, from, offset)?)
    }

    fn past_the_cache(&self) -> Option<Box<dyn WriteAt>> {
        // The file that is open, whatever has its name by now.
        let name = format!("/proc/self/fd/{}", self.as_raw_fd());
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(name);
        match opened {
            Ok(file) => Some(Box::new(file)),
            Err(error) => {
                tracing::debug!(%error, "writing a file through the page cache: it can't be had past it");
                None
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// A file that is open for writing.
#[derive(Debug)]
pub(crate) struct OpenSink {
    path: PathBuf,
    bytes: u64,
    writer: Box<dyn WriteAt>,
    /// The same past the page cache, once something was to be written that way.
    direct: OnceLock<Option<Box<dyn WriteAt>>>,
    /// Whether nothing is written past the page cache: as was decided, or because it turned out not to work.
    avoids_direct: AtomicBool,
    /// The same by way of a mapping, which several threads may write at once.
    mapped: Option<Mapped>,
    /// Whether that turned out not to work.
    avoids_mapped: AtomicBool,
}

impl OpenSink {
    pub(crate) fn writer(&self) -> &dyn WriteAt {
        &*self.writer
    }

    /// The writer for whole pages, where there is one.
    pub(crate) fn direct(&self) -> Option<&dyn WriteAt> {
        if self.avoids_direct.load(Ordering::Relaxed) {
            return None;
        }
        self.direct
            .get_or_init(|| self.writer.past_the_cache())
            .as_deref()
    }

    /// Writes everything through the page cache from now on.
    pub(crate) fn give_up_direct(&self) {
        self.avoids_direct.store(true, Ordering::Relaxed);
    }

    /// The writer for what is worth a thread's turn, where that is another.
    pub(crate) fn mapped(&self) -> Option<&dyn WriteAt> {
        let mapped = self.mapped.as_ref()?;
        (!self.avoids_mapped.load(Ordering::Relaxed)).then_some(mapped)
    }

    /// Writes nothing by way of the mapping from now on.
    pub(crate) fn give_up_mapped(&self) {
        self.avoids_mapped.store(true, Ordering::Relaxed);
    }

    /// An error about this file.
    pub(crate) fn error(&self, doing: String, source: io::Error) -> Error {
        Error::File {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}
