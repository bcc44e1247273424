//! What only the simulated device shows: garbage when looked at too early, faults at every step, loss, leaks counted.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each test owns what it copies until its device is drained"
)]

use std::{ptr::NonNull, sync::Arc};

use pinlane_driver::{
    DeviceMemory, Driver, MemCopy, PinnedRange, Stream, Timing,
    sim::{DeviceConfig, Machine, POISON, SimDriver},
};

fn sim(config: DeviceConfig) -> (Arc<SimDriver>, Arc<dyn Driver>) {
    let machine = Machine::new(config);
    (machine.sim(0).unwrap(), machine.device(0).unwrap())
}

fn pin(device: &Arc<dyn Driver>, bytes: &mut [u8]) -> PinnedRange {
    let start = NonNull::new(bytes.as_mut_ptr()).unwrap();
    unsafe { PinnedRange::new(device, start, bytes.len()).unwrap() }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 31 % 251) as u8).collect()
}

/// What the device memory holds, read the plain way.
fn read(memory: &DeviceMemory, stream: &Stream) -> Vec<u8> {
    let mut host = vec![0; memory.bytes()];
    unsafe {
        stream
            .copy(MemCopy::to_host(host.as_mut_ptr(), memory.ptr(), host.len()))
            .unwrap();
    }
    host
}

#[test]
fn fresh_and_recycled_memory_is_poisoned() {
    let (_, device) = sim(DeviceConfig::default());
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 1000).unwrap();
    assert_eq!(read(&memory, &stream), vec![POISON; 1000]);
    unsafe { device.memset(memory.ptr(), 7, 1000, stream.raw()).unwrap() };
    assert_eq!(read(&memory, &stream), vec![7; 1000]);
    drop(memory);
    let again = DeviceMemory::new(&device, 1000).unwrap();
    assert_eq!(read(&again, &stream), vec![POISON; 1000]);
}

#[test]
fn a_pinned_source_that_changes_too_early_lands_changed() {
    let (sim, device) = sim(DeviceConfig::default());
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 64).unwrap();
    let mut host = vec![1_u8; 64];
    let pinned = pin(&device, &mut host);
    let stall = sim.stall();
    unsafe {
        stream
            .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), 64))
            .unwrap()
    };
    unsafe { host.as_mut_ptr().write_volatile(2) };
    drop(stall);
    assert_eq!(read(&memory, &stream)[..2], [2, 1]);
    drop(pinned);
}

#[test]
fn a_pinned_destination_read_too_early_is_garbage() {
    let (sim, device) = sim(DeviceConfig::default());
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 64).unwrap();
    let mut host = vec![9_u8; 64];
    let pinned = pin(&device, &mut host);
    let stall = sim.stall_stream(stream.raw()).unwrap();
    unsafe {
        device.memset(memory.ptr(), 3, 64, stream.raw()).unwrap();
        stream
            .copy(MemCopy::to_host(host.as_mut_ptr(), memory.ptr(), 64))
            .unwrap();
        assert_eq!(host.as_ptr().read_volatile(), 9);
    }
    drop(stall);
    stream.synchronize().unwrap();
    assert_eq!(host, vec![3; 64]);
    drop(pinned);
}

#[test]
fn a_pageable_source_is_staged_while_its_copy_is_still_in_flight() {
    let (sim, device) = sim(DeviceConfig {
        bounce_bytes: 1000,
        ..DeviceConfig::default()
    });
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 2000).unwrap();
    let mut host = pattern(2000);
    let stall = sim.stall();
    unsafe {
        stream
            .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), 2000))
            .unwrap()
    };
    let done = stream.record(Timing::Disabled).unwrap();
    host.fill(0);
    assert!(!done.query().unwrap());
    drop(stall);
    done.synchronize().unwrap();
    assert_eq!(read(&memory, &stream), pattern(2000));
}
