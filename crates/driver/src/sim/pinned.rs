//! The host ranges that a machine knows as pinned.

use std::{collections::BTreeMap, ptr::NonNull};

use super::state::error;
use crate::{Error, ErrorKind};

#[derive(Debug)]
struct Range {
    bytes: usize,
    /// Enqueued pieces of work that read or write it.
    users: u32,
}

/// Why a range can't be pinned or unpinned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PinError {
    /// Nothing to pin.
    Empty,
    /// A part of it is pinned already.
    Overlap { start: usize, bytes: usize },
    /// The host allows `limit` bytes, of which `used` are taken.
    Limit { used: u64, limit: u64 },
    /// No range starts there.
    Unknown,
    /// The range that starts there has another size.
    WrongSize { bytes: usize },
}

impl PinError {
    /// The error of a device's call that pins or unpins (`verb`) `bytes` bytes at `ptr`.
    pub(super) fn on(&self, device: usize, verb: &str, ptr: NonNull<u8>, bytes: usize) -> Error {
        let kind = match self {
            Self::Limit { .. } => ErrorKind::PinLimit,
            _ => ErrorKind::InvalidArgument,
        };
        let why = match self {
            Self::Empty => "there is nothing to pin".to_owned(),
            Self::Overlap { start, bytes } => {
                format!("the {bytes} bytes at {start:#x} are pinned already; unpin them first")
            }
            Self::Limit { used, limit } => {
                format!("the host allows {limit} bytes, of which {used} are pinned; unpin some")
            }
            Self::Unknown => "no pinned range starts there".to_owned(),
            Self::WrongSize { bytes } => {
                format!("the range pinned there has {bytes}; unpin it as it was pinned")
            }
        };
        error(device, kind, format!("{verb} {bytes} bytes at {ptr:p}: {why}"))
    }
}

/// Pinned ranges by address. They never overlap.
#[derive(Debug)]
pub(super) struct PinnedRanges {
    by_start: BTreeMap<usize, Range>,
    limit: Option<u64>,
    bytes: u64,
    peak: u64,
}

impl PinnedRanges {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            by_start: BTreeMap::new(),
            limit,
            bytes: 0,
            peak: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    pub(super) fn count(&self) -> usize {
        self.by_start.len()
    }

    pub(super) fn pin(&mut self, start: usize, bytes: usize) -> Result<(), PinError> {
        if bytes == 0 {
            return Err(PinError::Empty);
        }
        // Ranges do not overlap, so only the last one that starts before our end can reach into us.
        if let Some((&other, range)) = self.by_start.range(..start.saturating_add(bytes)).next_back()
            && other + range.bytes > start
        {
            return Err(PinError::Overlap {
                start: other,
                bytes: range.bytes,
            });
        }
        if let Some(limit) = self.limit
            && self.bytes + bytes as u64 > limit
        {
            return Err(PinError::Limit {
                used: self.bytes,
                limit,
            });
        }
        self.by_start.insert(start, Range { bytes, users: 0 });
        self.bytes += bytes as u64;
        self.peak = self.peak.max(self.bytes);
        Ok(())
    }

    /// Ends a range, and says whether enqueued work still uses it.
    pub(super) fn unpin(&mut self, start: usize, bytes: usize) -> Result<bool, PinError> {
        let range = self.by_start.get(&start).ok_or(PinError::Unknown)?;
        if range.bytes != bytes {
            return Err(PinError::WrongSize { bytes: range.bytes });
        }
        let in_use = range.users > 0;
        self.by_start.remove(&start);
        self.bytes -= bytes as u64;
        Ok(in_use)
    }

    /// Whether every byte is pinned, by one range or by several that follow each other without a gap.
    pub(super) fn covers(&self, start: usize, bytes: usize) -> bool {
        let Some(end) = start.checked_add(bytes) else {
            return false;
        };
        let mut reached = start;
        loop {
            match self.by_start.range(..=reached).next_back() {
                Some((&other, range)) if other + range.bytes > reached => reached = other + range.bytes,
                _ => return false,
            }
            if reached >= end {
                return true;
            }
        }
    }

    /// Marks the ranges under `bytes` bytes from `start` on as used by one more piece of enqueued work.
    pub(super) fn hold(&mut self, start: usize, bytes: usize) {
        self.each_under(start, bytes, |range| range.users += 1);
    }

    /// Undoes [`hold`](Self::hold). A range that was unpinned in the meantime is passed over.
    pub(super) fn release(&mut self, start: usize, bytes: usize) {
        self.each_under(start, bytes, |range| range.users = range.users.saturating_sub(1));
    }

    fn each_under(&mut self, start: usize, bytes: usize, mut act: impl FnMut(&mut Range)) {
        for (&other, range) in self.by_start.range_mut(..start + bytes).rev() {
            if other + range.bytes <= start {
                break;
            }
            act(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ranges_cover_what_spans_them_and_a_gap_does_not() {
        let mut pinned = PinnedRanges::new(None);
        pinned.pin(1000, 100).unwrap();
        pinned.pin(1100, 50).unwrap();
        pinned.pin(1200, 50).unwrap();
        assert!(pinned.covers(1000, 150));
        assert!(pinned.covers(1099, 2));
        assert!(!pinned.covers(1149, 2));
        assert!(!pinned.covers(1100, 150));
        assert!(!pinned.covers(999, 2));
        assert!(!pinned.covers(usize::MAX, 2));
    }

    #[test]
    fn overlaps_limits_and_strangers_are_refused() {
        let mut pinned = PinnedRanges::new(Some(200));
        pinned.pin(1000, 100).unwrap();
        let overlap = PinError::Overlap {
            start: 1000,
            bytes: 100,
        };
        assert_eq!(pinned.pin(1099, 10), Err(overlap));
        assert_eq!(
            pinned.pin(900, 101),
            Err(PinError::Overlap {
                start: 1000,
                bytes: 100
            })
        );
        assert_eq!(
            pinned.pin(2000, 101),
            Err(PinError::Limit {
                used: 100,
                limit: 200
            })
        );
        assert_eq!(pinned.pin(2000, 0), Err(PinError::Empty));
        assert_eq!(pinned.unpin(1001, 99), Err(PinError::Unknown));
        assert_eq!(pinned.unpin(1000, 99), Err(PinError::WrongSize { bytes: 100 }));
        assert_eq!(pinned.unpin(1000, 100), Ok(false));
        assert_eq!((pinned.bytes(), pinned.peak(), pinned.count()), (0, 100, 0));
    }

    #[test]
    fn unpinning_tells_whether_work_still_uses_the_range() {
        let mut pinned = PinnedRanges::new(None);
        pinned.pin(1000, 100).unwrap();
        pinned.pin(1100, 100).unwrap();
        pinned.hold(1050, 100);
        assert_eq!(pinned.unpin(1100, 100), Ok(true));
        pinned.release(1050, 100);
        assert_eq!(pinned.unpin(1000, 100), Ok(false));
    }
}
