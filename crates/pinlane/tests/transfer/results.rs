//! What a transfer gives, and what it leaves behind where it fails.

use pinlane::{
    DType, Device, DeviceOptions, HostMemory, Placement, Route, TensorMap, TransferOptions, Tree,
    driver::{
        ErrorKind,
        sim::{Fault, FaultPlan, Step},
    },
};

use crate::{
    SLOT, bytes_of,
    rig::{Rig, pattern, small_engine},
    tensor,
};

pub(crate) fn results_of_one_slab_are_written_separately() {
    let rig = Rig::open(1, &DeviceOptions::default());
    let sources = vec![tensor(100, 1), tensor(100, 2), tensor(100, 3)];
    let there = sources.to(rig.device()).unwrap();
    for options in [TransferOptions::new(), TransferOptions::new().pinned_result()] {
        let mut back = there.to_with(&Device::host(), &options).unwrap();
        back[1].as_mut_slice::<u8>().unwrap().fill(7);
        assert!(back[0].as_bytes().unwrap() == pattern(100, 1));
        assert!(back[1].as_bytes().unwrap() == [7; 100]);
        assert!(back[2].as_bytes().unwrap() == pattern(100, 3));
    }
    drop(there);
    rig.finish();
}

pub(crate) fn a_source_can_be_written_again_once_its_transfer_has_landed() {
    let rig = Rig::open(1, &DeviceOptions::default());
    let mut sources = vec![
        tensor(100, 1),
        tensor(200_000, 1).pin_memory(rig.device()).unwrap(),
    ];
    for step in 0..10 {
        for source in &mut sources {
            source.as_mut_slice::<u8>().unwrap().fill(step);
        }
        let there = sources.transfer(rig.device()).unwrap().wait().unwrap();
        assert!(bytes_of(&there[1]) == vec![step; 200_000]);
    }
    drop(sources);
    rig.finish();
}

pub(crate) fn what_is_there_already_is_shared_and_not_copied() {
    let rig = Rig::open(2, &DeviceOptions::default());
    let host = tensor(1000, 1);
    let there = host.to(rig.device()).unwrap();
    let same = there.to(rig.device()).unwrap();
    assert_eq!(same.device_ptr(), there.device_ptr());
    let still = host.to(&Device::host()).unwrap();
    assert_eq!(
        still.as_bytes().unwrap().as_ptr(),
        host.as_bytes().unwrap().as_ptr()
    );
    rig.assert_allocations(1);
    assert!(there.transfer(rig.device()).unwrap().is_done());
    drop((there, same));
    rig.finish();
}

pub(crate) fn a_tree_from_the_host_and_two_devices_moves_as_one_transfer() {
    let rig = Rig::open(2, &small_engine(2, 2, SLOT));
    let mut tree = TensorMap::new();
    let homes = [Device::host(), rig.devices[0].clone(), rig.devices[1].clone()];
    for seed in 0..9 {
        let there = tensor(1000 * seed + 1, seed).to(&homes[seed % 3]).unwrap();
        tree.insert(format!("t{seed}"), there).unwrap();
    }
    for to in &homes {
        let landed = tree.transfer(to).unwrap().wait().unwrap();
        for seed in 0..9 {
            let (was, is) = (
                tree.get(&format!("t{seed}")).unwrap(),
                landed.get(&format!("t{seed}")).unwrap(),
            );
            assert_eq!(is.device(), *to);
            assert!(bytes_of(is) == pattern(1000 * seed + 1, seed));
            assert!(was.device() != *to || was.device_ptr() == is.device_ptr());
        }
    }
    drop((tree, homes));
    rig.finish();
}

pub(crate) fn a_copy_that_fails_is_told_although_later_chunks_succeed() {
    let rig = Rig::new(1, &small_engine(1, 1, SLOT));
    let staged = TransferOptions::new().route(Route::Staged);
    let source = tensor(8 * SLOT, 1);
    for failing in 0..8 {
        rig.sim()
            .set_faults(FaultPlan::new().at(Step::Copy, failing, Fault::CopyFailed));
        let error = source.to_with(rig.device(), &staged).unwrap_err();
        assert_eq!(error.driver_kind(), Some(ErrorKind::CopyFailed), "{error}");
        let again = source.to_with(rig.device(), &staged).unwrap();
        assert!(bytes_of(&again) == pattern(8 * SLOT, 1));
    }
    drop(source);
    rig.finish();
}

pub(crate) fn a_tree_that_is_refused_in_part_leaves_nothing_behind() {
    let rig = Rig::new(2, &DeviceOptions::default());
    let there = tensor(1000, 1).to(&rig.devices[1]).unwrap();
    let tree = (tensor(1000, 2), there);
    // The part from the host gets its memory, the part from the other device does not.
    rig.sim()
        .set_faults(FaultPlan::new().at(Step::Allocate, 1, Fault::OutOfMemory));
    let error = tree.to(rig.device()).unwrap_err();
    assert_eq!(error.driver_kind(), Some(ErrorKind::OutOfMemory), "{error}");
    assert_eq!(rig.sim().alive().device_allocations, 0);
    assert_eq!(rig.device().stats().unwrap().leaked_bytes, 0);
    drop(tree);
    rig.finish();
}

pub(crate) fn every_tensor_has_an_allocation_of_its_own_where_asked() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let tree = vec![tensor(100, 1), tensor(100, 2), tensor(100, 3)];
    let slab = tree.to(rig.device()).unwrap();
    assert_eq!(rig.sim().alive().device_allocations, 1);
    let separate = TransferOptions::new().placement(Placement::Separate);
    let apart = tree.to_with(rig.device(), &separate).unwrap();
    assert_eq!(rig.sim().alive().device_allocations, 4);
    drop(apart);
    assert_eq!(rig.sim().alive().device_allocations, 1);
    drop(slab);
    rig.finish();
}

pub(crate) fn a_pinned_result_comes_out_of_the_budget_and_goes_back_to_it() {
    let rig = Rig::open(1, &DeviceOptions::default());
    let there = tensor(10_000, 1).to(rig.device()).unwrap();
    let before = rig.device().stats().unwrap().pinned.leased;
    let pinned = TransferOptions::new().pinned_result();
    let back = there.to_with(&Device::host(), &pinned).unwrap();
    assert!(back.is_pinned());
    assert!(rig.device().stats().unwrap().pinned.leased >= before + 10_000);
    assert!(back.as_bytes().unwrap() == pattern(10_000, 1));
    drop(back);
    assert_eq!(rig.device().stats().unwrap().pinned.leased, before);
    let zeros = HostMemory::Pinned(rig.device())
        .zeros(DType::U8, &[10_000])
        .unwrap();
    assert!(
        zeros.as_bytes().unwrap().iter().all(|byte| *byte == 0),
        "a lease is used again"
    );
    drop((there, zeros));
    rig.finish();
}
