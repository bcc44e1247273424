//! Results on the host that nobody asked to be pinned: within their share of the budget they are, and give way.

mod rig;

use pinlane::{
    DType, Device, DeviceOptions, HostMemory, Tensor, Tree,
    driver::sim::{MachineConfig, Step},
};
use rig::{Rig, pattern, small_engine};

const SLOT: usize = 8192;

fn pinned_zeros(device: &Device, bytes: usize) -> Tensor {
    HostMemory::Pinned(device).zeros(DType::U8, &[bytes]).unwrap()
}

/// A budget of 4 MiB, of which slots take a part.
fn with_four_mebibytes() -> Rig {
    let options = DeviceOptions {
        pinned_budget: Some(4 << 20),
        ..small_engine(1, 2, SLOT)
    };
    Rig::new(1, &options)
}

fn result(device: &Device, bytes: usize) -> Tensor {
    HostMemory::PinnedIfRoom(device)
        .empty(DType::U8, &[bytes])
        .unwrap()
}

#[test]
fn results_that_may_be_pageable_have_half_of_what_the_slots_leave() {
    let rig = with_four_mebibytes();
    let usage = || rig.device().stats().unwrap().pinned;
    let slots = usage().slots;
    assert!(slots > 0);
    let share = (usage().budget - slots) / 2;
    let mut held = Vec::new();
    while held.len() < 100 {
        held.push(result(rig.device(), 100_000));
    }
    let count = held.iter().filter(|tensor| tensor.is_pinned()).count();
    assert!(count > 0 && count < held.len());
    assert!(
        usage().results <= share && usage().results + 100_096 > share,
        "{:?}",
        usage()
    );
    // Everyone else has the rest: slots, and tensors that are to be pinned.
    let tensor = Tensor::from_bytes(pattern(300_000, 1), DType::U8, &[300_000]).unwrap();
    let there = tensor.to(rig.device()).unwrap();
    assert_eq!(
        there.to(&Device::host()).unwrap().as_bytes().unwrap(),
        pattern(300_000, 1)
    );
    assert_eq!(usage().slots, slots);
    let pinned = pinned_zeros(rig.device(), 1 << 20);
    drop((held, pinned, there));
    assert_eq!(usage().results, 0);
    assert!(rig.sim().peak_pinned_bytes() <= 4 << 20);
    rig.finish();
}

#[test]
fn a_result_is_pinned_again_where_the_one_before_lay_and_gives_way_to_tensors() {
    let rig = with_four_mebibytes();
    let address = |tensor: &Tensor| tensor.as_bytes().unwrap().as_ptr();
    let first = result(rig.device(), 500_000);
    let place = address(&first);
    drop(first);
    let again = result(rig.device(), 450_000);
    assert!(again.is_pinned() && address(&again) == place);
    // A short one is not worth it, and what nobody is to read but its owner is zero.
    assert!(!result(rig.device(), 1000).is_pinned());
    let mut wrong = HostMemory::PinnedIfRoom(rig.device())
        .full(DType::U8, &[100_000], 7)
        .unwrap();
    wrong.as_mut_slice::<u8>().unwrap().fill(9);
    drop(wrong);
    let zeros = HostMemory::PinnedIfRoom(rig.device()).zeros(DType::U8, &[100_000]);
    assert!(zeros.unwrap().as_bytes().unwrap().iter().all(|&byte| byte == 0));
    // Its memory is nobody's when it is dropped: a tensor gets nearly all of the budget.
    drop(again);
    let pinned = rig.device().stats().unwrap().pinned;
    drop(pinned_zeros(rig.device(), pinned.budget - pinned.slots - 8192));
    rig.finish();
}

#[test]
fn what_a_large_result_leaves_is_not_cut_up_for_small_ones() {
    let options = DeviceOptions {
        pinned_budget: Some(32 << 20),
        ..small_engine(1, 2, SLOT)
    };
    let rig = Rig::new(1, &options);
    let large = result(rig.device(), 8 << 20);
    let place = large.as_bytes().unwrap().as_ptr();
    drop(large);
    let small = result(rig.device(), 100_000);
    let again = result(rig.device(), 7 << 20);
    assert!(small.is_pinned() && again.is_pinned());
    assert_eq!(again.as_bytes().unwrap().as_ptr(), place);
    drop((small, again));
    rig.finish();
}

#[test]
fn a_long_result_is_pinned_when_one_of_its_size_has_come_before() {
    let options = DeviceOptions {
        pinned_budget: Some(128 << 20),
        ..small_engine(1, 2, SLOT)
    };
    let rig = Rig::new(1, &options);
    let long = (8 << 20) + 1;
    assert!(result(rig.device(), long - 1).is_pinned());
    assert!(!result(rig.device(), long).is_pinned());
    assert!(!result(rig.device(), 3 * long).is_pinned());
    let again = result(rig.device(), long);
    assert!(again.is_pinned() && result(rig.device(), long + 1000).is_pinned());
    drop(again);
    // Who trims makes no such results for now.
    rig.device().trim();
    assert!(!result(rig.device(), long).is_pinned());
    rig.finish();
}

#[test]
fn what_results_leave_is_given_back_by_trimming() {
    let rig = with_four_mebibytes();
    drop(result(rig.device(), 500_000));
    assert!(rig.sim().alive().pinned_bytes >= 500_000);
    assert!(rig.device().trim() >= 500_000);
    assert_eq!(rig.sim().alive().pinned_bytes, 0);
    rig.finish();
}

#[test]
fn where_the_system_pins_nothing_results_are_pageable() {
    let config = MachineConfig {
        pin_limit: Some(0),
        ..MachineConfig::default()
    };
    let rig = Rig::on(config, &DeviceOptions::default());
    assert!(!result(rig.device(), 100_000).is_pinned());
    let asked = rig.sim().calls(Step::Pin);
    assert!(!result(rig.device(), 100_000).is_pinned());
    assert_eq!(
        rig.sim().calls(Step::Pin),
        asked,
        "it is not asked in vain for each"
    );
    rig.finish();
}

#[test]
fn a_single_result_leaves_tensors_their_half_however_small_the_budget() {
    let options = DeviceOptions {
        pinned_budget: Some(1 << 20),
        ..small_engine(1, 2, SLOT)
    };
    let rig = Rig::new(1, &options);
    let held = result(rig.device(), 20_000);
    assert!(held.is_pinned());
    let pinned = rig.device().stats().unwrap().pinned;
    drop(pinned_zeros(
        rig.device(),
        (pinned.budget - pinned.slots) / 2 - 8192,
    ));
    drop(held);
    rig.finish();
}
