//! Many rounds of what must never go wrong: a reader that is early, a source that changes too soon.

use std::time::Duration;

use libtest_mimic::Completion;
use pinlane_driver::{DeviceMemory, Driver, Event, MemCopy, Stream, Timing, sync::Arc};

use crate::{host::Host, other_library::OtherLibrary};

/// What stalls the stream for a moment, so that work behind it is late for sure.
const STALL: Duration = Duration::from_micros(100);

pub(crate) fn an_event_protects_the_source_of_the_copy_before_it(driver: &Arc<dyn Driver>) {
    const BYTES: usize = 64 << 10;
    const ROUNDS: usize = 1000;
    let mut source = Host::pinned(driver, BYTES);
    let mut sink = Host::pinned(driver, BYTES * ROUNDS);
    let memory = DeviceMemory::new(driver, BYTES * ROUNDS).unwrap();
    let event = Event::new(driver, Timing::Disabled).unwrap();
    let stream = Stream::new(driver).unwrap();
    for round in 0..ROUNDS {
        event.synchronize().unwrap();
        source.write().fill(round as u8);
        if round % 10 == 0 {
            driver.busy(STALL, stream.raw()).unwrap();
        }
        let copy = MemCopy::to_device(memory.ptr().offset(round * BYTES), source.ptr(), BYTES);
        // SAFETY: the source changes only when the event has fired, and everything outlives the last wait.
        unsafe { stream.copy(copy).unwrap() };
        event.record(&stream).unwrap();
    }
    // SAFETY: the destination is read after the wait.
    unsafe {
        stream
            .copy(MemCopy::to_host(sink.ptr(), memory.ptr(), BYTES * ROUNDS))
            .unwrap()
    };
    stream.synchronize().unwrap();
    for (round, block) in sink.read().chunks(BYTES).enumerate() {
        assert!(block.iter().all(|byte| *byte == round as u8), "round {round}");
    }
}

pub(crate) fn a_pageable_source_may_change_at_once(driver: &Arc<dyn Driver>) {
    for bytes in [16, 4 << 10, 60_001, (1 << 20) + 1, 5 << 20] {
        let mut source = Host::pageable(bytes);
        let mut sink = Host::pageable(bytes);
        let memory = DeviceMemory::new(driver, bytes).unwrap();
        let stream = Stream::new(driver).unwrap();
        for round in 0..100_u8 {
            source.write().fill(round);
            driver.busy(STALL, stream.raw()).unwrap();
            // SAFETY: the source is pageable, so free when the call returns.
            unsafe {
                stream
                    .copy(MemCopy::to_device(memory.ptr(), source.ptr(), bytes))
                    .unwrap()
            };
            source.write().fill(0xff);
            // SAFETY: the destination is pageable, so filled when the call returns.
            unsafe {
                stream
                    .copy(MemCopy::to_host(sink.ptr(), memory.ptr(), bytes))
                    .unwrap()
            };
            assert!(sink.holds(round), "{bytes} bytes, round {round}");
        }
    }
}

pub(crate) fn a_managed_source_may_change_at_once(driver: &Arc<dyn Driver>) -> Completion {
    /// `CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS`: without it the host may not touch managed memory while the device works.
    const CONCURRENT_MANAGED_ACCESS: i32 = 89;
    const BYTES: usize = 1 << 20;
    let other = OtherLibrary::new();
    if other.attribute(CONCURRENT_MANAGED_ACCESS) != 1 {
        return Completion::ignored_with("host and device can't use managed memory at once");
    }
    let managed = other.allocate_managed(BYTES);
    let source = std::ptr::with_exposed_provenance_mut::<u8>(managed as usize);
    let mut sink = Host::pageable(BYTES);
    let memory = DeviceMemory::new(driver, BYTES).unwrap();
    let stream = Stream::new(driver).unwrap();
    for round in 0..100_u8 {
        // SAFETY: as many bytes as were allocated, which nothing uses at this moment: it is not pinned, so it is free when the
        // call that copies it returns.
        unsafe { source.write_bytes(round, BYTES) };
        driver.busy(STALL, stream.raw()).unwrap();
        // SAFETY: as above.
        unsafe {
            stream
                .copy(MemCopy::to_device(memory.ptr(), source, BYTES))
                .unwrap();
            source.write_bytes(0xff, BYTES);
            stream
                .copy(MemCopy::to_host(sink.ptr(), memory.ptr(), BYTES))
                .unwrap();
        }
        assert!(sink.holds(round), "round {round}");
    }
    drop(stream);
    other.free(managed);
    Completion::Completed
}

