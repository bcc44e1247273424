//! What copying and pinning cost: the link's rate and latency as the device's own clock shows them, pinning's as the
//! caller's clock does. Only lower bounds: a loaded host is slower.

use std::time::{Duration, Instant};

use pinlane_driver::{
    DeviceMemory, MemCopy, Stream, Timing,
    sim::{CopyEngines, DeviceConfig},
};

use crate::{pin, sim};

const BYTES: usize = 2 << 20;

/// A link that takes 4 milliseconds for [`BYTES`].
fn slow(copy_engines: CopyEngines) -> DeviceConfig {
    DeviceConfig {
        bytes_per_second: Some(BYTES as f64 / 4e-3),
        copy_engines,
        ..DeviceConfig::default()
    }
}

#[test]
fn a_throttled_copy_takes_at_least_what_its_bytes_need() {
    let (_, device) = sim(DeviceConfig {
        copy_latency: Duration::from_millis(1),
        ..slow(CopyEngines::Two)
    });
    let mut host = vec![1; BYTES];
    let _pinned = pin(&device, &mut host);
    let memory = DeviceMemory::new(&device, BYTES).unwrap();
    let stream = Stream::new(&device).unwrap();
    let start = stream.record(Timing::Enabled).unwrap();
    unsafe {
        stream
            .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), BYTES))
            .unwrap()
    };
    let middle = stream.record(Timing::Enabled).unwrap();
    unsafe {
        stream
            .copy(MemCopy::to_host(host.as_mut_ptr(), memory.ptr(), BYTES / 2))
            .unwrap()
    };
    let end = stream.record(Timing::Enabled).unwrap();
    stream.synchronize().unwrap();
    assert!(middle.elapsed_since(&start).unwrap() >= Duration::from_micros(4_999));
    assert!(end.elapsed_since(&middle).unwrap() >= Duration::from_micros(2_999));
}

#[test]
fn two_directions_that_share_an_engine_take_turns() {
    let (_, device) = sim(slow(CopyEngines::One));
    let (mut up, mut down) = (vec![1; BYTES], vec![2; BYTES]);
    let _pinned = (pin(&device, &mut up), pin(&device, &mut down));
    let memory = [
        DeviceMemory::new(&device, BYTES).unwrap(),
        DeviceMemory::new(&device, BYTES).unwrap(),
    ];
    let (upward, downward) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
    let start = upward.record(Timing::Enabled).unwrap();
    downward.wait(&start).unwrap();
    unsafe {
        upward
            .copy(MemCopy::to_device(memory[0].ptr(), up.as_ptr(), BYTES))
            .unwrap();
        downward
            .copy(MemCopy::to_host(down.as_mut_ptr(), memory[1].ptr(), BYTES))
            .unwrap();
    }
    let ends = [
        upward.record(Timing::Enabled).unwrap(),
        downward.record(Timing::Enabled).unwrap(),
    ];
    let elapsed = ends.map(|end| {
        end.synchronize().unwrap();
        end.elapsed_since(&start).unwrap()
    });
    assert!(
        elapsed.into_iter().max().unwrap() >= Duration::from_micros(7_999),
        "{elapsed:?}"
    );
}

#[test]
fn copies_on_the_device_do_not_use_the_link() {
    let (_, device) = sim(DeviceConfig {
        bytes_per_second: Some(1.0),
        ..slow(CopyEngines::Three)
    });
    let memory = [
        DeviceMemory::new(&device, BYTES).unwrap(),
        DeviceMemory::new(&device, BYTES).unwrap(),
    ];
    let stream = Stream::new(&device).unwrap();
    unsafe {
        stream
            .copy(MemCopy::on_device(memory[0].ptr(), memory[1].ptr(), BYTES))
            .unwrap()
    };
    // At one byte a second this would take weeks.
    stream.synchronize().unwrap();
}

#[test]
fn pinning_holds_its_caller_up_for_at_least_its_bytes_and_its_call() {
    let (_, device) = sim(DeviceConfig {
        pin_bytes_per_second: Some(BYTES as f64 / 4e-3),
        pin_latency: Duration::from_millis(1),
        ..DeviceConfig::default()
    });
    let mut host = vec![1; BYTES];
    let began = Instant::now();
    let pinned = pin(&device, &mut host);
    assert!(began.elapsed() >= Duration::from_micros(4_999));
    drop(pinned);
    let began = Instant::now();
    let _pinned = pin(&device, &mut host[..1]);
    assert!(began.elapsed() >= Duration::from_millis(1));
}
