//! The pinned budget: never exceeded, shared by tensors and transfers, and never a dead end.

mod rig;

use std::{sync::Barrier, thread};

use pinlane::{
    DType, Device, DeviceOptions, Error, HostMemory, Route, Tensor, TransferOptions, Tree,
    driver::{
        ErrorKind,
        sim::{DeviceConfig, Fault, FaultPlan, Machine, MachineConfig, Step},
    },
};
use rig::{Rig, pattern, small_engine};

const SLOT: usize = 8192;

fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

fn pinned_zeros(device: &Device, bytes: usize) -> Result<Tensor, Error> {
    HostMemory::Pinned(device).zeros(DType::U8, &[bytes])
}

/// Moves about `bytes` bytes there and back in trees of several sizes.
fn move_there_and_back(device: &Device, bytes: usize, seed: usize) {
    let tree = vec![
        tensor(100_000, seed),
        tensor(50, seed + 1),
        tensor(30_000, seed + 2),
    ];
    let once = 130_050;
    for round in 0..bytes.div_ceil(once) {
        // Some results are pinned, as far as the budget goes.
        let options = if round % 3 == 0 {
            TransferOptions::new().pinned_result()
        } else {
            TransferOptions::new()
        };
        let there = tree.to(device).unwrap();
        let back = match there.to_with(&Device::host(), &options) {
            Err(Error::PinnedBudget { .. }) => there.to(&Device::host()).unwrap(),
            moved => moved.unwrap(),
        };
        for (sent, landed) in tree.iter().zip(&back) {
            assert!(sent.as_bytes().unwrap() == landed.as_bytes().unwrap());
        }
    }
}

#[test]
fn a_hundred_times_the_budget_moves_both_ways_within_the_budget() {
    let budget = 512 << 10;
    let options = DeviceOptions {
        pinned_budget: Some(budget),
        ..small_engine(2, 3, SLOT)
    };
    let rig = Rig::new(1, &options);
    let threads = 4;
    thread::scope(|scope| {
        for worker in 0..threads {
            let device = rig.device();
            scope.spawn(move || move_there_and_back(device, 100 * budget / threads, 10 * worker));
        }
    });
    let peak = rig.sim().peak_pinned_bytes();
    assert!(peak > 0 && peak <= budget as u64, "{peak} of {budget}");
    let counted = rig.device().stats().unwrap().pinned.peak;
    assert!(counted as u64 >= peak && counted <= budget);
    rig.finish();
}

#[test]
fn pinned_tensors_and_transfers_share_one_budget() {
    let budget = 256 << 10;
    let options = DeviceOptions {
        pinned_budget: Some(budget),
        ..small_engine(2, 2, SLOT)
    };
    let rig = Rig::new(1, &options);
    let mut hoard = Vec::new();
    let refused = loop {
        match pinned_zeros(rig.device(), 10_000) {
            Ok(tensor) => hoard.push(tensor),
            Err(error) => break error,
        }
    };
    let Error::PinnedBudget {
        asked,
        leased,
        reserved,
        budget: whole,
    } = refused
    else {
        panic!("{refused}");
    };
    assert_eq!((asked, whole), (10_000, budget));
    assert_eq!(reserved, 8 * SLOT, "the slots, which are not made yet");
    assert!(leased >= hoard.len() * 10_000 && leased + reserved + 10_000 + 256 > budget);
    // The slots' share is still there, and what is dropped can be had again.
    move_there_and_back(rig.device(), 300_000, 1);
    hoard.pop();
    let again = pinned_zeros(rig.device(), 10_000).unwrap();
    pinned_zeros(rig.device(), 10_000).unwrap_err();
    assert!(rig.sim().peak_pinned_bytes() <= budget as u64);
    drop((hoard, again));
    rig.finish();
}

/// A budget of 4 MiB, of which slots take a part.
fn with_four_mebibytes() -> Rig {
    let options = DeviceOptions {
        pinned_budget: Some(4 << 20),
        ..small_engine(1, 2, SLOT)
    };
    Rig::new(1, &options)
}

