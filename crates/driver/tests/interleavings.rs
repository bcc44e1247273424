//! The simulated device under every order of its threads that shuttle comes up with: nothing hangs, bytes are right.

#![cfg(shuttle)]

use std::{ptr::NonNull, time::Duration};

use pinlane_driver::{
    DeviceMemory, ErrorKind, MemCopy, PinnedRange, Stream, Timing,
    sim::{Alive, DeviceConfig, Fault, FaultPlan, Machine, Step},
    sync::{Arc, thread},
};

const SCHEDULES: usize = 2000;
const BYTES: usize = 64;

fn config() -> DeviceConfig {
    DeviceConfig {
        memory_bytes: 1 << 20,
        bounce_bytes: 20,
        ..DeviceConfig::default()
    }
}

#[test]
fn an_event_orders_two_streams() {
    shuttle::check_random(
        || {
            let mut host = [7_u8; BYTES];
            let machine = Machine::new(config());
            let device = machine.device(0).unwrap();
            let start = NonNull::from(&mut host).cast();
            // SAFETY: the array outlives the range, which is dropped below, and is touched by the device alone till then.
            let pinned = unsafe { PinnedRange::new(&device, start, BYTES).unwrap() };
            let memory = DeviceMemory::new(&device, BYTES).unwrap();
            let (first, second) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
            // SAFETY: `memory` and `host` are as long, and live until `first` has been synchronised.
            unsafe {
                first
                    .copy(MemCopy::to_device(memory.ptr(), start.as_ptr(), BYTES))
                    .unwrap()
            };
            let written = first.record(Timing::Disabled).unwrap();
            second.wait(&written).unwrap();
            let mut back = [0; BYTES];
            // SAFETY: `memory` and `back` are as long; a copy into pageable memory is done when the call returns.
            unsafe {
                second
                    .copy(MemCopy::to_host(back.as_mut_ptr(), memory.ptr(), BYTES))
                    .unwrap()
            };
            assert_eq!(back, [7; BYTES]);
            first.synchronize().unwrap();
            drop((written, first, second, memory, pinned));
            assert_eq!(machine.sim(0).unwrap().alive(), Alive::default());
        },
        SCHEDULES,
    );
}

#[test]
fn two_threads_stage_pageable_memory_on_one_stream() {
    shuttle::check_random(
        || {
            let device = Machine::new(config()).device(0).unwrap();
            let stream = Arc::new(Stream::new(&device).unwrap());
            let threads = [1_u8, 2].map(|value| {
                let stream = Arc::clone(&stream);
                thread::spawn(move || {
                    let memory = DeviceMemory::new(stream.driver(), BYTES).unwrap();
                    let (source, mut sink) = ([value; BYTES], [0; BYTES]);
                    // SAFETY: all three are as long, and live until the second copy, which the device makes last, is
                    // done: into pageable memory that is when the call returns.
                    unsafe {
                        stream
                            .copy(MemCopy::to_device(memory.ptr(), source.as_ptr(), BYTES))
                            .unwrap();
                        stream
                            .copy(MemCopy::to_host(sink.as_mut_ptr(), memory.ptr(), BYTES))
                            .unwrap();
                    }
                    assert_eq!(sink, source);
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        },
        SCHEDULES,
    );
}

#[test]
fn a_loss_at_any_moment_wakes_everyone() {
    shuttle::check_random(
        || {
            let machine = Machine::new(config());
            let device = machine.device(0).unwrap();
            let sim = machine.sim(0).unwrap();
            let memory = DeviceMemory::new(&device, BYTES).unwrap();
            let stream = Stream::new(&device).unwrap();
            for value in 0..4 {
                // SAFETY: inside `memory`, which is freed after the stream, when nothing runs on it any more.
                unsafe { device.memset(memory.ptr(), value, BYTES, stream.raw()).unwrap() };
            }
            let done = stream.record(Timing::Disabled).unwrap();
            let waiter = {
                let device = Arc::clone(&device);
                let raw = done.raw();
                thread::spawn(move || device.synchronize_event(raw, Duration::ZERO))
            };
            sim.set_faults(FaultPlan::new().at(Step::MemoryInfo, 0, Fault::DeviceLost));
            assert_eq!(device.memory_info().unwrap_err().kind(), ErrorKind::DeviceLost);
            if let Err(error) = waiter.join().unwrap() {
                assert_eq!(error.kind(), ErrorKind::DeviceLost);
            }
            drop((done, stream, memory));
            assert_eq!(sim.alive(), Alive::default());
        },
        SCHEDULES,
    );
}

#[test]
fn a_failure_is_told_once_whoever_asks() {
    shuttle::check_random(
        || {
            let machine = Machine::new(config());
            let device = machine.device(0).unwrap();
            let sim = machine.sim(0).unwrap();
            let memory = DeviceMemory::new(&device, BYTES).unwrap();
            let stream = Stream::new(&device).unwrap();
            sim.set_faults(FaultPlan::new().at(Step::Memset, 0, Fault::CopyFailed));
            // SAFETY: inside `memory`, which outlives the work: the stream is synchronised below.
            unsafe {
                device.memset(memory.ptr(), 1, BYTES, stream.raw()).unwrap();
                device.memset(memory.ptr(), 2, BYTES, stream.raw()).unwrap();
            }
            assert_eq!(stream.synchronize().unwrap_err().kind(), ErrorKind::CopyFailed);
            // SAFETY: as above.
            unsafe { device.memset(memory.ptr(), 3, BYTES, stream.raw()).unwrap() };
            stream.synchronize().unwrap();
        },
        SCHEDULES,
    );
}
