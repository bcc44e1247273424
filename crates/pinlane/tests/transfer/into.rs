//! Moving into tensors that exist already.

use pinlane::{
    DType, Device, Error, HostMemory, Placement, Tensor, TransferOptions, Tree,
    driver::sim::{Fault, FaultPlan, Step},
};

use crate::rig::{Rig, pattern, small_engine};

fn rig() -> Rig {
    Rig::open(2, &small_engine(2, 2, 16 << 10))
}

fn bytes(size: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(size, seed), DType::U8, &[size]).unwrap()
}

fn zeros(size: usize) -> Tensor {
    Tensor::zeros(DType::U8, &[size]).unwrap()
}

/// Sizes that go the short way, inline and by lanes.
const SIZES: [usize; 4] = [1, 5000, 100_000, 1_500_000];

pub(crate) fn bytes_land_in_tensors_that_exist_in_every_direction() {
    let rig = rig();
    for size in SIZES {
        let source = bytes(size, 1);
        let pinned = source.pin_memory(&rig.devices[0]).ok();
        for source in [Some(source.clone()), pinned].into_iter().flatten() {
            let mut there = zeros(size).to(&rig.devices[0]).unwrap();
            source.copy_into(&mut there).unwrap();
            let mut twin = zeros(size).to(&rig.devices[0]).unwrap();
            there.copy_into(&mut twin).unwrap();
            let mut peer = zeros(size).to(&rig.devices[1]).unwrap();
            twin.copy_into(&mut peer).unwrap();
            let mut back = zeros(size);
            peer.copy_into(&mut back).unwrap();
            let mut copy = zeros(size);
            back.copy_into(&mut copy).unwrap();
            assert_eq!(copy.as_bytes().unwrap(), source.as_bytes().unwrap(), "{size}");
        }
    }
    rig.finish();
}

pub(crate) fn a_tree_lands_in_place_and_keeps_its_addresses() {
    let rig = rig();
    let tree: Vec<Tensor> = (0..50).map(|seed| bytes(100 + 37 * seed, seed)).collect();
    let empty: Vec<Tensor> = tree.iter().map(|tensor| zeros(tensor.shape()[0])).collect();
    for placement in [Placement::Slab, Placement::Separate] {
        let options = TransferOptions::new().placement(placement);
        let mut there = empty.to_with(rig.device(), &options).unwrap();
        let before: Vec<_> = there.iter().map(Tensor::device_ptr).collect();
        tree.copy_into(&mut there).unwrap();
        assert_eq!(there.iter().map(Tensor::device_ptr).collect::<Vec<_>>(), before);
        let back = there.transfer_into(empty.iter().map(|t| zeros(t.shape()[0])).collect(), &options);
        for (back, tensor) in back.unwrap().wait().unwrap().iter().zip(&tree) {
            assert_eq!(back.as_bytes().unwrap(), tensor.as_bytes().unwrap());
        }
    }
    rig.finish();
}

pub(crate) fn a_strided_source_lands_in_its_logical_order() {
    let rig = rig();
    let matrix = Tensor::arange(DType::I32, 0, 600, 1)
        .unwrap()
        .reshape(&[20, 30])
        .unwrap();
    let turned = matrix.transpose(0, 1).unwrap();
    let mut there = Tensor::zeros(DType::I32, &[30, 20])
        .unwrap()
        .to(rig.device())
        .unwrap();
    turned.copy_into(&mut there).unwrap();
    let back = there.to(&Device::host()).unwrap();
    assert_eq!(back.to_vec::<i32>().unwrap(), turned.to_vec::<i32>().unwrap());
    drop(there);
    rig.finish();
}

pub(crate) fn pinned_memory_is_filled_without_a_slot() {
    let rig = rig();
    let there = bytes(20_000, 3).to(rig.device()).unwrap();
    let mut pinned = HostMemory::Pinned(rig.device())
        .zeros(DType::U8, &[20_000])
        .unwrap();
    there.copy_into(&mut pinned).unwrap();
    assert_eq!(pinned.as_bytes().unwrap(), &pattern(20_000, 3)[..]);
    drop((there, pinned));
    rig.finish();
}

pub(crate) fn a_place_that_does_not_fit_or_that_others_could_read_is_refused_before_anything_moves() {
    let rig = rig();
    let leaf = |result: pinlane::Result<()>| match result.unwrap_err() {
        Error::Leaf { source, .. } => *source,
        error => error,
    };
    let source = bytes(1000, 1);
    let mut short = zeros(999);
    assert!(matches!(
        leaf(source.copy_into(&mut short)),
        Error::Unsupported { .. }
    ));
    let mut other = Tensor::zeros(DType::I8, &[1000]).unwrap();
    assert!(matches!(
        leaf(source.copy_into(&mut other)),
        Error::Unsupported { .. }
    ));
    let mut shared = zeros(1000).to(rig.device()).unwrap();
    let clone = shared.clone();
    assert!(matches!(leaf(source.copy_into(&mut shared)), Error::Shared));
    drop(clone);
    source.copy_into(&mut shared).unwrap();
    let mut itself = source.clone();
    assert!(matches!(leaf(source.copy_into(&mut itself)), Error::Shared));
    let mut turned = Tensor::zeros(DType::U8, &[10, 100])
        .unwrap()
        .transpose(0, 1)
        .unwrap();
    let square = source.reshape(&[100, 10]).unwrap();
    assert!(matches!(
        leaf(square.copy_into(&mut turned)),
        Error::Unsupported { .. }
    ));
    let mut fewer = vec![zeros(1000)];
    let both = vec![source.clone(), source.clone()];
    assert!(matches!(
        leaf(both.copy_into(&mut fewer)),
        Error::Unsupported { .. }
    ));
    let mut apart = vec![zeros(1000), zeros(1000).to(rig.device()).unwrap()];
    assert!(matches!(
        leaf(both.copy_into(&mut apart)),
        Error::Unsupported { .. }
    ));
    assert_eq!(apart[0].as_bytes().unwrap(), &[0; 1000][..], "nothing has moved");
    drop((shared, apart));
    rig.finish();
}

pub(crate) fn what_a_failed_copy_has_left_behind_can_not_be_read() {
    for size in SIZES {
        let rig = Rig::new(1, &small_engine(2, 2, 16 << 10));
        let there = bytes(size, 1).to(rig.device()).unwrap();
        let mut back = zeros(size);
        rig.sim()
            .set_faults(FaultPlan::new().at(Step::Copy, 0, Fault::CopyFailed));
        there.copy_into(&mut back).unwrap_err();
        assert!(matches!(back.as_bytes(), Err(Error::NotLanded { .. })), "{size}");
        drop((there, back));
        rig.finish();
    }
}

pub(crate) fn a_transfer_that_is_dropped_keeps_the_memory_it_fills() {
    let rig = rig();
    let there = zeros(1_500_000).to(rig.device()).unwrap();
    let transfer = bytes(1_500_000, 1).transfer_into(there, &TransferOptions::new());
    drop(transfer.unwrap());
    rig.finish();
}