#[test]
fn who_asks_for_more_than_the_budget_is_not_told_to_drop_tensors() {
    let rig = with_four_mebibytes();
    // The slots are made.
    move_there_and_back(rig.device(), 1000, 1);
    let held = pinned_zeros(rig.device(), 1 << 20).unwrap();
    let pinned = rig.device().stats().unwrap().pinned;
    let error = pinned_zeros(rig.device(), 5 << 20).unwrap_err().to_string();
    assert!(!error.contains("drop"), "{error}");
    let enough = (5 << 20) + pinned.slots;
    assert!(error.contains(&format!("at least {enough} bytes")), "{error}");
    let error = pinned_zeros(rig.device(), 3 << 20).unwrap_err().to_string();
    assert!(error.contains("drop some"), "{error}");
    assert!(
        error.contains(&format!("hold {}", pinned.leased - pinned.slots)),
        "{error}"
    );
    drop(held);
    rig.finish();
}

#[test]
fn pinned_memory_that_nothing_uses_makes_room_for_another_size() {
    let options = DeviceOptions {
        pinned_budget: Some(6 << 20),
        ..small_engine(1, 1, SLOT)
    };
    let rig = Rig::new(1, &options);
    for bytes in [100, 3 << 20, 5 << 20, 200, 4 << 20] {
        let tensor = pinned_zeros(rig.device(), bytes).unwrap();
        assert!(tensor.is_pinned());
    }
    assert!(rig.sim().peak_pinned_bytes() <= 6 << 20);
    assert!(rig.device().trim() > 0);
    assert_eq!(rig.sim().alive().pinned_bytes, 0);
    assert_eq!(rig.device().trim(), 0);
    rig.finish();
}

#[test]
fn device_memory_that_nothing_uses_is_counted_and_given_back() {
    let rig = Rig::new(1, &small_engine(1, 1, SLOT));
    let device = rig.device();
    let there = Tensor::zeros(DType::U8, &[3 << 20]).unwrap().to(device).unwrap();
    device.trim();
    assert_eq!(device.stats().unwrap().idle_bytes, 0);
    let kept = there.clone();
    drop(there);
    assert_eq!(device.stats().unwrap().idle_bytes, 0);
    drop(kept);
    assert_eq!(device.stats().unwrap().idle_bytes, 3 << 20);
    assert!(device.trim() >= 3 << 20);
    assert_eq!(device.stats().unwrap().idle_bytes, 0);
    move_there_and_back(device, 300_000, 1);
    rig.finish();
}

#[test]
fn a_budget_below_one_slot_is_refused() {
    let machine = Machine::new(DeviceConfig::default());
    let open = |budget, slot| {
        let options = DeviceOptions {
            pinned_budget: Some(budget),
            slot_bytes: slot,
            ..DeviceOptions::default()
        };
        Device::with_options(machine.device(0).unwrap(), &options)
    };
    for (budget, slot) in [(SLOT - 1, Some(SLOT)), (0, None), (100, None), (0, Some(SLOT))] {
        let refused = open(budget, slot).unwrap_err();
        assert!(matches!(refused, Error::Options { .. }), "{refused}");
        assert!(refused.to_string().contains("budget"), "{refused}");
    }
    // One slot is enough, and a size that nobody asked for gives way.
    for (budget, slot) in [(SLOT, Some(SLOT)), (4096, None), (100_000, None)] {
        let device = open(budget, slot).unwrap();
        move_there_and_back(&device, 1, 1);
        assert!(device.stats().unwrap().pinned.peak <= budget);
    }
}

