//! Programs on a device that works.

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use pinlane::{
    Device, Error, Placement, TransferOptions, Tree,
    driver::{
        Stream, Timing,
        sim::FaultPlan,
        sync::{Arc, thread},
    },
    prefetch,
};

use crate::{
    explore,
    rig::{
        BUDGET, SLOT, assert_nothing_left, assert_same, at_once, open, open_all, pick, tensor, there_and_back,
    },
};

#[test]
fn transfers_of_several_threads_land_whole() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        at_once(
            (0..2 + pick(2))
                .map(|seed| -> Box<dyn FnOnce() + Send> {
                    let device = device.clone();
                    Box::new(move || there_and_back(&device, &tensor(seed)).unwrap())
                })
                .collect(),
        );
        drop(device);
        assert_nothing_left(&sim);
    });
}

#[test]
fn each_tensor_of_a_result_is_let_go_by_its_last_holder_and_written_by_its_only_one() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        let sent = vec![tensor(1), tensor(2)];
        let apart = TransferOptions::new().placement(Placement::Separate);
        let mut there = sent.to_with(&device, &apart).unwrap();
        let mut back = there.to(&Device::host()).unwrap();
        let (second, first) = (there.pop().unwrap(), there.pop().unwrap());
        let (again, read) = (second.clone(), back[0].clone());
        at_once(vec![
            Box::new(move || drop(first)),
            Box::new(move || drop(second)),
            Box::new(move || drop(again)),
            Box::new(move || {
                assert_same(&sent[0], &read);
                drop(read);
            }),
            Box::new(move || {
                // Nobody shares the neighbour.
                back[1].as_mut_slice::<u8>().unwrap().fill(1);
                while let Err(error) = back[0].as_mut_slice::<u8>().map(|bytes| bytes.fill(2)) {
                    assert!(matches!(error, Error::Shared));
                    thread::yield_now();
                }
            }),
        ]);
        drop(device);
        assert_nothing_left(&sim);
    });
}

#[test]
fn a_transfer_dropped_at_any_moment_is_let_go() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        at_once(
            (0..2)
                .map(|seed| -> Box<dyn FnOnce() + Send> {
                    let device = device.clone();
                    Box::new(move || {
                        let tensor = tensor(seed);
                        let mut transfer = tensor.transfer(&device).unwrap();
                        match pick(5) {
                            0 => drop(transfer),
                            1 => {
                                let _done = transfer.is_done();
                                drop(transfer);
                            }
                            2 => {
                                let mut context = Context::from_waker(Waker::noop());
                                // A poll that is the last has given the result.
                                let _state = Pin::new(&mut transfer).poll(&mut context);
                                drop(transfer);
                            }
                            3 => {
                                let stream = Stream::new(device.driver().unwrap()).unwrap();
                                transfer.fence(&stream).unwrap();
                                drop((transfer, stream));
                            }
                            _ => {
                                let there = transfer.wait().unwrap();
                                drop(there.transfer(&Device::host()).unwrap());
                            }
                        }
                    })
                })
                .collect(),
        );
        there_and_back(&device, &tensor(9)).unwrap();
        drop(device);
        assert_nothing_left(&sim);
    });
}

#[test]
fn awaited_transfers_are_woken() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        at_once(
            (0..2)
                .map(|seed| -> Box<dyn FnOnce() + Send> {
                    let device = device.clone();
                    Box::new(move || {
                        let sent = tensor(seed);
                        let back = shuttle::future::block_on(async {
                            let there = sent.transfer(&device)?.await?;
                            there.transfer(&Device::host())?.await
                        });
                        assert_same(&sent, &back.unwrap());
                    })
                })
                .collect(),
        );
        drop(device);
        assert_nothing_left(&sim);
    });
}

