//! Few elements, many, or in strange places: shapes, strides and sizes.

use std::{any::Any, ptr::NonNull, sync::Arc};

use pinlane::{
    DType, Device, Error, HostMemory, Layout, LayoutError, Placement, Tensor, TransferOptions, Tree,
    driver::ErrorKind,
};

use crate::{of_leaf, rig, rig::pattern, tensor, there_and_back};

#[test]
fn tensors_without_elements_move_and_keep_their_shape() {
    let rig = rig();
    for shape in [&[0][..], &[3, 0, 5], &[0, 1 << 40]] {
        for dtype in DType::ALL {
            let empty = Tensor::zeros(dtype, shape).unwrap();
            let back = there_and_back(&empty, &rig);
            assert_eq!((back.dtype(), back.shape()), (dtype, shape));
            assert_eq!(back.as_bytes().unwrap(), [0_u8; 0]);
        }
    }
    let mixed = vec![tensor(0, 0), tensor(5, 1), tensor(0, 2), tensor(0, 3)];
    for placement in [Placement::Slab, Placement::Separate] {
        let options = TransferOptions::new().placement(placement);
        let there = mixed.to_with(rig.device(), &options).unwrap();
        let back = there.to_with(&Device::host(), &options.pinned_result()).unwrap();
        assert!(back[1].as_bytes().unwrap() == pattern(5, 1));
        assert!(back[3].as_bytes().unwrap().is_empty());
    }
    let pinned = HostMemory::Pinned(rig.device()).zeros(DType::F32, &[0]).unwrap();
    assert!(
        there_and_back(&pinned, &rig)
            .as_slice::<f32>()
            .unwrap()
            .is_empty()
    );
    drop(pinned);
    rig.finish();
}

#[test]
fn a_tensor_without_dimensions_is_one_element() {
    let rig = rig();
    let scalar = Tensor::from_slice(&[1.5_f64], &[]).unwrap();
    let back = there_and_back(&scalar, &rig);
    assert_eq!(back.shape(), [0_usize; 0]);
    assert_eq!(back.as_slice::<f64>().unwrap(), [1.5]);
    rig.finish();
}

#[test]
fn elements_that_share_a_place_land_each_in_its_own() {
    let rig = rig();
    let row = Tensor::from_slice(&[1_i16, 2, 3], &[3]).unwrap();
    let matrix = row.expand(&[2, 3]).unwrap();
    let back = there_and_back(&matrix, &rig);
    assert_eq!(back.as_slice::<i16>().unwrap(), [1, 2, 3, 1, 2, 3]);

    let owner = Arc::new([1_u8, 2, 3, 4]);
    let windows = Layout::with_strides(&[3, 2], &[1, 1], 0, 4).unwrap();
    let ptr = NonNull::from(&*owner).cast();
    // SAFETY: four bytes that live in the owner and that nobody writes.
    let windows = unsafe { Tensor::from_raw_parts(ptr, 4, DType::U8, windows, None, owner) }.unwrap();
    let back = there_and_back(&windows, &rig);
    assert_eq!(back.as_slice::<u8>().unwrap(), [1, 2, 2, 3, 3, 4]);

    // A view taken on the device is moved with what it spans, and keeps its strides.
    let there = row.to(rig.device()).unwrap().expand(&[4, 3]).unwrap();
    let back = there.to(&Device::host()).unwrap();
    assert_eq!(back.to_vec::<i16>().unwrap(), [1, 2, 3].repeat(4));
    drop(there);
    rig.finish();
}

#[test]
fn a_layout_that_reaches_past_foreign_memory_is_refused() {
    let owner: Arc<dyn Any + Send + Sync> = Arc::new([0_u8; 16]);
    let take = |dtype, layout| {
        let ptr = NonNull::from(&*owner).cast();
        // SAFETY: sixteen bytes that live in the owner and that nobody writes.
        unsafe { Tensor::from_raw_parts(ptr, 16, dtype, layout, None, Arc::clone(&owner)) }
    };
    let far = 1_usize << 40;
    for (dtype, shape, strides, offset) in [
        (DType::U8, &[17][..], &[1][..], 0),
        (DType::U8, &[16], &[1], 1),
        (DType::U8, &[2], &[16], 0),
        (DType::F32, &[5], &[1], 0),
        (DType::F32, &[2, 2], &[3, 1], 0),
        (DType::F4, &[33], &[1], 0),
        (DType::C128, &[1], &[1], 1),
        (DType::U8, &[2], &[far], 0),
        (DType::U8, &[1], &[1], far),
    ] {
        let layout = Layout::with_strides(shape, strides, offset, usize::MAX).unwrap();
        let refused = take(dtype, layout).unwrap_err();
        assert!(
            matches!(refused, Error::Layout(LayoutError::OutsideStorage { .. })),
            "{refused}"
        );
    }
    assert!(take(DType::F4, Layout::contiguous(&[32]).unwrap()).is_ok());
    assert!(take(DType::C128, Layout::contiguous(&[1]).unwrap()).is_ok());
}