#[test]
fn options_that_ask_for_nothing_are_refused() {
    let machine = Machine::new(DeviceConfig::default());
    let fine = small_engine(1, 1, SLOT);
    for options in [
        DeviceOptions {
            lanes: Some(0),
            ..fine.clone()
        },
        DeviceOptions {
            slots_per_lane: Some(0),
            ..fine.clone()
        },
        DeviceOptions {
            slot_bytes: Some(0),
            ..fine.clone()
        },
        DeviceOptions {
            slot_bytes: Some(5000),
            ..fine.clone()
        },
        DeviceOptions {
            slot_bytes: Some(usize::MAX),
            ..fine
        },
    ] {
        let refused = Device::with_options(machine.device(0).unwrap(), &options).unwrap_err();
        assert!(matches!(refused, Error::Options { .. }), "{refused}");
    }
}

#[test]
fn a_host_that_pins_less_than_the_budget_gives_fewer_slots_and_the_work_goes_on() {
    for limit in [SLOT as u64, 5 * SLOT as u64, 3 << 20] {
        let config = MachineConfig {
            pin_limit: Some(limit),
            ..MachineConfig::default()
        };
        let options = DeviceOptions {
            pinned_budget: Some(1 << 40),
            lanes: Some(4),
            slots_per_lane: Some(200),
            slot_bytes: Some(SLOT),
            profile: None,
        };
        let rig = Rig::on(config, &options);
        let there = tensor(1_000_000, 1).to(rig.device()).unwrap();
        let back = there.to(&Device::host()).unwrap();
        assert!(back.as_bytes().unwrap() == pattern(1_000_000, 1));
        assert!(rig.sim().peak_pinned_bytes() <= limit);
        drop(there);
        rig.finish();
    }
}

#[test]
fn a_host_that_pins_nothing_fails_what_needs_slots_and_no_more() {
    let config = MachineConfig {
        pin_limit: Some(0),
        ..MachineConfig::default()
    };
    let rig = Rig::on(config, &small_engine(1, 1, SLOT));
    let refused = tensor(100_000, 1).to(rig.device()).unwrap_err();
    assert_eq!(refused.driver_kind(), Some(ErrorKind::PinLimit), "{refused}");
    let plainly = TransferOptions::new().route(Route::Plain);
    let there = tensor(100_000, 1).to_with(rig.device(), &plainly).unwrap();
    let back = there.to_with(&Device::host(), &plainly).unwrap();
    assert!(back.as_bytes().unwrap() == pattern(100_000, 1));
    drop(there);
    rig.finish();
}

#[test]
fn pinning_that_fails_for_another_reason_than_a_shortage_is_told_and_not_tried_with_less() {
    for (fault, kind) in [
        (Fault::Refused, ErrorKind::Refused),
        (Fault::DeviceLost, ErrorKind::DeviceLost),
    ] {
        let rig = Rig::new(1, &small_engine(2, 4, SLOT));
        rig.sim().set_faults(FaultPlan::new().at(Step::Pin, 0, fault));
        let refused = tensor(100_000, 1).to(rig.device()).unwrap_err();
        assert_eq!(refused.driver_kind(), Some(kind), "{refused}");
        if kind == ErrorKind::DeviceLost {
            continue;
        }
        assert_eq!(rig.sim().calls(Step::Pin), 1);
        // The slots are all there once the driver no longer refuses.
        move_there_and_back(rig.device(), 300_000, 1);
        assert_eq!(rig.device().stats().unwrap().pinned.pinned, 2 * 2 * 4 * SLOT);
        rig.finish();
    }
}

#[test]
fn threads_that_pin_at_the_same_time_all_get_what_the_budget_has() {
    for _ in 0..20 {
        let options = DeviceOptions {
            pinned_budget: Some(1 << 20),
            ..small_engine(1, 1, SLOT)
        };
        let rig = Rig::new(1, &options);
        let start = Barrier::new(8);
        thread::scope(|scope| {
            let pinning = || {
                start.wait();
                pinned_zeros(rig.device(), 50_000)
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(pinning)).collect();
            let pinned = threads.into_iter().map(|thread| thread.join().unwrap());
            // All at once: none is dropped before the last is there.
            let pinned: Vec<_> = pinned.collect();
            assert!(pinned.iter().all(Result::is_ok), "{pinned:?}");
        });
        rig.finish();
    }
}
