//! An open file that tensors lie in.
//!
//! All tensors of one file share it: one descriptor, and a second one without the page cache, opened when something is read
//! that is not in it. Which way a range goes is decided anew for each; [`FileAccess`] overrides that.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, IoSliceMut},
    ops::Range,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use pinlane_driver::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use rustix::fs::{Advice, fadvise};

use super::{cached, map::FileMap};
use crate::{DType, Error, Layout, Result, Tensor, memory::storage::Storage};

/// Alignment in memory and in the file that every system takes for what goes past the page cache.
pub(crate) const PAGE: u64 = 4096;
/// A shorter range is read through the page cache without asking whether it is there.
const WORTH_ASKING: u64 = 64 << 10;

/// How a file is read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileAccess {
    /// What is in the page cache is read from there; what is not, past it, where the file system allows that. Files longer
    /// than 64 MiB are written past it.
    #[default]
    Auto,
    /// Through the page cache, which then holds what was read or written, by plain calls.
    Buffered,
    /// Past the page cache, where the file system allows that.
    Direct,
}

/// An open file, to take tensors from. Cheap to clone; clones are the same file.
///
/// ```
/// use pinlane::{DType, Device, FileSource, Tree};
///
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let path = folder.path().join("weights");
/// std::fs::write(&path, [0, 0, 1, 2, 3, 4, 5, 6]).expect("a file");
/// let file = FileSource::open(&path)?;
/// let (first, second) = (file.tensor(2, DType::U8, &[2])?, file.tensor(4, DType::U8, &[4])?);
/// let (first, second) = (first, second).to(&Device::host())?; // both are read here
/// assert_eq!(first.as_bytes()?, [1, 2]);
/// assert_eq!(second.as_bytes()?, [3, 4, 5, 6]);
/// # Ok::<(), pinlane::Error>(())
/// ```
#[derive(Clone)]
pub struct FileSource(Arc<OpenFile>);

impl FileSource {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where it can't be opened, or is a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, FileAccess::default())
    }

    /// Opens a file to be read in this way.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, access: FileAccess) -> Result<Self> {
        let path = path.as_ref();
        let fail = |doing: &str, source| Error::File {
            doing: doing.to_owned(),
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(|source| fail("opening", source))?;
        let metadata = file
            .metadata()
            .map_err(|source| fail("asking for the size of", source))?;
        if metadata.is_dir() {
            return Err(fail("opening", io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self::of(file, path, metadata.len(), access))
    }

    /// A file that is open, and so long.
    pub(crate) fn of(file: File, path: &Path, bytes: u64, access: FileAccess) -> Self {
        let in_memory = cached::is_in_memory(&file);
        cached::expect_questions(&file);
        let access = if in_memory { FileAccess::Buffered } else { access };
        Self::over(Box::new(file), path.to_owned(), bytes, access, in_memory)
    }

    /// A file whose bytes `reader` gives.
    pub(crate) fn over(
        reader: Box<dyn ReadAt>,
        path: PathBuf,
        bytes: u64,
        access: FileAccess,
        in_memory: bool,
    ) -> Self {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(OpenFile {
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            path,
            bytes,
            access,
            in_memory,
            reader,
            direct: OnceLock::new(),
            refuses_direct: AtomicBool::new(false),
        }))
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How long it was when it was opened, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// The tensor whose elements lie in the file from byte `offset` on, in row-major order; they are read when it is moved.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where the file is shorter than `offset` and the tensor together; [`Error::Layout`] where its size
    /// overflows.
    pub fn tensor(&self, offset: u64, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let layout = Layout::contiguous(shape)?;
        let bytes = dtype.bytes_for(layout.elements())?;
        let has = self.bytes();
        if offset.checked_add(bytes as u64).is_none_or(|end| end > has) {
            let short = io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file has {has} bytes"));
            return Err(self
                .0
                .error(format!("taking {bytes} bytes at offset {offset} of"), short));
        }
        Ok(Tensor::new(dtype, layout, Storage::file(self, offset)))
    }

    /// The whole file as memory that the kernel reads when somebody looks. A tensor of it is at the same place in memory, from
    /// the start, as in the file.
    ///
    /// # Safety
    ///
    /// While a tensor over it lives nobody makes the file shorter, which ends a process that looks at bytes that are no
    /// longer there (`SIGBUS`), nor changes its bytes in place. Replacing the file by renaming another, or removing it, does neither.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where the system refuses, as for a file that is shorter by now.
    pub unsafe fn map(&self) -> Result<Tensor> {
        let bytes = usize::try_from(self.bytes()).unwrap_or(usize::MAX);
        if bytes == 0 {
            return Tensor::zeros(DType::U8, &[0]);
        }
        // SAFETY: the caller's promise.
        let mapped = unsafe { self.0.reader.map(self.bytes()) };
        let mapped: Arc<FileMap> = Arc::new(mapped.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.0.error("mapping".to_owned(), self.0.cut_off()),
            _ => self.0.error("mapping".to_owned(), source),
        })?);
        let layout = Layout::contiguous(&[bytes])?;
        // SAFETY: the mapping has so many bytes, which are initialised, and by the caller's promise stay and are not written.
        unsafe { Tensor::from_raw_parts(mapped.at(0), bytes, DType::U8, layout, None, mapped) }
    }

    /// Fills `into` with the bytes from `offset` on, through the page cache.
    pub(crate) fn read_at(&self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let read = match self.0.reader.read_at(&mut [IoSliceMut::new(into)], offset) {
                Ok(0) => Err(self.0.cut_off()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read,
            };
            let doing = || format!("reading {} bytes at offset {offset} of", into.len());
            let read = read.map_err(|error| self.0.error(doing(), error))?;
            offset += read as u64;
            into = &mut into[read..];
        }
        Ok(())
    }

    pub(crate) fn opened(&self) -> &Arc<OpenFile> {
        &self.0
    }
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileSource").field(&self.path()).finish()
    }
}

