//! Batches: all of their copies, in the batch's place.

use super::{
    Outcome, Subject,
    bytes::{ensure_equal, ensure_pattern, pattern},
    if_supported,
    rig::Host,
};
use crate::{DevicePtr, MemCopy};

pub(super) fn every_copy_of_a_batch_arrives(subject: &Subject) -> Outcome {
    const BLOCK: usize = 333;
    const BLOCKS: usize = 2000;
    let (mut source, sink) = (subject.pinned(BLOCK * BLOCKS)?, subject.pinned(BLOCK * BLOCKS)?);
    let memory = subject.memory(BLOCK * BLOCKS)?;
    let queue = subject.queue()?;
    source.fill(1);
    // Scattered on the way there, and gathered again on the way back; 7 and the number of blocks share no factor.
    let place = |block: usize| memory.ptr().offset(block * 7 % BLOCKS * BLOCK);
    let blocks = 0..BLOCKS;
    let there: Vec<_> = blocks
        .clone()
        .map(|block| MemCopy::to_device(place(block), source.at(block * BLOCK), BLOCK))
        .collect();
    let back: Vec<_> = blocks
        .map(|block| MemCopy::to_host(sink.at(block * BLOCK), place(block), BLOCK))
        .collect();
    if_supported(queue.copy_batch(&there))?;
    if_supported(queue.copy_batch(&back))?;
    queue.synchronize()?;
    ensure_pattern(sink.read(), 1, "two thousand blocks, scattered and gathered")
}

pub(super) fn an_empty_batch_and_empty_copies_are_fine(subject: &Subject) -> Outcome {
    let mut source = subject.pinned(64)?;
    let memory = subject.memory(64)?;
    let queue = subject.queue()?;
    source.fill(1);
    queue.memset(memory.ptr(), 0, 64)?;
    if_supported(queue.copy_batch(&[]))?;
    let nothing = MemCopy::to_device(memory.ptr(), source.ptr(), 0);
    if_supported(queue.copy_batch(&[nothing]))?;
    let half = MemCopy::to_device(memory.ptr().offset(32), source.at(32), 32);
    if_supported(queue.copy_batch(&[nothing, half, nothing]))?;
    let mut expected = pattern(1, 64);
    expected[..32].fill(0);
    ensure_equal(
        &queue.fetch(memory.ptr(), 64)?,
        &expected,
        "one copy of three with bytes",
    )
}

pub(super) fn a_batch_keeps_its_place_in_the_stream(subject: &Subject) -> Outcome {
    const HALF: usize = 50_001;
    let mut source = subject.pinned(2 * HALF)?;
    let (memory, kept) = (subject.memory(2 * HALF)?, subject.memory(2 * HALF)?);
    let queue = subject.queue()?;
    source.fill(1);
    queue.dawdle()?;
    queue.memset(memory.ptr(), 0, 2 * HALF)?;
    let halves = [0, HALF].map(|at| MemCopy::to_device(memory.ptr().offset(at), source.at(at), HALF));
    if_supported(queue.copy_batch(&halves))?;
    queue.copy(MemCopy::on_device(kept.ptr(), memory.ptr(), 2 * HALF))?;
    queue.memset(memory.ptr(), 0, 2 * HALF)?;
    queue.ensure_pattern(&kept, 1, "copied behind a batch")
}

pub(super) fn a_batch_may_go_both_ways_from_pinned_and_pageable_memory(subject: &Subject) -> Outcome {
    const BYTES: usize = 70_001;
    let (mut pinned, landed) = (subject.pinned(BYTES)?, subject.pinned(BYTES)?);
    let (mut pageable, read) = (Host::pageable(BYTES), Host::pageable(BYTES));
    let memory = subject.memory(5 * BYTES)?;
    let queue = subject.queue()?;
    let part = |number: usize| -> DevicePtr { memory.ptr().offset(number * BYTES) };
    pinned.fill(1);
    pageable.fill(2);
    queue.put(part(2), &pattern(3, BYTES))?;
    queue.put(part(3), &pattern(4, BYTES))?;
    let batch = [
        MemCopy::to_device(part(0), pinned.ptr(), BYTES),
        MemCopy::to_device(part(1), pageable.ptr(), BYTES),
        MemCopy::to_host(landed.ptr(), part(2), BYTES),
        MemCopy::to_host(read.ptr(), part(3), BYTES),
    ];
    if_supported(queue.copy_batch(&batch))?;
    pageable.fill(5);
    ensure_pattern(read.read(), 4, "a pageable destination when the batch returns")?;
    queue.copy(MemCopy::on_device(part(4), part(0), BYTES))?;
    queue.synchronize()?;
    ensure_pattern(landed.read(), 3, "a pinned destination of a batch")?;
    ensure_pattern(&queue.fetch(part(4), BYTES)?, 1, "a pinned source of a batch")?;
    ensure_pattern(
        &queue.fetch(part(1), BYTES)?,
        2,
        "a pageable source that changed after the batch",
    )
}
