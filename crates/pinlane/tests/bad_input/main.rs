//! Input at and beyond the edge: it works, or an error says what and why.

mod access;
mod elements;
mod files;
#[path = "../rig/mod.rs"]
mod rig;
mod trees;

use pinlane::{DType, Device, DeviceOptions, Error, Tensor, Tree};
use rig::{Rig, pattern};

pub(crate) const SLOT: usize = 4096;

pub(crate) fn rig() -> Rig {
    Rig::new(1, &DeviceOptions::default())
}

pub(crate) fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

pub(crate) fn there_and_back<T: Tree>(tree: &T, rig: &Rig) -> T {
    tree.to(rig.device()).unwrap().to(&Device::host()).unwrap()
}

/// What is wrong with the tensor at `path`.
pub(crate) fn of_leaf(error: Error, path: &str) -> Error {
    match error {
        Error::Leaf { path: found, source } => {
            assert_eq!(found, path);
            *source
        }
        error => panic!("no leaf is named: {error}"),
    }
}