pub(crate) fn a_pageable_destination_can_be_read_at_once(driver: &Arc<dyn Driver>) {
    for bytes in [16, 4 << 10, 60_001, (1 << 20) + 1, 5 << 20] {
        let mut sink = Host::pageable(bytes);
        let memory = DeviceMemory::new(driver, bytes).unwrap();
        let stream = Stream::new(driver).unwrap();
        for round in 0..100_u8 {
            driver.busy(STALL, stream.raw()).unwrap();
            // SAFETY: the memory outlives the copy behind the fill, which is over when its call returns.
            unsafe {
                driver.memset(memory.ptr(), round, bytes, stream.raw()).unwrap();
                stream
                    .copy(MemCopy::to_host(sink.ptr(), memory.ptr(), bytes))
                    .unwrap();
            }
            assert!(sink.holds(round), "{bytes} bytes, round {round}");
        }
    }
}

pub(crate) fn ten_thousand_blocks_of_a_batch_arrive(driver: &Arc<dyn Driver>) {
    const BLOCK: usize = 4096;
    const BLOCKS: usize = 10_000;
    let (mut source, mut sink) = (
        Host::pinned(driver, BLOCK * BLOCKS),
        Host::pinned(driver, BLOCK * BLOCKS),
    );
    let memory = DeviceMemory::new(driver, BLOCK * BLOCKS).unwrap();
    let stream = Stream::new(driver).unwrap();
    for (block, bytes) in source.write().chunks_mut(BLOCK).enumerate() {
        bytes.fill((block % 251) as u8);
    }
    // 7 and the number of blocks share no factor, so every block has a place of its own.
    let place = |block: usize| block * 7 % BLOCKS * BLOCK;
    let (from, to) = (source.ptr(), sink.ptr());
    let there: Vec<MemCopy> = (0..BLOCKS)
        .map(|block| {
            // SAFETY: inside the source.
            let src = unsafe { from.add(block * BLOCK) };
            MemCopy::to_device(memory.ptr().offset(place(block)), src, BLOCK)
        })
        .collect();
    let back: Vec<MemCopy> = (0..BLOCKS)
        .map(|block| {
            // SAFETY: inside the sink.
            let dst = unsafe { to.add(block * BLOCK) };
            MemCopy::to_host(dst, memory.ptr().offset(place(block)), BLOCK)
        })
        .collect();
    driver.busy(STALL, stream.raw()).unwrap();
    // SAFETY: the blocks do not overlap, and everything outlives the wait.
    unsafe {
        driver.copy_batch(&there, stream.raw()).unwrap();
        driver.copy_batch(&back, stream.raw()).unwrap();
    }
    stream.synchronize().unwrap();
    assert!(sink.read() == source.read());
}

pub(crate) fn a_sleeping_thread_wakes_when_its_event_fires(driver: &Arc<dyn Driver>) {
    let memory = DeviceMemory::new(driver, 1).unwrap();
    let mut sink = Host::pinned(driver, 1);
    let stream = Stream::new(driver).unwrap();
    // Far longer than a waiting thread spins.
    driver.busy(Duration::from_millis(50), stream.raw()).unwrap();
    // SAFETY: both outlive the wait.
    unsafe {
        driver.memset(memory.ptr(), 3, 1, stream.raw()).unwrap();
        stream
            .copy(MemCopy::to_host(sink.ptr(), memory.ptr(), 1))
            .unwrap();
    }
    let event = stream.record(Timing::Disabled).unwrap();
    assert!(!event.query().unwrap(), "a task of 50 ms is over at once");
    event.synchronize().unwrap();
    assert!(sink.holds(3));
}
