//! Slots that results stay in: lanes never wait for one, and none is lent that a copy may still use.

#![cfg(not(shuttle))]

mod rig;

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use pinlane::{
    DType, Device, DeviceOptions, Tensor, TransferOptions, Tree,
    driver::{
        Stream, Timing,
        sim::{Fault, FaultPlan, Step},
    },
};

use rig::{Rig, pattern, small_engine};

fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

fn rig() -> Rig {
    let options = DeviceOptions {
        pinned_budget: Some(8 << 20),
        ..small_engine(2, 2, 64 << 10)
    };
    Rig::new(1, &options)
}

/// Many enough, and large enough together, for their result to stay in a slot.
fn small_tree(rig: &Rig) -> Vec<Tensor> {
    let tree: Vec<_> = (0..100).map(|seed| tensor(400, seed)).collect();
    tree.to(rig.device()).unwrap()
}

#[test]
fn a_result_that_is_kept_does_not_hold_up_who_waits_behind_held_back_slots() {
    let rig = rig();
    let there = small_tree(&rig);
    let driver = rig.device().driver().unwrap();
    let stream = Stream::new(driver).unwrap();
    let stall = rig.sims[0].stall_stream(stream.raw()).unwrap();
    driver.busy(Duration::ZERO, stream.raw()).unwrap();
    let after = Arc::new(stream.record(Timing::Disabled).unwrap());
    let after = TransferOptions::new().after(after);
    let pair = |seed| vec![tensor(100, seed), tensor(100, seed + 1)];
    let held: Vec<_> = (0..3)
        .map(|seed| pair(seed).transfer_with(rig.device(), &after).unwrap())
        .collect();
    let back = there.to(&Device::host()).unwrap();
    let device = rig.device().clone();
    let (done, is_done) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let moved = pair(9).to(&device);
        done.send(moved.is_ok()).unwrap();
    });
    thread::sleep(Duration::from_millis(100));
    drop(stall);
    for transfer in held {
        transfer.wait().unwrap();
    }
    let moved = is_done.recv_timeout(Duration::from_secs(30));
    assert_eq!(moved, Ok(true), "waits for as long as the result is kept");
    waiting.join().unwrap();
    assert_eq!(back[7].as_bytes().unwrap(), pattern(400, 7));
    drop((back, there, after, stream));
    rig.finish();
}

#[test]
fn a_slot_is_not_lent_where_the_driver_refuses_to_say_whether_it_is_in_use() {
    let rig = rig();
    let there = small_tree(&rig);
    let stall = rig.sim().stall();
    let flying: Vec<_> = (0..8)
        .map(|seed| {
            vec![tensor(30_000, seed), tensor(30_000, seed)]
                .transfer(rig.device())
                .unwrap()
        })
        .collect();
    rig.sim()
        .set_faults(FaultPlan::new().repeated(Step::Query, 0, 50, Fault::Refused));
    let down = there.transfer(&Device::host()).unwrap();
    let plan = down.plans().next().unwrap().to_string();
    rig.sim().set_faults(FaultPlan::new());
    drop(stall);
    down.wait().unwrap();
    for transfer in flying {
        transfer.wait().unwrap();
    }
    assert!(!plan.contains("stays"), "{plan}");
    drop(there);
    rig.finish();
}
