//! A file that does as it is told: what it holds, what of it is cached, how much a call gives, and which bytes it fails at.

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut},
    ops::Range,
    path::PathBuf,
};

use pinlane_driver::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
    lock,
};

use super::{
    FileAccess, FileSink, FileSource,
    sink::WriteAt,
    source::{PAGE, ReadAt},
};

/// A file in memory, with its faults.
#[derive(Clone, Debug)]
pub(crate) struct FaultyFile {
    pub(crate) content: Arc<Vec<u8>>,
    /// The file ends here by now.
    pub(crate) end: Arc<AtomicU64>,
    /// Reading the byte here fails.
    pub(crate) bad: Arc<AtomicU64>,
    /// The most that one call gives, in bytes.
    pub(crate) most: usize,
    /// How many calls there are until one is interrupted, which then gives nothing; 0 for never.
    pub(crate) interrupted: usize,
    /// What is in the page cache.
    pub(crate) cached: Range<u64>,
    pub(crate) has_direct: bool,
    /// Whether reads past the page cache are refused after all.
    pub(crate) refuses_direct: bool,
    pub(crate) is_direct: bool,
    pub(crate) calls: Arc<AtomicUsize>,
    pub(crate) direct_calls: Arc<AtomicUsize>,
}

/// A place that is never reached.
pub(crate) const NOWHERE: u64 = u64::MAX;
/// More than any call asks for.
pub(crate) const MOST: usize = 1 << 40;

impl FaultyFile {
    /// One without faults, all cached.
    pub(crate) fn new(content: Vec<u8>) -> Self {
        let bytes = content.len() as u64;
        Self {
            content: Arc::new(content),
            end: Arc::new(AtomicU64::new(bytes)),
            bad: Arc::new(AtomicU64::new(NOWHERE)),
            most: MOST,
            interrupted: 0,
            cached: 0..bytes,
            has_direct: true,
            refuses_direct: false,
            is_direct: false,
            calls: Arc::default(),
            direct_calls: Arc::default(),
        }
    }

    pub(crate) fn source(&self, access: FileAccess) -> FileSource {
        let bytes = self.content.len() as u64;
        FileSource::over(
            Box::new(self.clone()),
            PathBuf::from("faulty"),
            bytes,
            access,
            false,
        )
    }

    /// How often it was read.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn direct_calls(&self) -> usize {
        self.direct_calls.load(Ordering::Relaxed)
    }
}

impl ReadAt for FaultyFile {
    fn read_at(&self, into: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        let call = 1 + self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(!into.is_empty() && into.len() <= 1024, "{} vectors", into.len());
        if self.interrupted > 0 && call.is_multiple_of(self.interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.is_direct {
            self.direct_calls.fetch_add(1, Ordering::Relaxed);
            let aligned = |number: u64| number.is_multiple_of(PAGE);
            let whole = into
                .iter()
                .all(|part| aligned(part.as_ptr().addr() as u64) && aligned(part.len() as u64));
            if self.refuses_direct || !aligned(offset) || !whole {
                return Err(ErrorKind::InvalidInput.into());
            }
        }
        let bad = self.bad.load(Ordering::Relaxed);
        // Past the cache it is whole pages that are given, and that are bad.
        let (most, bad) = match self.is_direct {
            true => (self.most.next_multiple_of(PAGE as usize), bad / PAGE * PAGE),
            false => (self.most, bad),
        };
        if offset == bad {
            return Err(ErrorKind::Other.into());
        }
        let mut end = self.end.load(Ordering::Relaxed);
        if bad > offset {
            end = end.min(bad);
        }
        let mut at = offset;
        let mut left = most;
        for part in into {
            let bytes = part.len().min(left).min(end.saturating_sub(at) as usize);
            part[..bytes].copy_from_slice(&self.content[at as usize..][..bytes]);
            at += bytes as u64;
            left -= bytes;
            if bytes < part.len() {
                break;
            }
        }
        Ok((at - offset) as usize)
    }

    fn is_cached(&self, range: Range<u64>) -> bool {
        self.cached.start <= range.start && range.end <= self.cached.end
    }

    fn prepare(&self, range: Range<u64>) {
        assert!(range.end <= self.content.len() as u64);
    }

    fn past_the_cache(&self) -> Option<Box<dyn ReadAt>> {
        let direct = Self {
            is_direct: true,
            ..self.clone()
        };
        self.has_direct.then(|| Box::new(direct) as _)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.end.load(Ordering::Relaxed))
    }
}

/// A file in memory that is written to, with its faults.
#[derive(Clone, Debug)]
pub(crate) struct FaultySink {
    pub(crate) content: Arc<Mutex<Vec<u8>>>,
    /// The disk has no room for the byte here.
    pub(crate) full: Arc<AtomicU64>,
    /// The most that one call takes, in bytes.
    pub(crate) most: usize,
    pub(crate) interrupted: usize,
    pub(crate) refuses_direct: bool,
    pub(crate) is_direct: bool,
    pub(crate) calls: Arc<AtomicUsize>,
    pub(crate) direct_calls: Arc<AtomicUsize>,
}

impl FaultySink {
    /// One without faults, which holds `content`.
    pub(crate) fn new(content: Vec<u8>) -> Self {
        Self {
            content: Arc::new(Mutex::new(content)),
            full: Arc::new(AtomicU64::new(NOWHERE)),
            most: MOST,
            interrupted: 0,
            refuses_direct: false,
            is_direct: false,
            calls: Arc::default(),
            direct_calls: Arc::default(),
        }
    }

    pub(crate) fn sink(&self, direct: bool) -> FileSink {
        let bytes = lock(&self.content).len() as u64;
        FileSink::over(Box::new(self.clone()), PathBuf::from("faulty"), bytes, direct)
    }
}

impl WriteAt for FaultySink {
    fn write_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let call = 1 + self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(!from.is_empty() && from.len() <= 1024, "{} vectors", from.len());
        if self.interrupted > 0 && call.is_multiple_of(self.interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        let full = self.full.load(Ordering::Relaxed);
        if offset == full {
            return Err(ErrorKind::StorageFull.into());
        }
        let mut left = self.most;
        if self.is_direct {
            self.direct_calls.fetch_add(1, Ordering::Relaxed);
            let aligned = |number: u64| number.is_multiple_of(PAGE);
            let whole = from
                .iter()
                .all(|part| aligned(part.as_ptr().addr() as u64) && aligned(part.len() as u64));
            if self.refuses_direct || !aligned(offset) || !whole {
                return Err(ErrorKind::InvalidInput.into());
            }
            left = self.most.next_multiple_of(PAGE as usize);
            if (offset..offset + PAGE).contains(&full) {
                return Err(ErrorKind::StorageFull.into());
            }
        }
        if full > offset {
            let room = (full - offset) as usize;
            left = left.min(if self.is_direct {
                room / PAGE as usize * PAGE as usize
            } else {
                room
            });
        }
        let mut content = lock(&self.content);
        let mut at = offset as usize;
        for part in from {
            let bytes = part.len().min(left);
            content[at..][..bytes].copy_from_slice(&part[..bytes]);
            at += bytes;
            left -= bytes;
        }
        Ok(at - offset as usize)
    }

    fn past_the_cache(&self) -> Option<Box<dyn WriteAt>> {
        Some(Box::new(Self {
            is_direct: true,
            ..self.clone()
        }))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
