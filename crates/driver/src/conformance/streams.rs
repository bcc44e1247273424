//! Streams: many, short-lived, adopted.

use super::{
    Outcome, Subject,
    bytes::ensure_pattern,
    rig::{Host, Queue},
};
use crate::{DeviceMemory, MemCopy, Stream, Timing};

const BYTES: usize = 1 << 20;

pub(super) fn synchronising_with_a_stream_waits_for_all_its_work(subject: &Subject) -> Outcome {
    let (mut source, sink) = (subject.pinned(BYTES)?, subject.pinned(BYTES)?);
    let memory = subject.memory(BYTES)?;
    let queue = subject.queue()?;
    source.fill(1);
    queue.dawdle()?;
    queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), BYTES))?;
    queue.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), BYTES))?;
    queue.synchronize()?;
    ensure_pattern(sink.read(), 1, "read after synchronising with the stream")
}

pub(super) fn sixty_four_streams_work_side_by_side(subject: &Subject) -> Outcome {
    let bytes = 10_007;
    let mut lanes = Vec::new();
    for seed in 0..64 {
        let (mut source, sink) = (subject.pinned(bytes)?, subject.pinned(bytes)?);
        source.fill(seed);
        lanes.push((source, sink, subject.memory(bytes)?));
    }
    let queues: Vec<Queue> = lanes.iter().map(|_| subject.queue()).collect::<Result<_, _>>()?;
    for ((source, _, memory), queue) in lanes.iter().zip(&queues) {
        queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), bytes))?;
    }
    for ((_, sink, memory), queue) in lanes.iter().zip(&queues) {
        queue.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), bytes))?;
    }
    for (seed, ((_, sink, _), queue)) in lanes.iter().zip(&queues).enumerate() {
        queue.synchronize()?;
        ensure_pattern(sink.read(), seed as u64, "one of 64 streams")?;
    }
    Ok(())
}

pub(super) fn work_on_a_destroyed_stream_still_runs(subject: &Subject) -> Outcome {
    let (mut source, sink) = (subject.pinned(BYTES)?, subject.pinned(BYTES)?);
    let memory = subject.memory(BYTES)?;
    // Drained last, so that the memory outlives the work whatever happens.
    let drain = subject.queue()?;
    let queue = Stream::new(subject.driver())?;
    source.fill(2);
    // SAFETY: `drain` waits for the event behind these copies before the memory goes.
    unsafe {
        queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), BYTES))?;
        queue.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), BYTES))?;
    }
    let done = queue.record(Timing::Disabled)?;
    drain.wait(&done)?;
    drop(queue);
    done.synchronize()?;
    ensure_pattern(sink.read(), 2, "work of a stream that was destroyed right after")
}

pub(super) fn an_adopted_stream_outlives_its_adopter(subject: &Subject) -> Outcome {
    let memory = subject.memory(BYTES)?;
    let queue = subject.queue()?;
    // SAFETY: the queue's stream lives longer than this value.
    let adopted = unsafe { Stream::adopt(subject.driver(), queue.raw()) };
    let mut source = Host::pageable(BYTES);
    source.fill(3);
    // SAFETY: the source is pageable and so free when the call returns; the queue drains before the memory goes.
    unsafe { adopted.copy(MemCopy::to_device(memory.ptr(), source.ptr(), BYTES))? };
    adopted.synchronize()?;
    drop(adopted);
    let second: DeviceMemory = subject.memory(BYTES)?;
    let own = subject.queue()?;
    own.wait(&queue.record(Timing::Disabled)?)?;
    own.copy(MemCopy::on_device(second.ptr(), memory.ptr(), BYTES))?;
    own.ensure_pattern(&second, 3, "written through an adopted stream")?;
    queue.ensure_pattern(&memory, 3, "read on the stream after its adopter went")
}

pub(super) fn an_idle_stream_synchronises_at_once(subject: &Subject) -> Outcome {
    let queue = subject.queue()?;
    queue.synchronize()?;
    queue.record(Timing::Disabled)?.synchronize()?;
    Ok(queue.synchronize()?)
}