#[test]
fn sizes_that_overflow_are_refused() {
    for shape in [
        &[usize::MAX, 2][..],
        &[0, 1 << 63, 4],
        &[usize::MAX],
        &[1 << 32, 1 << 32],
        &[1 << 22; 3],
    ] {
        let refused = Tensor::zeros(DType::U8, shape).unwrap_err();
        assert!(
            matches!(refused, Error::Layout(LayoutError::Overflow { .. })),
            "{refused}"
        );
        assert!(matches!(
            Tensor::from_bytes(Vec::new(), DType::U8, shape),
            Err(Error::Layout(LayoutError::Overflow { .. }))
        ));
    }
    // The elements can be counted, their bytes can't.
    let refused = Tensor::zeros(DType::C128, &[1 << 60]).unwrap_err();
    assert!(matches!(refused, Error::DType(_)), "{refused}");
    // The bytes can be counted, and no host has them.
    let refused = Tensor::zeros(DType::U8, &[isize::MAX as usize]).unwrap_err();
    assert!(matches!(refused, Error::HostMemory { .. }), "{refused}");
}

#[test]
fn a_tensor_larger_than_the_device_is_refused_before_it_is_planned() {
    let rig = rig();
    let byte = tensor(1, 1);
    // Cut into chunks, either would fill the host's memory with the plan alone.
    for tree in [
        vec![byte.expand(&[1 << 50]).unwrap()],
        vec![byte.expand(&[isize::MAX as usize]).unwrap(); 5],
    ] {
        for placement in [Placement::Slab, Placement::Separate] {
            let options = TransferOptions::new().placement(placement);
            let refused = tree.to_with(rig.device(), &options).unwrap_err();
            assert_eq!(refused.driver_kind(), Some(ErrorKind::OutOfMemory), "{refused}");
        }
    }
    let refused = byte.expand(&[1 << 50]).unwrap().contiguous().unwrap_err();
    assert!(matches!(refused, Error::HostMemory { .. }), "{refused}");
    let refused = byte.expand(&[1 << 50]).unwrap().pin_memory(rig.device());
    assert!(matches!(
        of_leaf(refused.unwrap_err(), "U8 [1125899906842624]"),
        Error::PinnedBudget { .. }
    ));
    let wide = Tensor::zeros(DType::C128, &[1]).unwrap();
    let wide = wide.expand(&[1 << 62]).unwrap();
    let refused = wide.to(rig.device()).unwrap_err();
    let source = of_leaf(refused, "C128 [4611686018427387904]");
    assert!(matches!(source, Error::Layout(LayoutError::DType(_))), "{source}");
    rig.finish();
}

#[test]
fn elements_narrower_than_a_byte_move_whole_or_not_at_all() {
    let rig = rig();
    let tensor = Tensor::from_bytes(pattern(6, 1), DType::F4, &[3, 4]).unwrap();
    let middle = there_and_back(&tensor.slice(0, 1..2, 1).unwrap(), &rig);
    assert!(middle.as_bytes().unwrap() == &pattern(6, 1)[2..4]);
    for view in [
        tensor.transpose(0, 1).unwrap(),
        tensor.slice(1, 0..2, 1).unwrap(),
        tensor.reshape(&[12]).unwrap().slice(0, 1..3, 1).unwrap(),
        tensor.reshape(&[12]).unwrap().slice(0, 0..3, 1).unwrap(),
    ] {
        let path = format!("F4 {:?}", view.shape());
        let source = of_leaf(view.to(rig.device()).unwrap_err(), &path);
        assert!(matches!(source, Error::Layout(_) | Error::DType(_)), "{source}");
    }
    rig.finish();
}

#[test]
fn elements_that_do_not_fit_the_shape_are_refused() {
    assert!(Tensor::from_vec(vec![1_u8, 2, 3], &[2]).is_err());
    assert!(Tensor::from_slice(&[1.0_f32; 4], &[2, 3]).is_err());
    assert!(Tensor::from_bytes(vec![0; 7], DType::F32, &[2]).is_err());
    assert!(Tensor::from_bytes(vec![0; 1], DType::F4, &[1]).is_err());
    let tensor = tensor(6, 1);
    assert!(tensor.reshape(&[4]).is_err());
    assert!(tensor.permute(&[1]).is_err());
    assert!(tensor.transpose(0, 1).is_err());
    assert!(tensor.slice(0, 0..7, 1).is_err());
    assert!(tensor.slice(0, 0..6, 0).is_err());
    assert!(tensor.expand(&[5]).is_err());
}
