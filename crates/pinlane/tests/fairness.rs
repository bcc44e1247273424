//! Several transfers at once: each gets its turn, and each lands whole.
//!
//! That a small transfer is not starved is shown by counting, not by time: from some copy on, the device refuses all
//! further ones. The small transfer lands only if its copies were among those before. Each copy takes a moment, so that a thread
//! which loses its processor for a second still has its turn in time.

mod rig;

use std::{thread, time::Duration};

use pinlane::{
    DType, Device, DeviceOptions, Profile, Route, Tensor, TransferOptions, Tree,
    driver::{
        ErrorKind,
        sim::{DeviceConfig, Fault, FaultPlan, MachineConfig, Step},
    },
};
use rig::{Rig, eventually, pattern, small_engine};

const SLOT: usize = 4096;
/// Chunks of the huge transfer. The device does all copies before the `GIVEN`th.
const HUGE: usize = 1000;
const GIVEN: u64 = 50;

fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let host = tensor.to(&Device::host()).unwrap();
    host.as_bytes().unwrap().to_vec()
}

/// An engine of `lanes` lanes with one slot each that leaves nothing to its callers' threads.
fn lanes_only(lanes: usize) -> DeviceOptions {
    let probe = Rig::new(1, &DeviceOptions::default());
    let mut profile = Profile::assumed(probe.device().driver().unwrap().properties());
    profile.inline_bytes = 0;
    DeviceOptions {
        profile: Some(profile),
        ..small_engine(lanes, 1, SLOT)
    }
}

/// A machine on which each copy takes a moment: those that are given come to a second.
fn slow() -> MachineConfig {
    MachineConfig::from(DeviceConfig {
        copy_latency: Duration::from_millis(20),
        ..DeviceConfig::default()
    })
}

fn refuse_after(rig: &Rig, copies: u64) {
    rig.sim()
        .set_faults(FaultPlan::new().repeated(Step::Copy, copies, u64::MAX, Fault::Refused));
}

#[test]
fn a_small_transfer_takes_its_turn_between_the_chunks_of_a_huge_one() {
    for lanes in [1, 2, 3] {
        let rig = Rig::on(slow(), &lanes_only(lanes));
        refuse_after(&rig, GIVEN);
        let stall = rig.sim().stall();
        let huge = tensor(HUGE * SLOT, 1).transfer(rig.device()).unwrap();
        let small = tensor(SLOT, 2).transfer(rig.device()).unwrap();
        drop(stall);
        let there = small.wait().expect("the small one's copy is among the first");
        let refused = huge.wait().unwrap_err();
        assert_eq!(refused.driver_kind(), Some(ErrorKind::Refused), "{refused}");
        rig.sim().set_faults(FaultPlan::new());
        assert!(bytes_of(&there) == pattern(SLOT, 2));
        drop(there);
        rig.finish();
    }
}

#[test]
fn a_small_transfer_from_the_device_takes_its_turn_too() {
    let rig = Rig::on(slow(), &lanes_only(2));
    let there = tensor(SLOT, 2).to(rig.device()).unwrap();
    refuse_after(&rig, GIVEN);
    let stall = rig.sim().stall();
    let huge = tensor(HUGE * SLOT, 1).transfer(rig.device()).unwrap();
    let small = there.transfer(&Device::host()).unwrap();
    drop(stall);
    let back = small.wait().expect("the small one's copy is among the first");
    assert!(back.as_bytes().unwrap() == pattern(SLOT, 2));
    huge.wait().unwrap_err();
    drop(there);
    rig.finish();
}

#[test]
fn a_caller_who_does_a_small_transfer_itself_gets_a_slot_while_a_huge_one_uses_them_all() {
    let rig = Rig::on(slow(), &small_engine(1, 1, SLOT));
    refuse_after(&rig, GIVEN);
    let stall = rig.sim().stall();
    let huge = tensor(HUGE * SLOT, 1).transfer(rig.device()).unwrap();
    let streams = rig.sim().calls(Step::CreateStream);
    let small = thread::spawn({
        let device = rig.device().clone();
        move || {
            let staged = TransferOptions::new().route(Route::Staged);
            tensor(SLOT, 2).to_with(&device, &staged)
        }
    });
    // Once it has a stream of its own, a slot is the next thing it wants.
    eventually("the caller has its stream", || {
        rig.sim().calls(Step::CreateStream) > streams
    });
    drop(stall);
    let there = small
        .join()
        .unwrap()
        .expect("the caller gets a slot after a few chunks of the huge transfer");
    huge.wait().unwrap_err();
    rig.sim().set_faults(FaultPlan::new());
    assert!(bytes_of(&there) == pattern(SLOT, 2));
    drop(there);
    rig.finish();
}

#[test]
fn transfers_of_several_threads_share_lanes_and_slots_and_all_land_whole() {
    let rig = Rig::new(2, &small_engine(2, 2, SLOT));
    thread::scope(|scope| {
        for worker in 0..6 {
            let devices = &rig.devices;
            scope.spawn(move || {
                let (near, far) = (&devices[worker % 2], &devices[(worker + 1) % 2]);
                for round in 0..15 {
                    let seed = worker * 100 + round;
                    let tree: Vec<_> = (0..5)
                        .map(|part| tensor(seed * 97 * part % (9 * SLOT), seed + part))
                        .collect();
                    let there = tree.transfer(near).unwrap();
                    let dropped = tree.transfer(far).unwrap();
                    let over = there.wait().unwrap().to(far).unwrap();
                    drop(dropped);
                    let back = over.transfer(&Device::host()).unwrap().wait().unwrap();
                    for (sent, landed) in tree.iter().zip(&back) {
                        assert!(sent.as_bytes().unwrap() == landed.as_bytes().unwrap());
                    }
                }
            });
        }
    });
    rig.finish();
}