#[test]
fn a_fenced_stream_comes_after_the_copies() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        let stream = Stream::new(device.driver().unwrap()).unwrap();
        let sent = tensor(1);
        let transfer = sent.transfer(&device).unwrap();
        let other = {
            let device = device.clone();
            move || there_and_back(&device, &tensor(2)).unwrap()
        };
        let fenced = {
            let device = device.clone();
            move || {
                transfer.fence(&stream).unwrap();
                stream.record(Timing::Disabled).unwrap().synchronize().unwrap();
                assert!(transfer.is_done());
                let there = transfer.wait().unwrap();
                let behind = TransferOptions::new().after(Arc::new(stream.record(Timing::Disabled).unwrap()));
                drop(device);
                assert_same(&sent, &there.to_with(&Device::host(), &behind).unwrap());
            }
        };
        drop(device);
        at_once(vec![Box::new(other), Box::new(fenced)]);
        assert_nothing_left(&sim);
    });
}

#[test]
fn a_device_is_closed_by_whoever_lets_go_last() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        let there = tensor(1).to(&device).unwrap();
        let download = there.transfer(&Device::host()).unwrap();
        let upload = tensor(2).transfer(&device).unwrap();
        at_once(vec![
            Box::new(move || drop(device)),
            Box::new(move || drop(there)),
            Box::new(move || drop(download)),
            match pick(2) {
                0 => Box::new(move || drop(upload)),
                _ => Box::new(move || drop(upload.wait().unwrap())),
            },
        ]);
        assert_nothing_left(&sim);
    });
}

#[test]
fn a_prefetch_that_is_left_early_leaves_nothing_behind() {
    explore(|| {
        let (device, sim) = open(FaultPlan::new(), BUDGET);
        let sent: Vec<_> = (0..4).map(tensor).collect();
        let mut batches = prefetch(sent.clone(), &device, 1 + pick(3));
        for sent in &sent[..pick(4)] {
            let there = batches.next().unwrap().unwrap();
            assert_same(sent, &there.to(&Device::host()).unwrap());
        }
        drop((device, batches));
        assert_nothing_left(&sim);
    });
}

#[test]
fn devices_that_copy_from_each_other_close_in_any_order() {
    explore(|| {
        let [(first, sim), (second, other)] = open_all(FaultPlan::new(), BUDGET);
        let sent = tensor(1);
        let (on_first, on_second) = (sent.to(&first).unwrap(), sent.to(&second).unwrap());
        let across = on_first.transfer(&second).unwrap();
        let back = on_second.transfer(&first).unwrap();
        at_once(vec![
            Box::new(move || drop((first, on_second))),
            Box::new(move || drop((second, on_first))),
            Box::new(move || drop(across)),
            Box::new(move || {
                let there = back.wait().unwrap();
                assert_same(&sent, &there.to(&Device::host()).unwrap());
            }),
        ]);
        assert_nothing_left(&sim);
        assert_nothing_left(&other);
    });
}

#[test]
fn threads_that_pin_and_trim_share_the_budget() {
    explore(|| {
        // Slots take half; the rest is one tensor for each of the three threads, but only if they share a region.
        let budget = 8 * SLOT;
        let (device, sim) = open(FaultPlan::new(), budget);
        at_once(
            (0..3)
                .map(|seed| -> Box<dyn FnOnce() + Send> {
                    let device = device.clone();
                    Box::new(move || {
                        let sent = tensor(seed).slice(0, 0..10, 1).unwrap();
                        let pinned = sent.pin_memory(&device).unwrap();
                        if pick(2) == 0 {
                            device.trim();
                        }
                        there_and_back(&device, &pinned).unwrap();
                        drop(pinned);
                        device.trim();
                    })
                })
                .collect(),
        );
        assert!(sim.peak_pinned_bytes() <= budget as u64);
        let too_much = pinlane::HostMemory::Pinned(&device).zeros(pinlane::DType::U8, &[budget]);
        assert!(matches!(too_much, Err(Error::PinnedBudget { .. })));
        drop(device);
        assert_nothing_left(&sim);
    });
}
