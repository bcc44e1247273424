//! Pageable memory: its source is free when the call returns, its destination filled.

use super::{Outcome, Subject, bytes::ensure_pattern, rig::Host};
use crate::MemCopy;

/// Less than any driver stages at once, and more.
const SIZES: [usize; 4] = [100, 60_001, (1 << 20) + 7, (12 << 20) + 3];

pub(super) fn a_source_is_free_to_change_when_the_call_returns(subject: &Subject) -> Outcome {
    for bytes in SIZES {
        let mut source = Host::pageable(bytes);
        let memory = subject.memory(bytes)?;
        let queue = subject.queue()?;
        source.fill(1);
        queue.dawdle()?;
        queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), bytes))?;
        source.fill(2);
        queue.ensure_pattern(
            &memory,
            1,
            &format!("{bytes} bytes whose source changed after the call"),
        )?;
    }
    Ok(())
}

pub(super) fn a_destination_is_filled_when_the_call_returns(subject: &Subject) -> Outcome {
    for bytes in SIZES {
        let mut source = subject.pinned(bytes)?;
        let sink = Host::pageable(bytes);
        let memory = subject.memory(bytes)?;
        let queue = subject.queue()?;
        source.fill(3);
        queue.dawdle()?;
        queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), bytes))?;
        queue.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), bytes))?;
        ensure_pattern(sink.read(), 3, &format!("{bytes} bytes without synchronising"))?;
    }
    Ok(())
}

pub(super) fn staged_copies_keep_their_place_in_the_stream(subject: &Subject) -> Outcome {
    for bytes in SIZES {
        let mut first = Host::pageable(bytes);
        let mut second = subject.pinned(bytes)?;
        let (memory, kept) = (subject.memory(bytes)?, subject.memory(bytes)?);
        let queue = subject.queue()?;
        first.fill(4);
        second.fill(5);
        queue.memset(memory.ptr(), 0, bytes)?;
        queue.copy(MemCopy::to_device(memory.ptr(), first.ptr(), bytes))?;
        queue.copy(MemCopy::on_device(kept.ptr(), memory.ptr(), bytes))?;
        queue.copy(MemCopy::to_device(memory.ptr(), second.ptr(), bytes))?;
        queue.ensure_pattern(&kept, 4, &format!("{bytes} bytes read behind a staged copy"))?;
        queue.ensure_pattern(&memory, 5, &format!("{bytes} bytes written behind a staged copy"))?;
    }
    Ok(())
}
