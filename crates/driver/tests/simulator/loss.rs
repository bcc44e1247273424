//! A lost device: what was enqueued is abandoned, who waits wakes, and other devices go on.

use std::{sync::Arc, time::Duration};

use pinlane_driver::{
    DeviceMemory, Driver, ErrorKind, Event, MemCopy, Stream, Timing,
    sim::{DeviceConfig, Fault, FaultPlan, Machine, MachineConfig, SimDriver, Step},
};

use crate::{fill, pin, read};

fn two_devices() -> (Arc<SimDriver>, Arc<dyn Driver>, Arc<dyn Driver>) {
    let machine = Machine::new(MachineConfig::equal_devices(2, DeviceConfig::default()));
    (
        machine.sim(0).unwrap(),
        machine.device(0).unwrap(),
        machine.device(1).unwrap(),
    )
}

/// Loses the device at its next query.
fn lose(sim: &SimDriver, event: &Event) {
    sim.set_faults(FaultPlan::new().at(Step::Query, 0, Fault::DeviceLost));
    assert_eq!(event.query().unwrap_err().kind(), ErrorKind::DeviceLost);
}

#[test]
fn abandoned_work_is_never_done_and_its_waiters_wake() {
    let mut host = vec![1_u8; 100];
    let (sim, device, _) = two_devices();
    let pinned = pin(&device, &mut host);
    let memory = DeviceMemory::new(&device, 100).unwrap();
    let stream = Stream::new(&device).unwrap();
    let _stall = sim.stall();
    fill(&memory, 2, &stream);
    unsafe {
        stream
            .copy(MemCopy::to_host(host.as_mut_ptr(), memory.ptr(), 100))
            .unwrap()
    };
    let done = stream.record(Timing::Disabled).unwrap();
    std::thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| done.synchronize().unwrap_err().kind()),
            scope.spawn(|| stream.synchronize().unwrap_err().kind()),
        ];
        // Let both get as far as waiting; the outcome is the same when they do not.
        while sim.calls(Step::SynchronizeEvent) + sim.calls(Step::SynchronizeStream) < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        lose(&sim, &done);
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), ErrorKind::DeviceLost);
        }
    });
    drop((stream, memory, pinned, done));
    assert_eq!(sim.freed_in_use(), 0);
    drop((sim, device, _stall));
    assert_eq!(host, vec![1; 100]);
}

#[test]
fn a_caller_that_stages_pageable_memory_wakes_too() {
    let (sim, device, _) = two_devices();
    let memory = DeviceMemory::new(&device, 100).unwrap();
    let stream = Stream::new(&device).unwrap();
    let event = Event::new(&device, Timing::Disabled).unwrap();
    let stall = sim.stall();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut host = [0; 100];
            unsafe { stream.copy(MemCopy::to_host(host.as_mut_ptr(), memory.ptr(), 100)) }
        });
        while sim.calls(Step::Copy) < 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        lose(&sim, &event);
        assert_eq!(reading.join().unwrap().unwrap_err().kind(), ErrorKind::DeviceLost);
    });
    drop(stall);
}

#[test]
fn the_loss_of_a_peer_fails_what_waits_for_it_and_nothing_else() {
    let (sim, lost, other) = two_devices();
    let memory = DeviceMemory::new(&lost, 100).unwrap();
    let kept = DeviceMemory::new(&other, 100).unwrap();
    let (away, home) = (Stream::new(&lost).unwrap(), Stream::new(&other).unwrap());
    fill(&kept, 1, &home);
    let stall = sim.stall();
    fill(&memory, 2, &away);
    let never = away.record(Timing::Disabled).unwrap();
    home.wait(&never).unwrap();
    fill(&kept, 3, &home);
    lose(&sim, &never);
    let error = home.synchronize().unwrap_err();
    assert_eq!(
        (error.kind(), error.device()),
        (ErrorKind::CopyFailed, other.properties().id)
    );
    assert_eq!(read(&kept, &home), vec![1; 100]);
    let from_lost = MemCopy::from_peer(kept.ptr(), lost.properties().id, memory.ptr(), 100);
    unsafe { home.copy(from_lost).unwrap() };
    assert_eq!(home.synchronize().unwrap_err().kind(), ErrorKind::CopyFailed);
    assert_eq!(read(&kept, &home), vec![1; 100]);
    drop(stall);
}
