//! Limits, strangers' handles and ranges, and what is counted.

use std::ptr::NonNull;

use pinlane_driver::{
    Address, DeviceMemory, DevicePtr, Driver, ErrorKind, Event, MemCopy, PinnedRange, RawStream, Stream,
    Timing,
    sim::{Alive, DeviceConfig, Machine, MachineConfig},
};

use crate::{pattern, pin, read, sim};

#[test]
fn a_device_that_does_not_exist_is_an_error_that_says_how_many_there_are() {
    let machine = Machine::new(MachineConfig::equal_devices(2, DeviceConfig::default()));
    let error = machine.device(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchDevice);
    assert!(error.to_string().contains("has 2"), "{error}");
}

#[test]
fn copies_outside_of_a_live_allocation_are_refused_by_address() {
    let (_, device) = sim(DeviceConfig::default());
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 1000).unwrap();
    let host = pattern(2000);
    let copy = |to: DevicePtr, bytes| unsafe { stream.copy(MemCopy::to_device(to, host.as_ptr(), bytes)) };
    let error = copy(memory.ptr().offset(1), 1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.to_string().contains(&format!("{:#x}", memory.ptr().0 + 1)),
        "{error}"
    );
    let gone = DeviceMemory::new(&device, 5000).unwrap().ptr();
    assert_eq!(copy(gone, 1).unwrap_err().kind(), ErrorKind::InvalidHandle);
    assert_eq!(
        copy(DevicePtr(0), 1).unwrap_err().kind(),
        ErrorKind::InvalidHandle
    );
    copy(memory.ptr().offset(1), 999).unwrap();
    assert_eq!(read(&memory, &stream)[1..], pattern(999));
}

#[test]
fn an_address_of_another_device_is_not_an_address_of_this_one() {
    let machine = Machine::new(MachineConfig::equal_devices(2, DeviceConfig::default()));
    let (here, there) = (machine.device(0).unwrap(), machine.device(1).unwrap());
    let memory = DeviceMemory::new(&there, 100).unwrap();
    let stream = Stream::new(&here).unwrap();
    let copy = MemCopy::to_device(memory.ptr(), [0; 100].as_ptr(), 100);
    assert_eq!(
        unsafe { stream.copy(copy) }.unwrap_err().kind(),
        ErrorKind::InvalidHandle
    );
    let event = Event::new(&there, Timing::Disabled).unwrap();
    assert_eq!(
        event.record(&stream).unwrap_err().kind(),
        ErrorKind::InvalidHandle
    );
    let foreign = here.record(event.raw(), Stream::new(&there).unwrap().raw());
    assert_eq!(foreign.unwrap_err().kind(), ErrorKind::InvalidHandle);
}

#[test]
fn overlapping_and_impossible_ranges_are_refused() {
    let (_, device) = sim(DeviceConfig::default());
    let stream = Stream::new(&device).unwrap();
    let memory = DeviceMemory::new(&device, 1000).unwrap();
    let copy = |copy: MemCopy| unsafe { stream.copy(copy) }.unwrap_err().kind();
    let within = MemCopy::on_device(memory.ptr(), memory.ptr().offset(99), 100);
    assert_eq!(copy(within), ErrorKind::InvalidArgument);
    let null = MemCopy::to_device(memory.ptr(), std::ptr::null(), 100);
    assert_eq!(copy(null), ErrorKind::InvalidArgument);
    let stranger = MemCopy {
        dst: Address::Peer(
            pinlane_driver::DeviceId {
                ordinal: 7,
                ..device.properties().id
            },
            memory.ptr(),
        ),
        src: Address::Device(memory.ptr()),
        bytes: 100,
    };
    assert_eq!(copy(stranger), ErrorKind::NoSuchDevice);
}

