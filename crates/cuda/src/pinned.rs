//! Which host memory is page-locked: what this driver pinned, and what others did.

use std::{
    collections::BTreeMap,
    ffi::{c_int, c_uint, c_void},
    ptr::{self, NonNull},
};

use pinlane_driver::{
    Error, ErrorKind, Result,
    sync::{Mutex, lock},
};

use crate::{context::Context, status::Status};

/// Pinned for every context of the process, so that other devices copy from it at full speed too.
pub(crate) const PORTABLE: c_uint = 1;
/// Mapped into the device's addresses, so that kernels can read and write it.
pub(crate) const DEVICE_MAP: c_uint = 2;

const ATTRIBUTE_MEMORY_TYPE: c_int = 2;
const ATTRIBUTE_IS_MANAGED: c_int = 8;
const ATTRIBUTE_RANGE_START: c_int = 11;
const ATTRIBUTE_RANGE_SIZE: c_int = 12;
const MEMORY_TYPE_HOST: c_uint = 1;

/// The ranges that this driver pinned: bytes by first address. They do not overlap.
#[derive(Debug, Default)]
pub(crate) struct PinnedRanges(Mutex<BTreeMap<usize, usize>>);

impl PinnedRanges {
    /// Whether one of the ranges holds all of this one.
    ///
    /// Two neighbours together do not: CUDA knows them as two, and refuses a copy across.
    pub(crate) fn cover(&self, start: *const u8, bytes: usize) -> bool {
        let start = start.addr();
        let ranges = lock(&self.0);
        let before = ranges.range(..=start).next_back();
        // The offset is compared, not the end, which may overflow.
        before.is_some_and(|(&first, &length)| {
            let offset = start - first;
            offset < length && bytes <= length - offset
        })
    }

    /// Pins a range; see [`Driver::pin`](pinlane_driver::Driver::pin).
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn pin(&self, context: &Context, start: NonNull<u8>, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = context.enter()?.beside_captures()?;
        // SAFETY: the caller keeps the range mapped until it is unpinned. The driver API leaves no trace of a failure
        // behind, unlike the runtime API, whose last error is torch's and not touched by this.
        let status =
            unsafe { (context.api.host_register)(start.as_ptr().cast(), bytes, PORTABLE | DEVICE_MAP) };
        if status != Status::SUCCESS {
            return Err(why_not_pinned(context, status, start, bytes));
        }
        lock(&self.0).insert(start.addr().get(), bytes);
        Ok(())
    }

    /// Undoes [`pin`](Self::pin).
    ///
    /// # Safety
    ///
    /// As for [`Driver::unpin`](pinlane_driver::Driver::unpin).
    pub(crate) unsafe fn unpin(&self, context: &Context, start: NonNull<u8>, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = context.enter()?.beside_captures()?;
        // First, so that no other thread takes memory for pinned that is about not to be.
        lock(&self.0).remove(&start.addr().get());
        // SAFETY: the caller pinned the range, and no work uses it any more.
        let status = unsafe { (context.api.host_unregister)(start.as_ptr().cast()) };
        context.check(status, || {
            format!("unpinning {bytes} bytes of host memory at {start:p}")
        })
    }
}

fn why_not_pinned(context: &Context, status: Status, start: NonNull<u8>, bytes: usize) -> Error {
    let doing = format!("pinning {bytes} bytes of host memory at {start:p}");
    let kind = status.kind_of_pinning();
    if kind != ErrorKind::PinLimit && status != Status::UNKNOWN {
        return context.failure(status, kind, &doing);
    }
    let words = context.api.words_for(status);
    let message = format!(
        "{doing} failed: {words}; lower the pinned budget, or raise `ulimit -l` or the container's limit"
    );
    Error::new(kind, context.id, message).with_code(context.api.name_of(status), status.0.into())
}

/// Whether CUDA knows the whole range as pinned, whoever pinned it: torch does so with memory of its own.
///
/// The context is current.
pub(crate) fn known_to_cuda(context: &Context, start: *const u8, bytes: usize) -> bool {
    known(context, start, bytes) == Known::Pinned
}

/// What CUDA knows of a range of the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it is pageable, at least in part.
    Nothing,
    /// All of it is pinned.
    Pinned,
    /// It is managed memory, which moves between host and device: not pinned even where it lies on the host, and never
    /// staged.
    Managed,
}

/// What CUDA knows of the range. The context is current.
pub(crate) fn known(context: &Context, start: *const u8, bytes: usize) -> Known {
    let (mut kind, mut managed, mut first, mut length): (c_uint, c_uint, u64, usize) = (0, 0, 0, 0);
    let mut attributes = [
        ATTRIBUTE_MEMORY_TYPE,
        ATTRIBUTE_IS_MANAGED,
        ATTRIBUTE_RANGE_START,
        ATTRIBUTE_RANGE_SIZE,
    ];
    let mut answers: [*mut c_void; 4] = [
        ptr::from_mut(&mut kind).cast(),
        ptr::from_mut(&mut managed).cast(),
        ptr::from_mut(&mut first).cast(),
        ptr::from_mut(&mut length).cast(),
    ];
    let start = start.addr() as u64;
    // SAFETY: as many attributes as answers, each of the attribute's type. The address itself may be anything: asked
    // for several attributes at once, CUDA answers with zeros for memory that it does not know.
    let status =
        unsafe { (context.api.pointer_attributes)(4, attributes.as_mut_ptr(), answers.as_mut_ptr(), start) };
    if status != Status::SUCCESS {
        return Known::Nothing;
    }
    if managed != 0 {
        return Known::Managed;
    }
    let pinned = kind == MEMORY_TYPE_HOST
        && start
            .checked_sub(first)
            .and_then(|offset| (length as u64).checked_sub(offset))
            .is_some_and(|rest| bytes as u64 <= rest && rest > 0);
    if pinned { Known::Pinned } else { Known::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(ranges: &[(usize, usize)]) -> PinnedRanges {
        PinnedRanges(Mutex::new(ranges.iter().copied().collect()))
    }

    fn at(address: usize) -> *const u8 {
        ptr::without_provenance(address)
    }

    #[test]
    fn a_range_is_pinned_in_all_its_parts_and_nowhere_else() {
        let ranges = ranges(&[(0x1000, 0x1000), (0x8000, 0x100)]);
        for (start, bytes) in [
            (0x1000, 0x1000),
            (0x1000, 1),
            (0x1fff, 1),
            (0x1800, 0x800),
            (0x80ff, 1),
        ] {
            assert!(ranges.cover(at(start), bytes), "{start:#x}, {bytes:#x}");
        }
        for (start, bytes) in [
            (0xfff, 1),
            (0xfff, 2),
            (0x2000, 1),
            (0x1fff, 2),
            (0x1000, 0x1001),
            (0x8000, 0x101),
        ] {
            assert!(!ranges.cover(at(start), bytes), "{start:#x}, {bytes:#x}");
        }
    }

    #[test]
    fn neighbours_are_two_ranges_and_not_one() {
        let ranges = ranges(&[(0x1000, 0x1000), (0x2000, 0x1000)]);
        assert!(ranges.cover(at(0x1000), 0x1000) && ranges.cover(at(0x2000), 0x1000));
        assert!(!ranges.cover(at(0x1fff), 2));
    }

    #[test]
    fn a_range_that_would_wrap_around_is_not_pinned() {
        let ranges = ranges(&[(0x1000, 0x1000)]);
        assert!(!ranges.cover(at(0x1800), usize::MAX));
        assert!(!ranges.cover(at(usize::MAX), usize::MAX));
    }
}
