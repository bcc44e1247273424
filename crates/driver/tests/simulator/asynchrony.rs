//! What is enqueued runs later, and shows it.

use pinlane_driver::{
    DeviceMemory, Driver, MemCopy, Stream, Timing,
    sim::{DeviceConfig, Machine, POISON},
};

use crate::{fill, pattern, pin, read, sim};

#[test]
fn fresh_and_recycled_memory_is_poisoned() {
    let (_, device) = sim(DeviceConfig::default());
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 1000).unwrap();
    assert_eq!(read(&memory, &stream), vec![POISON; 1000]);
    fill(&memory, 7, &stream);
    assert_eq!(read(&memory, &stream), vec![7; 1000]);
    drop(memory);
    let again = DeviceMemory::new(&device, 1000).unwrap();
    assert_eq!(read(&again, &stream), vec![POISON; 1000]);
}

#[test]
fn a_pinned_source_that_changes_too_early_lands_changed() {
    let (sim, device) = sim(DeviceConfig::default());
    let mut host = vec![1_u8; 64];
    let _pinned = pin(&device, &mut host);
    let memory = DeviceMemory::new(&device, 64).unwrap();
    let stream = Stream::new(&device).unwrap();
    let stall = sim.stall();
    unsafe {
        stream
            .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), 64))
            .unwrap()
    };
    unsafe { host.as_mut_ptr().write_volatile(2) };
    drop(stall);
    assert_eq!(read(&memory, &stream)[..2], [2, 1]);
}

#[test]
fn a_pinned_destination_read_too_early_is_garbage() {
    let (sim, device) = sim(DeviceConfig::default());
    let mut host = vec![9_u8; 64];
    let pinned = pin(&device, &mut host);
    let memory = DeviceMemory::new(&device, 64).unwrap();
    let stream = Stream::new(&device).unwrap();
    let stall = sim.stall_stream(stream.raw()).unwrap();
    fill(&memory, 3, &stream);
    unsafe {
        stream
            .copy(MemCopy::to_host(host.as_mut_ptr(), memory.ptr(), 64))
            .unwrap();
        assert_eq!(host.as_ptr().read_volatile(), 9);
    }
    drop(stall);
    stream.synchronize().unwrap();
    drop(pinned);
    assert_eq!(host, vec![3; 64]);
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

#[test]
fn a_pageable_source_of_more_than_two_pieces_blocks_its_caller() {
    let (sim, device) = sim(DeviceConfig {
        bounce_bytes: 1000,
        ..DeviceConfig::default()
    });
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 2001).unwrap();
    let host = pattern(2001);
    let stall = sim.stall();
    let (entered, returned) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unsafe {
                stream
                    .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), 2001))
                    .unwrap()
            };
            entered.send(()).unwrap();
        });
        // The third piece needs a buffer that only the first one's copy gives back.
        let waited = returned.recv_timeout(std::time::Duration::from_millis(50));
        assert!(waited.is_err(), "the call returned while the device was stalled");
        drop(stall);
        returned.recv().unwrap();
    });
    assert_eq!(read(&memory, &stream), pattern(2001));
}

#[test]
fn a_stalled_stream_does_not_hold_up_another() {
    let (sim, device) = sim(DeviceConfig::default());
    let (stalled, free) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
    let (one, other) = (
        DeviceMemory::new(&device, 100).unwrap(),
        DeviceMemory::new(&device, 100).unwrap(),
    );
    let stall = sim.stall_stream(stalled.raw()).unwrap();
    fill(&one, 1, &stalled);
    let held = stalled.record(Timing::Disabled).unwrap();
    fill(&other, 2, &free);
    free.synchronize().unwrap();
    assert_eq!(read(&other, &free), vec![2; 100]);
    assert!(!held.query().unwrap());
    drop(stall);
    held.synchronize().unwrap();
    assert_eq!(read(&one, &stalled), vec![1; 100]);
}

#[test]
fn a_second_stall_keeps_the_device_still_when_the_first_ends() {
    let (sim, device) = sim(DeviceConfig::default());
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 100).unwrap();
    let (first, second) = (sim.stall(), sim.stall());
    fill(&memory, 1, &stream);
    let done = stream.record(Timing::Disabled).unwrap();
    drop(first);
    assert!(!done.query().unwrap());
    drop(second);
    done.synchronize().unwrap();
}

#[test]
fn a_busy_task_does_not_hold_up_copies_on_other_streams() {
    let (_, device) = sim(DeviceConfig::default());
    let (computing, copying) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
    let memory = DeviceMemory::new(&device, 100).unwrap();
    device
        .busy(std::time::Duration::from_secs(1), computing.raw())
        .unwrap();
    let computed = computing.record(Timing::Disabled).unwrap();
    let copy = MemCopy::to_device(memory.ptr(), [7; 100].as_ptr(), 100);
    unsafe { copying.copy(copy).unwrap() };
    copying.synchronize().unwrap();
    assert!(!computed.query().unwrap());
}

#[test]
fn dropping_the_last_handle_lets_enqueued_work_run_to_its_end() {
    let mut host = vec![0_u8; 5000];
    let machine = Machine::new(DeviceConfig::default());
    let device = machine.sim(0).unwrap();
    let start = std::ptr::NonNull::new(host.as_mut_ptr()).unwrap();
    let stream = device.create_stream().unwrap();
    let memory = device.allocate(5000).unwrap();
    unsafe {
        device.pin(start, 5000).unwrap();
        device.busy(std::time::Duration::from_millis(5), stream).unwrap();
        device.memset(memory, 5, 5000, stream).unwrap();
        device
            .copy(MemCopy::to_host(start.as_ptr(), memory, 5000), stream)
            .unwrap();
    }
    drop(machine);
    drop(device);
    assert_eq!(host, vec![5; 5000]);
}