#[test]
fn handles_that_are_gone_are_told_from_those_that_took_their_place() {
    let (sim, _) = sim(DeviceConfig::default());
    let (stream, event) = (
        sim.create_stream().unwrap(),
        sim.create_event(Timing::Enabled).unwrap(),
    );
    unsafe {
        sim.destroy_stream(stream).unwrap();
        sim.destroy_event(event).unwrap();
    }
    let live = (
        sim.create_stream().unwrap(),
        sim.create_event(Timing::Enabled).unwrap(),
    );
    let kinds = [
        sim.synchronize_stream(stream).unwrap_err().kind(),
        // SAFETY: the simulated device finds out that it is none of its own.
        sim.synchronize_stream(unsafe { RawStream::from_raw(0) })
            .unwrap_err()
            .kind(),
        sim.query(event).unwrap_err().kind(),
        sim.record(event, live.0).unwrap_err().kind(),
        sim.stream_wait(live.0, event).unwrap_err().kind(),
        sim.elapsed(event, live.1).unwrap_err().kind(),
        sim.stall_stream(stream).unwrap_err().kind(),
        unsafe { sim.destroy_stream(stream).unwrap_err().kind() },
        unsafe { sim.destroy_event(event).unwrap_err().kind() },
        unsafe { sim.free(DevicePtr(64), 64).unwrap_err().kind() },
    ];
    assert_eq!(kinds, [ErrorKind::InvalidHandle; 10]);
}

#[test]
fn the_pin_limit_counts_for_all_devices_together() {
    let machine = Machine::new(MachineConfig {
        pin_limit: Some(1000),
        ..MachineConfig::equal_devices(2, DeviceConfig::default())
    });
    let (one, other) = (machine.device(0).unwrap(), machine.device(1).unwrap());
    let (mut first, mut second) = (vec![0; 600], vec![0; 600]);
    let pinned = pin(&one, &mut first);
    let start = NonNull::new(second.as_mut_ptr()).unwrap();
    let error = unsafe { PinnedRange::new(&other, start, 600) }.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinLimit);
    assert!(!other.is_pinned(second.as_ptr(), 1));
    drop(pinned);
    let pinned = pin(&other, &mut second);
    assert!(one.is_pinned(second.as_ptr(), 600));
    assert_eq!(machine.sim(0).unwrap().peak_pinned_bytes(), 600);
    drop(pinned);
}

#[test]
fn what_is_alive_is_counted() {
    let (sim, device) = sim(DeviceConfig::default());
    let mut host = vec![0; 300];
    let pinned = pin(&device, &mut host);
    let memory = [
        DeviceMemory::new(&device, 1000).unwrap(),
        DeviceMemory::new(&device, 24).unwrap(),
    ];
    let stream = Stream::new(&device).unwrap();
    let event = stream.record(Timing::Disabled).unwrap();
    let expected = Alive {
        device_allocations: 2,
        device_bytes: 1024,
        pinned_ranges: 1,
        pinned_bytes: 300,
        streams: 1,
        events: 1,
    };
    assert_eq!(sim.alive(), expected);
    drop((pinned, memory, event, stream));
    assert_eq!(sim.alive(), Alive::default());
    assert_eq!(
        (
            sim.peak_device_bytes(),
            sim.peak_pinned_bytes(),
            sim.freed_in_use()
        ),
        (1024, 300, 0)
    );
}

#[test]
fn giving_memory_back_that_enqueued_work_still_uses_is_noticed() {
    let (sim, device) = sim(DeviceConfig::default());
    let mut host = vec![1; 300];
    let pinned = pin(&device, &mut host);
    let memory = DeviceMemory::new(&device, 300).unwrap();
    let stream = Stream::new(&device).unwrap();
    let stall = sim.stall();
    unsafe {
        stream
            .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), 300))
            .unwrap()
    };
    drop(memory);
    assert_eq!(sim.freed_in_use(), 1);
    drop(pinned);
    assert_eq!(sim.freed_in_use(), 2);
    // The block is still the copy's, so the next allocation gets another one, and keeps what is written to it.
    let next = DeviceMemory::new(&device, 300).unwrap();
    drop(stall);
    unsafe {
        stream
            .copy(MemCopy::to_device(next.ptr(), pattern(300).as_ptr(), 300))
            .unwrap()
    };
    assert_eq!(read(&next, &stream), pattern(300));
    assert_eq!(sim.freed_in_use(), 2);
}
