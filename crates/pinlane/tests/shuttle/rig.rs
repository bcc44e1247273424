//! One simulated device with few lanes and tiny slots, and what the programs move.

use pinlane::{
    DType, Device, DeviceOptions, Profile, Result, Route, Tensor, TransferOptions, Tree,
    driver::{
        Driver, ErrorKind,
        sim::{Alive, CopyEngines, DeviceConfig, FaultPlan, Machine, MachineConfig, SimDriver},
        sync::{Arc, Duration, thread},
    },
};
use shuttle::rand::{Rng, thread_rng};

pub(crate) const SLOT: usize = 4096;

/// A number below `bound`, drawn from the schedule's seed.
pub(crate) fn pick(bound: usize) -> usize {
    thread_rng().gen_range(0..bound)
}

/// The pinned budget where nothing else is said.
pub(crate) const BUDGET: usize = 16 * SLOT;

/// A machine's only device.
pub(crate) fn open(faults: FaultPlan, budget: usize) -> (Device, Arc<SimDriver>) {
    let [only] = open_all(faults, budget);
    only
}

/// The devices of one machine, with one or two lanes and one to three slots each. Work that fits into one slot is
/// sometimes done by the caller's thread.
pub(crate) fn open_all<const N: usize>(faults: FaultPlan, budget: usize) -> [(Device, Arc<SimDriver>); N] {
    let machine = Machine::new(MachineConfig::equal_devices(N, config(faults)));
    std::array::from_fn(|ordinal| {
        let (lanes, slots_per_lane) = [(1, 1), (1, 2), (1, 3), (2, 1)][pick(4)];
        engine(&machine, ordinal as u32, budget, lanes, slots_per_lane)
    })
}

/// A machine's only device, with as many slots as it takes for results to stay in one.
pub(crate) fn open_with_slots_to_lend() -> (Device, Arc<SimDriver>) {
    let machine = Machine::new(config(FaultPlan::new()));
    engine(&machine, 0, BUDGET, 2, 2)
}

fn config(faults: FaultPlan) -> DeviceConfig {
    DeviceConfig {
        memory_bytes: 1 << 20,
        copy_engines: CopyEngines::One,
        bounce_bytes: SLOT,
        faults,
        ..DeviceConfig::default()
    }
}

fn engine(
    machine: &Machine,
    ordinal: u32,
    budget: usize,
    lanes: usize,
    slots_per_lane: usize,
) -> (Device, Arc<SimDriver>) {
    let driver: Arc<dyn Driver> = machine.device(ordinal).unwrap();
    let mut profile = Profile::assumed(driver.properties());
    profile.inline_bytes = [0, SLOT][pick(2)];
    // Under shuttle no time passes; with some patience, lanes look out while a transfer is planned.
    profile.patience = [Duration::ZERO, Duration::from_micros(1)][pick(2)];
    profile.plain_bytes = 64;
    let options = DeviceOptions {
        pinned_budget: Some(budget),
        lanes: Some(lanes),
        slots_per_lane: Some(slots_per_lane),
        slot_bytes: Some(SLOT),
        profile: Some(profile),
    };
    let device = Device::with_options(driver, &options).unwrap();
    (device, machine.sim(ordinal).unwrap())
}

/// A tensor of up to three chunks.
pub(crate) fn tensor(seed: usize) -> Tensor {
    let bytes = [10, SLOT, 2 * SLOT + 100][pick(3)];
    let bytes: Vec<u8> = (0..bytes)
        .map(|index| (index * 31 % 251) as u8 ^ seed as u8)
        .collect();
    let shape = [bytes.len()];
    Tensor::from_bytes(bytes, DType::U8, &shape).unwrap()
}

/// Sends a tensor and gets it back, in one of several ways.
pub(crate) fn there_and_back(device: &Device, tensor: &Tensor) -> Result<()> {
    let options = match pick(4) {
        0 => TransferOptions::new().route(Route::Plain),
        1 => TransferOptions::new().pinned_result(),
        _ => TransferOptions::new(),
    };
    let there = tensor.transfer_with(device, &options)?.wait()?;
    let back = there.transfer_with(&Device::host(), &options)?.wait()?;
    assert_same(tensor, &back);
    Ok(())
}

pub(crate) fn assert_same(expected: &Tensor, found: &Tensor) {
    assert!(
        expected.as_bytes().unwrap() == found.as_bytes().unwrap(),
        "other bytes arrived than were sent"
    );
}

/// Returns once nothing is left of a device whose last handle is gone. Threads that let go of its last transfer may
/// still be at it; one that never does makes this loop too long for shuttle.
pub(crate) fn assert_nothing_left(sim: &SimDriver) {
    while sim.alive() != Alive::default() {
        thread::yield_now();
    }
    assert_eq!(sim.freed_in_use(), 0);
}

/// The same for a device that was lost, whose memory may be kept.
pub(crate) fn assert_only_memory_left(sim: &SimDriver) {
    while (sim.alive().streams, sim.alive().events) != (0, 0) {
        thread::yield_now();
    }
    assert_eq!(sim.freed_in_use(), 0);
}

pub(crate) fn is_lost(sim: &SimDriver) -> bool {
    sim.memory_info()
        .is_err_and(|error| error.kind() == ErrorKind::DeviceLost)
}

/// Runs all of `bodies` at once, each on a thread of its own.
pub(crate) fn at_once(bodies: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = bodies.into_iter().map(thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
