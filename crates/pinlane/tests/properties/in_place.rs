//! Tensors that exist already, and copies into them.

use pinlane::{Device, Error, HostMemory, Tensor, Tree};

use crate::{hops::assert_over_budget, leaves::Made, rig::pattern};

/// Whether it can go to a contiguous tensor: a file is read as it is.
pub(crate) fn lands_contiguous(tensor: &Tensor) -> bool {
    let in_file = matches!(tensor.as_bytes(), Err(Error::NotOnHost { .. }));
    !in_file || tensor.layout().is_contiguous()
}

/// Tensors on the host of the same dtypes and shapes, full of other bytes.
pub(crate) fn full(made: &[Made]) -> Vec<Tensor> {
    let full = made.iter().enumerate().map(|(number, made)| {
        let bytes = pattern(made.expected.len(), number + 1000);
        Tensor::from_bytes(bytes, made.tensor.dtype(), made.tensor.shape()).unwrap()
    });
    full.collect()
}

/// The same in pinned memory, as far as the budget goes.
pub(crate) fn pinned(tensors: Vec<Tensor>, device: &Device) -> Vec<Tensor> {
    let pinned = tensors.into_iter().map(|tensor| {
        let pinned = HostMemory::Pinned(device).zeros(tensor.dtype(), tensor.shape());
        pinned.unwrap_or_else(|error| {
            assert_over_budget(&error);
            tensor
        })
    });
    pinned.collect()
}

/// As a tree, or each tensor alone, which goes the short way where it can.
pub(crate) fn copy(from: &Vec<Tensor>, into: &mut Vec<Tensor>, alone: bool) {
    if alone {
        for (from, into) in from.iter().zip(into) {
            from.copy_into(into).unwrap();
        }
    } else {
        from.copy_into(into).unwrap();
    }
}