/// What a file is to whoever reads pieces of it. Tests have one that fails.
pub(crate) trait ReadAt: fmt::Debug + Send + Sync {
    /// Reads from `offset` on into `into`, one after the other; says how many bytes, which may be fewer than there is room
    /// for, and are none only at the end of the file.
    fn read_at(&self, into: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize>;

    /// Whether most of a range is in the page cache.
    fn is_cached(&self, range: Range<u64>) -> bool;

    /// Has the system begin to read a range into the page cache.
    fn prepare(&self, range: Range<u64>);

    /// The same file past the page cache, which takes whole pages in memory and in the file; `None` where that can't be had.
    fn past_the_cache(&self) -> Option<Box<dyn ReadAt>>;

    /// How long the file is at this moment.
    fn bytes(&self) -> io::Result<u64>;

    /// Its first `bytes` bytes as memory.
    ///
    /// # Safety
    ///
    /// As for [`FileMap::of`].
    unsafe fn map(&self, bytes: u64) -> io::Result<FileMap> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{bytes} bytes of what is no file can't be memory"),
        ))
    }
}

impl ReadAt for File {
    fn read_at(&self, into: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::preadv(self, into, offset)?)
    }

    fn is_cached(&self, range: Range<u64>) -> bool {
        cached::is_cached(self, range)
    }

    fn prepare(&self, range: Range<u64>) {
        // Advice that is refused costs time and nothing else.
        if let Some(bytes) = std::num::NonZeroU64::new(range.end - range.start) {
            let _refused = fadvise(self, range.start, Some(bytes), Advice::WillNeed);
        }
    }

    fn past_the_cache(&self) -> Option<Box<dyn ReadAt>> {
        // The file that is open, whatever has its name by now.
        let name = format!("/proc/self/fd/{}", self.as_raw_fd());
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(name);
        match opened {
            Ok(file) => Some(Box::new(file)),
            Err(error) => {
                tracing::debug!(%error, "reading a file through the page cache: it can't be had past it");
                None
            }
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    unsafe fn map(&self, bytes: u64) -> io::Result<FileMap> {
        // SAFETY: the caller's promise.
        unsafe { FileMap::of(self, bytes) }
    }
}

/// A file that is open for reading.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// Files that are opened later have higher ones.
    number: u64,
    path: PathBuf,
    /// When it was opened.
    bytes: u64,
    access: FileAccess,
    in_memory: bool,
    reader: Box<dyn ReadAt>,
    /// The same past the page cache, once something was to be read that way.
    direct: OnceLock<Option<Box<dyn ReadAt>>>,
    /// Whether reading past the page cache turned out not to work.
    refuses_direct: AtomicBool,
}

/// How a range of a file is read.
pub(crate) enum Way<'a> {
    /// From the page cache, where it is.
    Cached(&'a dyn ReadAt),
    /// Through the page cache, where it is not.
    Buffered(&'a dyn ReadAt),
    /// Past the page cache, in whole pages.
    Direct(&'a dyn ReadAt),
}

impl OpenFile {
    /// Its place in the order in which files were opened.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How a range is best read at this moment.
    pub(crate) fn way(&self, range: &Range<u64>) -> Way<'_> {
        let reader = &*self.reader;
        let asks = self.access != FileAccess::Direct;
        if asks
            && (self.in_memory || range.end - range.start < WORTH_ASKING || reader.is_cached(range.clone()))
        {
            return Way::Cached(reader);
        }
        match self.direct() {
            Some(direct) => Way::Direct(direct),
            None => Way::Buffered(reader),
        }
    }

    /// Reads everything through the page cache from now on.
    pub(crate) fn give_up_direct(&self) {
        self.refuses_direct.store(true, Ordering::Relaxed);
    }

    fn direct(&self) -> Option<&dyn ReadAt> {
        if self.access == FileAccess::Buffered || self.refuses_direct.load(Ordering::Relaxed) {
            return None;
        }
        self.direct
            .get_or_init(|| self.reader.past_the_cache())
            .as_deref()
    }

    /// An error about this file.
    pub(crate) fn error(&self, doing: String, source: io::Error) -> Error {
        Error::File {
            doing,
            path: self.path.clone(),
            source,
        }
    }

    /// Why bytes that were there when the file was opened can't be read.
    pub(crate) fn cut_off(&self) -> io::Error {
        let now = match self.reader.bytes() {
            Ok(bytes) => format!("it has {bytes} bytes now"),
            Err(error) => format!("it does not tell its size now ({error})"),
        };
        let had = self.bytes;
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "the file ends before that: it had {had} bytes when it was opened, and {now}; do not change files while they are read"
            ),
        )
    }
}
