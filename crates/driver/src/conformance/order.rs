//! Work runs in the order of its stream, and in the order that events lay across streams and devices.

use super::{Outcome, Subject, rig::Queue};
use crate::{DeviceMemory, Event, MemCopy, Timing};

const BYTES: usize = 100_003;

pub(super) fn work_on_one_stream_runs_in_the_order_of_its_calls(subject: &Subject) -> Outcome {
    let mut source = subject.pinned(BYTES)?;
    let (first, second) = (subject.memory(BYTES)?, subject.memory(BYTES)?);
    let queue = subject.queue()?;
    source.fill(1);
    for value in 0..32 {
        queue.memset(first.ptr(), value, BYTES)?;
    }
    queue.dawdle()?;
    // Each step reads what the one before wrote, on every kind of engine in turn.
    queue.copy(MemCopy::to_device(first.ptr(), source.ptr(), BYTES))?;
    queue.copy(MemCopy::on_device(second.ptr(), first.ptr(), BYTES))?;
    queue.memset(first.ptr(), 0, BYTES)?;
    queue.copy(MemCopy::on_device(first.ptr(), second.ptr(), BYTES))?;
    queue.memset(second.ptr(), 0, BYTES)?;
    queue.ensure_pattern(&first, 1, "after a chain of copies")
}

pub(super) fn a_stream_that_waits_for_an_event_starts_after_the_work_before_it(subject: &Subject) -> Outcome {
    let mut source = subject.pinned(BYTES)?;
    let (first, second) = (subject.memory(BYTES)?, subject.memory(BYTES)?);
    let (early, late) = (subject.queue()?, subject.queue()?);
    source.fill(2);
    early.memset(first.ptr(), 0, BYTES)?;
    early.dawdle()?;
    early.copy(MemCopy::to_device(first.ptr(), source.ptr(), BYTES))?;
    let written = early.record(Timing::Disabled)?;
    late.wait(&written)?;
    late.copy(MemCopy::on_device(second.ptr(), first.ptr(), BYTES))?;
    late.ensure_pattern(&second, 2, "read on the waiting stream")
}

pub(super) fn an_order_holds_along_a_chain_of_64_streams(subject: &Subject) -> Outcome {
    let mut source = subject.pinned(BYTES)?;
    let links: Vec<DeviceMemory> = (0..64).map(|_| subject.memory(BYTES)).collect::<Result<_, _>>()?;
    let queues: Vec<Queue> = (0..64).map(|_| subject.queue()).collect::<Result<_, _>>()?;
    source.fill(3);
    queues[0].dawdle()?;
    queues[0].copy(MemCopy::to_device(links[0].ptr(), source.ptr(), BYTES))?;
    for link in 1..64 {
        let before = queues[link - 1].record(Timing::Disabled)?;
        queues[link].wait(&before)?;
        queues[link].copy(MemCopy::on_device(
            links[link].ptr(),
            links[link - 1].ptr(),
            BYTES,
        ))?;
    }
    queues[63].ensure_pattern(&links[63], 3, "at the end of the chain")
}

pub(super) fn a_wait_means_the_event_as_it_was_recorded_when_the_wait_was_called(
    subject: &Subject,
) -> Outcome {
    let memory = subject.memory(BYTES)?;
    let (first, second) = (subject.queue()?, subject.queue()?);
    let event = Event::new(subject.driver(), Timing::Disabled)?;
    first.dawdle()?;
    first.memset(memory.ptr(), 1, BYTES)?;
    event.record(&first)?;
    second.wait(&event)?;
    let passed = second.record(Timing::Disabled)?;
    // The later record stands behind the wait: a wait for it would wait for itself.
    first.wait(&passed)?;
    event.record(&first)?;
    second.synchronize()?;
    Ok(event.synchronize()?)
}

pub(super) fn a_wait_keeps_its_meaning_when_its_event_is_destroyed(subject: &Subject) -> Outcome {
    let mut source = subject.pinned(BYTES)?;
    let memory = subject.memory(BYTES)?;
    let (first, second) = (subject.queue()?, subject.queue()?);
    source.fill(4);
    first.memset(memory.ptr(), 0, BYTES)?;
    first.dawdle()?;
    first.copy(MemCopy::to_device(memory.ptr(), source.ptr(), BYTES))?;
    let written = first.record(Timing::Disabled)?;
    second.wait(&written)?;
    drop(written);
    second.ensure_pattern(&memory, 4, "read after a wait for an event that is gone")
}

pub(super) fn two_streams_can_hand_work_back_and_forth(subject: &Subject) -> Outcome {
    let mut source = subject.pinned(BYTES)?;
    let (left, right) = (subject.memory(BYTES)?, subject.memory(BYTES)?);
    let (one, other) = (subject.queue()?, subject.queue()?);
    source.fill(5);
    one.copy(MemCopy::to_device(left.ptr(), source.ptr(), BYTES))?;
    let event = Event::new(subject.driver(), Timing::Disabled)?;
    for _ in 0..50 {
        event.record(&one)?;
        other.wait(&event)?;
        other.copy(MemCopy::on_device(right.ptr(), left.ptr(), BYTES))?;
        other.memset(left.ptr(), 0, BYTES)?;
        event.record(&other)?;
        one.wait(&event)?;
        one.copy(MemCopy::on_device(left.ptr(), right.ptr(), BYTES))?;
        one.memset(right.ptr(), 0, BYTES)?;
    }
    one.ensure_pattern(&left, 5, "after fifty rounds")
}

pub(super) fn an_event_of_one_device_orders_work_on_another(subject: &Subject) -> Outcome {
    let peer = subject.peer()?;
    let mut source = subject.pinned(BYTES)?;
    let (here, there) = (subject.memory(BYTES)?, DeviceMemory::new(peer, BYTES)?);
    let (home, away) = (subject.queue()?, Queue::new(peer)?);
    source.fill(6);
    home.memset(here.ptr(), 0, BYTES)?;
    home.dawdle()?;
    home.copy(MemCopy::to_device(here.ptr(), source.ptr(), BYTES))?;
    let written = home.record(Timing::Disabled)?;
    away.wait(&written)?;
    let id = subject.driver().properties().id;
    away.copy_from_peer(there.ptr(), id, here.ptr(), BYTES)?;
    away.ensure_pattern(&there, 6, "fetched by the other device")
}
