//! Pinning: what is pinned, and what is not any more.

use super::{Outcome, Subject, bytes::ensure_pattern, ensure, rig::Host};
use crate::{MemCopy, PinnedRange};

const BYTES: usize = 256 << 10;

fn ensure_pinned(subject: &Subject, host: &Host, offset: usize, bytes: usize, expected: bool) -> Outcome {
    let found = subject.driver().is_pinned(host.at(offset), bytes);
    ensure(found == expected, || {
        format!("is_pinned says {found} for {bytes} bytes at {offset}, and should say {expected}")
    })
}

pub(super) fn a_pinned_range_is_pinned_in_all_its_parts(subject: &Subject) -> Outcome {
    let mut host = subject.pinned(BYTES)?;
    for (offset, bytes) in [(0, BYTES), (0, 1), (BYTES - 1, 1), (4097, 3), (1, BYTES - 1)] {
        ensure_pinned(subject, &host, offset, bytes, true)?;
    }
    let pageable = Host::pageable(BYTES);
    ensure_pinned(subject, &pageable, 0, BYTES, false)?;
    ensure_pinned(subject, &pageable, 100, 1, false)?;
    host.unpin();
    ensure_pinned(subject, &host, 0, BYTES, false)?;
    ensure_pinned(subject, &host, 0, 1, false)
}

pub(super) fn pinning_a_range_leaves_its_neighbour_alone(subject: &Subject) -> Outcome {
    const HALF: usize = BYTES / 2;
    let mut host = Host::pageable(BYTES);
    let memory = subject.memory(BYTES)?;
    let queue = subject.queue()?;
    host.fill(1);
    let pin = |offset: usize| {
        let start = std::ptr::NonNull::new(host.at(offset)).expect("an allocation is not at zero");
        // SAFETY: the memory outlives the pin, the halves do not overlap, and each copy is synchronised with before
        // its pin ends.
        unsafe { PinnedRange::new(subject.driver(), start, HALF) }
    };
    let upper = pin(HALF)?;
    ensure_pinned(subject, &host, HALF, HALF, true)?;
    ensure_pinned(subject, &host, 0, HALF, false)?;
    ensure_pinned(subject, &host, HALF - 1, 2, false)?;
    let lower = pin(0)?;
    ensure_pinned(subject, &host, 0, HALF, true)?;
    ensure_pinned(subject, &host, HALF, HALF, true)?;
    for offset in [0, HALF] {
        queue.copy(MemCopy::to_device(
            memory.ptr().offset(offset),
            host.at(offset),
            HALF,
        ))?;
    }
    queue.synchronize()?;
    drop(upper);
    ensure_pinned(subject, &host, 0, HALF, true)?;
    ensure_pinned(subject, &host, HALF, HALF, false)?;
    drop(lower);
    ensure_pinned(subject, &host, 0, HALF, false)?;
    queue.ensure_pattern(&memory, 1, "copied from two neighbouring ranges")
}

pub(super) fn memory_that_was_unpinned_can_be_copied_and_pinned_again(subject: &Subject) -> Outcome {
    let mut host = subject.pinned(BYTES)?;
    let memory = subject.memory(BYTES)?;
    host.unpin();
    host.fill(2);
    let queue = subject.queue()?;
    queue.copy(MemCopy::to_device(memory.ptr(), host.ptr(), BYTES))?;
    queue.synchronize()?;
    host.fill(3);
    queue.ensure_pattern(&memory, 2, "copied from memory that is not pinned any more")?;
    let start = std::ptr::NonNull::new(host.ptr()).expect("an allocation is not at zero");
    // SAFETY: the memory outlives the pin, and the copy is synchronised with before the pin ends.
    let again = unsafe { PinnedRange::new(subject.driver(), start, BYTES)? };
    ensure_pinned(subject, &host, 0, BYTES, true)?;
    queue.copy(MemCopy::to_host(host.ptr(), memory.ptr(), BYTES))?;
    queue.synchronize()?;
    drop(again);
    ensure_pattern(host.read(), 2, "copied to memory that was pinned again")
}
