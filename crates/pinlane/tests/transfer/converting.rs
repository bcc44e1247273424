//! Tensors that become another dtype where they are.

use pinlane::{
    DType, DTypeError, Device, DeviceOptions, Error, Tensor, Tree,
    driver::{
        Conversion, ErrorKind, Float,
        sim::{DeviceConfig, Fault, FaultPlan, Step},
    },
};

use crate::{
    bytes_of,
    rig::{Rig, pattern, small_engine},
};

fn rig() -> Rig {
    Rig::open(1, &DeviceOptions::default())
}

fn singles(shape: &[usize]) -> Tensor {
    let bytes = pattern(4 * shape.iter().product::<usize>(), 1);
    Tensor::from_bytes(bytes, DType::F32, shape).unwrap()
}

/// The bytes of the elements, in their logical order, as the host converts them.
fn converted(singles: &Tensor) -> Vec<u8> {
    let elements = singles.to_vec::<f32>().unwrap();
    let bytes: Vec<u8> = elements
        .iter()
        .flat_map(|element| element.to_le_bytes())
        .collect();
    let mut converted = vec![0; bytes.len() / 2];
    Conversion::new(Float::F32, Float::BF16)
        .unwrap()
        .convert(&bytes, &mut converted);
    converted
}

pub(crate) fn a_tensor_becomes_another_dtype_where_it_is_whatever_its_shape_and_strides() {
    let rig = rig();
    let square = singles(&[30, 50]);
    let views = [
        square.clone(),
        square.transpose(0, 1).unwrap(),
        square.slice(0, 3..20, 4).unwrap(),
        square.slice(1, 7..8, 1).unwrap(),
        square.slice(0, 5..5, 1).unwrap(),
        singles(&[]),
        singles(&[0, 3]),
        singles(&[1_000_003]),
    ];
    for view in views {
        let expected = converted(&view);
        // A view moves packed, and one on the device is a view of what moved.
        for there in [view.clone(), view.to(rig.device()).unwrap()] {
            let halves = there.to_dtype(DType::BF16).unwrap();
            assert_eq!((halves.dtype(), halves.shape()), (DType::BF16, view.shape()));
            assert_eq!(halves.device(), there.device());
            let back = halves.to(&Device::host()).unwrap().contiguous().unwrap();
            assert!(back.as_bytes().unwrap() == expected, "{:?}", view.layout());
        }
    }
    let there = square.to(rig.device()).unwrap();
    let part = there.slice(0, 3..20, 4).unwrap().slice(1, 1..50, 7).unwrap();
    let halves = part.to_dtype(DType::BF16).unwrap().to(&Device::host()).unwrap();
    let same = square.slice(0, 3..20, 4).unwrap().slice(1, 1..50, 7).unwrap();
    assert!(halves.contiguous().unwrap().as_bytes().unwrap() == converted(&same));
    drop((there, part));
    rig.finish();
}

pub(crate) fn a_tensor_that_has_the_dtype_is_shared_and_one_that_can_not_have_it_refused() {
    let rig = rig();
    let there = singles(&[10]).to(rig.device()).unwrap();
    assert_eq!(
        there.to_dtype(DType::F32).unwrap().device_ptr(),
        there.device_ptr()
    );
    let refused = there.to_dtype(DType::I32).unwrap_err();
    assert!(
        matches!(refused, Error::DType(DTypeError::NoTarget { dtype: DType::I32 })),
        "{refused}"
    );
    let integers = Tensor::zeros(DType::I32, &[10]).unwrap();
    let refused = integers.to_dtype(DType::F32).unwrap_err();
    let expected = DTypeError::NoConversion {
        from: DType::I32,
        to: DType::F32,
    };
    assert!(
        matches!(&refused, Error::DType(error) if *error == expected),
        "{refused}"
    );
    drop(there);
    rig.finish();
}

pub(crate) fn a_conversion_that_fails_is_told_and_leaves_nothing_behind() {
    let rig = Rig::on(DeviceConfig::default().into(), &small_engine(1, 1, 4096));
    let there = singles(&[1000]).to(rig.device()).unwrap();
    for (fault, kind) in [
        (Fault::Refused, ErrorKind::Refused),
        (Fault::CopyFailed, ErrorKind::CopyFailed),
    ] {
        rig.sim().set_faults(FaultPlan::new().at(Step::Convert, 0, fault));
        let failed = there.to_dtype(DType::F16).unwrap_err();
        assert_eq!(failed.driver_kind(), Some(kind), "{failed}");
        rig.assert_allocations(1);
        assert_eq!(bytes_of(&there.to_dtype(DType::F16).unwrap()).len(), 2000);
    }
    drop(there);
    rig.finish();
}
