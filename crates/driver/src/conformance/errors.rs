//! What is wrong or missing is an error, never a panic, and the driver goes on.

use std::time::Duration;

use super::{Outcome, Stop, Subject, bytes::pattern, ensure_error, rig::Host};
use crate::{Address, ErrorKind, MemCopy, Timing};

fn host_to_host(dst: &Host, src: &Host, bytes: usize) -> MemCopy {
    MemCopy {
        dst: Address::Host(dst.ptr()),
        src: Address::Host(src.ptr()),
        bytes,
    }
}

pub(super) fn a_copy_that_does_not_touch_the_device_is_refused(subject: &Subject) -> Outcome {
    for (one, other) in [
        (subject.pinned(64)?, subject.pinned(64)?),
        (Host::pageable(64), Host::pageable(64)),
    ] {
        let queue = subject.queue()?;
        let copy = host_to_host(&one, &other, 64);
        // SAFETY: both ends are valid until the queue is drained; the call is to refuse them all the same.
        let result = unsafe { subject.driver().copy(copy, queue.raw()) };
        ensure_error(result, ErrorKind::InvalidArgument, "a copy from host to host")?;
    }
    Ok(())
}

pub(super) fn a_verb_that_is_not_supported_is_an_error(subject: &Subject) -> Outcome {
    let queue = subject.queue()?;
    match subject.driver().busy(Duration::from_micros(10), queue.raw()) {
        Ok(()) => Ok(queue.synchronize()?),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(queue.synchronize()?),
        Err(error) => Err(Stop::from(error)),
    }
}

pub(super) fn a_refused_call_leaves_its_stream_working(subject: &Subject) -> Outcome {
    let (one, other) = (Host::pageable(4096), Host::pageable(4096));
    let memory = subject.memory(4096)?;
    let queue = subject.queue()?;
    queue.put(memory.ptr(), &pattern(1, 4096))?;
    // SAFETY: as above.
    let refused = unsafe {
        subject
            .driver()
            .copy(host_to_host(&one, &other, 4096), queue.raw())
    };
    ensure_error(refused, ErrorKind::InvalidArgument, "a copy from host to host")?;
    queue.record(Timing::Disabled)?.synchronize()?;
    queue.synchronize()?;
    queue.ensure_pattern(&memory, 1, "written before a call that was refused")?;
    queue.put(memory.ptr(), &pattern(2, 4096))?;
    queue.ensure_pattern(&memory, 2, "written after a call that was refused")
}
