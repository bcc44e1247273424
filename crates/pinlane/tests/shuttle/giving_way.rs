//! Memory that gives way: results that may be pageable, and what dropped transfers keep.

use pinlane::{
    DType, HostMemory, Tree,
    driver::{sim::FaultPlan, sync::Duration},
};

use crate::{
    explore,
    rig::{BUDGET, SLOT, assert_nothing_left, at_once, open, pick, tensor, there_and_back},
};

#[test]
fn results_that_may_be_pageable_give_way_to_tensors_and_slots() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        at_once(
            (0..3)
                .map(|seed: u8| -> Box<dyn FnOnce() + Send> {
                    let device = device.clone();
                    Box::new(move || match pick(3) {
                        0 => {
                            let result = HostMemory::PinnedIfRoom(&device);
                            let result = result.full(DType::U8, &[4 * SLOT], seed).unwrap();
                            if pick(2) == 0 {
                                device.trim();
                            }
                            assert!(result.as_bytes().unwrap().iter().all(|&byte| byte == seed));
                        }
                        1 => {
                            // Half of the budget is the slots', and of the rest results have a half.
                            drop(HostMemory::Pinned(&device).zeros(DType::U8, &[SLOT]).unwrap());
                        }
                        _ => there_and_back(&device, &tensor(seed.into())).unwrap(),
                    })
                })
                .collect(),
        );
        assert!(sim.peak_pinned_bytes() <= BUDGET as u64);
        assert_eq!(device.stats().unwrap().pinned.results, 0);
        drop(device);
        assert_nothing_left(&sim);
    });
}

#[test]
fn who_drains_a_device_finds_nothing_left_of_what_was_dropped_before() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        at_once(
            (0..2)
                .map(|seed| -> Box<dyn FnOnce() + Send> {
                    let device = device.clone();
                    Box::new(move || {
                        let transfer = tensor(seed).transfer(&device).unwrap();
                        if pick(2) == 0 {
                            let _done = transfer.is_done();
                        }
                        drop(transfer);
                        device.drain(Duration::from_secs(3600));
                    })
                })
                .collect(),
        );
        assert_eq!(sim.alive().device_allocations, 0);
        drop(device);
        assert_nothing_left(&sim);
    });
}
