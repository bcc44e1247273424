//! The devices under a test, simulated or real, with an engine of the test's own on each, and what tests need to look at
//! them.
//!
//! A test that needs no more than devices [opens](Rig::open) those that it is given: where `PINLANE_TEST_DEVICE` names
//! one, such as `cuda:0`, it runs there, and on a simulated machine elsewhere. One that needs the simulator's stalls, faults
//! or counts [makes](Rig::new) a machine of its own.

#![allow(dead_code, reason = "each file of tests uses its own part")]

pub(crate) mod threads;

use std::{
    env,
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
    Device, DeviceOptions, Error,
    driver::{
        Driver,
        sim::{Alive, DeviceConfig, Machine, MachineConfig, SimDriver},
    },
};

/// The variable that names the device to test, such as `cuda:0`.
const TEST_DEVICE: &str = "PINLANE_TEST_DEVICE";

/// How long a test waits for what must happen, before it says that it did not: a hang is then a failure. No test
/// passes because of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The device that the tests are to run on, where someone named one.
pub(crate) fn named_device() -> Option<String> {
    let name = env::var_os(TEST_DEVICE)?;
    Some(
        name.into_string()
            .expect("PINLANE_TEST_DEVICE is the name of a device"),
    )
}

/// Devices with an engine each.
pub(crate) struct Rig {
    /// The simulators under the devices; none under devices that someone named.
    pub(crate) sims: Vec<Arc<SimDriver>>,
    pub(crate) devices: Vec<Device>,
}

impl Rig {
    /// `count` of the devices that the tests are to run on, each with an engine set up as `options` say.
    pub(crate) fn open(count: usize, options: &DeviceOptions) -> Self {
        match named_device() {
            Some(name) => Self::named(&name, count, options),
            None => Self::new(count, options),
        }
    }

    /// The device of that name and those after it. Where there are too few, the last devices are the first one with
    /// another engine: all that moves between them is still copied.
    pub(crate) fn named(name: &str, count: usize, options: &DeviceOptions) -> Self {
        let first = driver_named(name).unwrap();
        let id = first.properties().id;
        let family = name.split(':').next().unwrap_or(name);
        let devices = (0..count as u32).map(|further| {
            let driver = match further {
                0 => None,
                _ => driver_named(&format!("{family}:{}", id.ordinal + further)).ok(),
            };
            let driver = driver.unwrap_or_else(|| Arc::clone(&first));
            Device::with_options(driver, options).unwrap()
        });
        Self {
            sims: Vec::new(),
            devices: devices.collect(),
        }
    }

    /// `count` simulated devices with little memory, each with an engine set up as `options` say.
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

    /// Checks how many allocations there are on the only device, or on the first, where it can tell.
    pub(crate) fn assert_allocations(&self, count: usize) {
        if let Some(sim) = self.sims.first() {
            assert_eq!(sim.alive().device_allocations, count);
        }
    }

    /// Drops the engines and checks that nothing was lost on the way: nothing given up on, and, where the devices can
    /// tell, no memory freed while it was in use and nothing alive any more. The test has dropped its own tensors and
    /// transfers.
    pub(crate) fn finish(self) {
        let Self { sims, devices } = self;
        if sims.is_empty() {
            for device in &devices {
                assert_eq!(device.stats().unwrap().leaked_bytes, 0);
            }
        }
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

fn driver_named(name: &str) -> Result<Arc<dyn Driver>, Error> {
    let device = Device::open(name)?;
    Ok(Arc::clone(
        device.driver().expect("a device under test is no host"),
    ))
}

/// Whether there was no room in the pinned budget.
pub(crate) fn is_over_budget(error: &Error) -> bool {
    match error {
        Error::Leaf { source, .. } => is_over_budget(source),
        error => matches!(error, Error::PinnedBudget { .. }),
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
