//! What a small copy costs beside the driver's call: no memory, no lane, no event.
//!
//! Allocations are counted for each thread by itself, lanes for the whole process: of tests that look for these, or have some, one
//! runs at a time.

#![cfg(all(target_os = "linux", not(shuttle)))]

mod counted;

use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use counted::{Uncounted, allocations_of};
use pinlane::{
    DType, Device, DeviceOptions, Error, HostMemory, Tensor, TransferOptions, Tree,
    driver::{
        Driver,
        sim::{DeviceConfig, Machine, SimDriver, Step},
        sync::Arc,
    },
};

const FLOATS: usize = 100;
const COPIES: usize = 1000;

fn device() -> (Device, Arc<SimDriver>) {
    let sim = Machine::new(DeviceConfig::default()).sim(0).unwrap();
    let driver = Arc::new(Uncounted(Arc::clone(&sim))) as Arc<dyn Driver>;
    let device = Device::with_options(driver, &DeviceOptions::default()).unwrap();
    (device, sim)
}

/// One test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The steps that have to do with events.
fn event_calls(sim: &SimDriver) -> u64 {
    let steps = [
        Step::CreateEvent,
        Step::Record,
        Step::StreamWait,
        Step::Query,
        Step::SynchronizeEvent,
    ];
    steps.into_iter().map(|step| sim.calls(step)).sum()
}

/// How often this thread has read a file so far.
fn reads() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
    let reads = counts.lines().find_map(|line| line.strip_prefix("syscr: "));
    reads.unwrap().parse().unwrap()
}

/// The names of this process's lanes.
fn lanes() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names
        .map(|name| name.trim().to_owned())
        .filter(|name| name.contains("-up-") || name.contains("-down-"))
        .collect()
}

#[test]
fn warm_copies_into_small_tensors_allocate_nothing_and_use_neither_lane_nor_event() {
    let _turn = turn();
    let (device, sim) = device();
    let pageable = Tensor::rand(DType::F32, &[FLOATS], 1).unwrap();
    let pinned = pageable.pin_memory(&device).unwrap();
    let mut there = pageable.to(&device).unwrap();
    let mut back = HostMemory::Pinned(&device).zeros(DType::F32, &[FLOATS]).unwrap();
    let mut touched = Tensor::zeros(DType::F32, &[FLOATS]).unwrap();
    let mut round = || {
        pageable.copy_into(&mut there).unwrap();
        pinned.copy_into(&mut there).unwrap();
        there.copy_into(&mut back).unwrap();
        there.copy_into(&mut touched).unwrap();
    };
    round();
    let copies = sim.calls(Step::Copy);
    let allocations = allocations_of(|| (0..COPIES / 4).for_each(|_| round()));
    assert_eq!(sim.calls(Step::Copy) - copies, COPIES as u64);
    assert_eq!(allocations, 0);
    assert_eq!(event_calls(&sim), 0);
    assert_eq!(lanes(), [""; 0]);
    for landed in [&back, &touched] {
        assert_eq!(
            landed.as_slice::<f32>().unwrap(),
            pageable.as_slice::<f32>().unwrap()
        );
    }
}

#[test]
fn a_small_tensor_that_is_moved_allocates_what_its_result_is_made_of_and_no_more() {
    let _turn = turn();
    let (device, sim) = device();
    let here = Tensor::rand(DType::F32, &[FLOATS], 1).unwrap();
    let there = here.to(&device).unwrap();
    drop(there.to(&Device::host()).unwrap());
    let of_each = |work: &dyn Fn() -> Tensor| {
        let allocations = allocations_of(|| (0..COPIES).for_each(|_| drop(work())));
        assert_eq!(allocations % COPIES as u64, 0);
        allocations / COPIES as u64
    };
    // What owns the device's memory, and what tensors share; on the host the memory as well.
    assert_eq!(of_each(&|| here.to(&device).unwrap()), 2);
    assert_eq!(of_each(&|| there.to(&Device::host()).unwrap()), 3);
    let pinned = TransferOptions::new().pinned_result();
    let back = there.to_with(&Device::host(), &pinned).unwrap();
    assert!(back.is_pinned());
    assert_eq!(back.as_slice::<f32>().unwrap(), here.as_slice::<f32>().unwrap());
    // Here the pool keeps a list of what is free in the memory that it has pinned.
    assert_eq!(of_each(&|| there.to_with(&Device::host(), &pinned).unwrap()), 2);
    assert_eq!(event_calls(&sim), 0);
    assert_eq!(lanes(), [""; 0]);
}

#[test]
fn a_tensor_that_finds_no_room_in_pinned_memory_stays_where_it_is() {
    let _turn = turn();
    let options = DeviceOptions {
        pinned_budget: Some(4 << 20),
        ..DeviceOptions::default()
    };
    let device =
        Device::with_options(Machine::new(DeviceConfig::default()).sim(0).unwrap(), &options).unwrap();
    let there = Tensor::ones(DType::U8, &[8 << 20]).unwrap().to(&device).unwrap();
    let refused = there.to_with(&Device::host(), &TransferOptions::new().pinned_result());
    assert!(matches!(refused, Err(Error::PinnedBudget { .. })), "{refused:?}");
    assert_eq!(device.stats().unwrap().leaked_bytes, 0);
    let back = there.to(&Device::host()).unwrap();
    assert!(back.as_slice::<u8>().unwrap().iter().all(|&byte| byte == 1));
    drop((there, device));
    let patience = Instant::now() + Duration::from_secs(30);
    while !lanes().is_empty() {
        assert!(Instant::now() < patience, "lanes stay when their device is gone");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_small_tree_that_is_moved_reads_no_file_of_the_kernels() {
    let _turn = turn();
    let (device, _) = device();
    let here = vec![Tensor::rand(DType::F32, &[FLOATS], 1).unwrap(); 10];
    let mut into = here.to(&device).unwrap();
    let before = reads();
    let of_counting = reads() - before;
    let before = reads();
    for _ in 0..COPIES / 10 {
        let there = here.to(&device).unwrap();
        there.to(&Device::host()).unwrap();
        here.copy_into(&mut into).unwrap();
    }
    assert_eq!(reads() - before, of_counting);
}
