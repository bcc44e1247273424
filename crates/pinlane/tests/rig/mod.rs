//! A simulated machine of a test's own, with an engine on each device, and what tests need to look at it.

#![allow(dead_code, reason = "each file of tests uses its own part")]

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use pinlane::{
    Device, DeviceOptions,
    driver::sim::{Alive, DeviceConfig, Machine, MachineConfig, SimDriver},
};

/// How long a test waits for what must happen, before it says that it did not: a hang is then a failure. No test
/// passes because of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine, its devices as simulators, and the engines on them.
pub(crate) struct Rig {
    pub(crate) sims: Vec<Arc<SimDriver>>,
    pub(crate) devices: Vec<Device>,
}

impl Rig {
    /// `count` devices with little memory, each with an engine set up as `options` say.
    pub(crate) fn new(count: usize, options: &DeviceOptions) -> Self {
        let config = DeviceConfig {
            memory_bytes: 256 << 20,
            // Short, so that what the driver stages goes in several pieces too.
            bounce_bytes: 8 << 10,
            ..DeviceConfig::default()
        };
        Self::on(MachineConfig::equal_devices(count, config), options)
    }

    pub(crate) fn on(config: MachineConfig, options: &DeviceOptions) -> Self {
        let machine = Machine::new(config);
        let ordinals = 0..machine.device_count() as u32;
        let devices = ordinals
            .clone()
            .map(|ordinal| Device::with_options(machine.device(ordinal).unwrap(), options).unwrap());
        Self {
            devices: devices.collect(),
            sims: ordinals.map(|ordinal| machine.sim(ordinal).unwrap()).collect(),
        }
    }

    /// The only device, or the first.
    pub(crate) fn device(&self) -> &Device {
        &self.devices[0]
    }

    /// The simulator of the only device, or of the first.
    pub(crate) fn sim(&self) -> &SimDriver {
        &self.sims[0]
    }

    /// Drops the engines and checks that nothing was lost on the way: no memory freed while it was in use, nothing
    /// alive any more. The test has dropped its own tensors and transfers.
    pub(crate) fn finish(self) {
        let Self { sims, devices } = self;
        drop(devices);
        for sim in sims {
            // Where the reactor retires the last transfer, it is the one that ends the engine.
            eventually("everything is given back", || sim.alive() == Alive::default());
            assert_eq!(
                sim.freed_in_use(),
                0,
                "memory was given back while a copy used it"
            );
        }
    }
}

/// One device with an engine of these sizes.
pub(crate) fn small_engine(lanes: usize, slots_per_lane: usize, slot_bytes: usize) -> DeviceOptions {
    DeviceOptions {
        pinned_budget: Some(2 * lanes * slots_per_lane * slot_bytes),
        lanes: Some(lanes),
        slots_per_lane: Some(slots_per_lane),
        slot_bytes: Some(slot_bytes),
        profile: None,
    }
}

/// Waits until `holds`.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_micros(50));
    }
}

/// Runs a future on this thread, which sleeps until it is woken.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark {
        thread: Thread,
        woken: AtomicBool,
    }
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.woken.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }
    let unpark = Arc::new(Unpark {
        thread: thread::current(),
        woken: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let start = Instant::now();
        while !unpark.woken.swap(false, Ordering::Acquire) {
            assert!(start.elapsed() < PATIENCE, "a pending future was never woken");
            thread::park_timeout(PATIENCE);
        }
    }
}

/// `bytes` bytes that differ from their neighbours and, with another seed, from those of another.
pub(crate) fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes)
        .map(|index| {
            let mixed =
                (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed.wrapping_mul(0xD1B5_4A32_D192_ED03);
            (mixed >> 29) as u8 ^ (mixed >> 53) as u8
        })
        .collect()
}
