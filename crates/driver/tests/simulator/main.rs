//! What only the simulated device shows: garbage when looked at too early, faults at every step, loss, leaks counted.

#![cfg(not(shuttle))]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each test owns what it copies until its device is drained"
)]

mod asynchrony;
mod bounds;
mod faults;
mod link;
mod loss;
mod scattered;

use std::{ptr::NonNull, sync::Arc};

use pinlane_driver::{
    DeviceMemory, Driver, MemCopy, PinnedRange, Stream,
    sim::{DeviceConfig, Machine, SimDriver},
};

/// The only device of a new machine, under both of its types.
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

/// What the device memory holds after all that is enqueued, read the plain way.
fn read(memory: &DeviceMemory, stream: &Stream) -> Vec<u8> {
    let mut host = vec![0; memory.bytes()];
    let copy = MemCopy::to_host(host.as_mut_ptr(), memory.ptr(), host.len());
    unsafe { stream.copy(copy).unwrap() };
    host
}

fn fill(memory: &DeviceMemory, value: u8, stream: &Stream) {
    let device = memory.driver();
    unsafe {
        device
            .memset(memory.ptr(), value, memory.bytes(), stream.raw())
            .unwrap()
    };
}
