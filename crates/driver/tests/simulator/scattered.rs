//! Scattered copies on the simulated device: what it counts, and what shows when their table is not kept.

use std::{ptr::NonNull, time::Duration};

use pinlane_driver::{
    DeviceMemory, ErrorKind, MemCopy, Stream,
    sim::{DeviceConfig, Step},
};

use crate::{pattern, pin, sim};

const PIECE: usize = 100;
const PIECES: usize = 8;

fn pieces(memory: &DeviceMemory, source: &[u8]) -> Vec<MemCopy> {
    (0..PIECES)
        .map(|piece| {
            let at = piece * PIECE;
            MemCopy::to_device(memory.ptr().offset(at), source[at..].as_ptr(), PIECE)
        })
        .collect()
}

#[test]
fn a_table_that_is_used_again_too_early_fails_the_copies() {
    let (sim, device) = sim(DeviceConfig::default());
    let (mut source, mut table) = (pattern(PIECE * PIECES), vec![0_u128; 16]);
    let start: NonNull<u8> = NonNull::from(table.as_mut_slice()).cast();
    let memory = DeviceMemory::new(&device, source.len()).unwrap();
    let _pinned = pin(&device, &mut source);
    let _pinned_table =
        unsafe { pinlane_driver::PinnedRange::new(&device, start, size_of_val(&*table)).unwrap() };
    let stream = Stream::new(&device).unwrap();
    let copies = pieces(&memory, &source);
    let stall = sim.stall();
    unsafe {
        device.copy_scattered(&copies, start, stream.raw()).unwrap();
        start.write(start.read() ^ 1);
    }
    drop(stall);
    let error = stream.synchronize().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CopyFailed, "{error}");
    assert!(error.to_string().contains("table"), "{error}");
    assert_eq!(sim.calls(Step::CopyScattered), 1);
}

#[test]
fn a_table_that_is_unpinned_too_early_is_counted() {
    let (sim, device) = sim(DeviceConfig::default());
    let (mut source, mut table) = (pattern(PIECE * PIECES), vec![0_u128; 16]);
    let start: NonNull<u8> = NonNull::from(table.as_mut_slice()).cast();
    let memory = DeviceMemory::new(&device, source.len()).unwrap();
    let _pinned = pin(&device, &mut source);
    let pinned_table =
        unsafe { pinlane_driver::PinnedRange::new(&device, start, size_of_val(&*table)).unwrap() };
    let stream = Stream::new(&device).unwrap();
    let copies = pieces(&memory, &source);
    let stall = sim.stall();
    unsafe { device.copy_scattered(&copies, start, stream.raw()).unwrap() };
    drop(pinned_table);
    assert_eq!(sim.freed_in_use(), 1);
    drop(stall);
    stream.synchronize().unwrap();
}

#[test]
fn scattered_copies_pay_the_latency_of_one_and_the_links_rate_for_all() {
    let (_, device) = sim(DeviceConfig {
        bytes_per_second: Some(1e6),
        copy_latency: Duration::from_millis(2),
        ..DeviceConfig::default()
    });
    let (mut source, mut table) = (pattern(PIECE * PIECES), vec![0_u128; 16]);
    let start: NonNull<u8> = NonNull::from(table.as_mut_slice()).cast();
    let memory = DeviceMemory::new(&device, source.len()).unwrap();
    let _pinned = pin(&device, &mut source);
    let _pinned_table =
        unsafe { pinlane_driver::PinnedRange::new(&device, start, size_of_val(&*table)).unwrap() };
    let stream = Stream::new(&device).unwrap();
    let before = stream.record(pinlane_driver::Timing::Enabled).unwrap();
    unsafe {
        device
            .copy_scattered(&pieces(&memory, &source), start, stream.raw())
            .unwrap();
    }
    let after = stream.record(pinlane_driver::Timing::Enabled).unwrap();
    after.synchronize().unwrap();
    // On the device's clock, which is exact: 2 ms, and 800 bytes at 1 MB/s.
    let took = after.elapsed_since(&before).unwrap();
    assert!(took >= Duration::from_micros(2800), "{took:?}");
}
