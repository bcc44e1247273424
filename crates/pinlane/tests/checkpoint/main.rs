//! Checkpoints: what is a safetensors file and what is not, what is found in one, and what gets in and out.

#![cfg(not(shuttle))]

mod converting;
mod corpus;
mod differential;
mod finding;
mod loading;
mod mapping;
mod refused;
mod saving;

#[path = "../rig/mod.rs"]
mod rig;

use std::{fs, path::Path};

use pinlane::{DType, Tensor, TensorMap};

/// Every dtype of the format.
fn dtypes() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|&dtype| dtype != DType::C128)
}

/// A tensor whose bytes tell where they belong.
fn tensor(dtype: DType, shape: &[usize], seed: usize) -> Tensor {
    let bytes = dtype.bytes_for(shape.iter().product()).unwrap();
    Tensor::from_bytes(rig::pattern(bytes, seed), dtype, shape).unwrap()
}

fn map(tensors: impl IntoIterator<Item = (String, Tensor)>) -> TensorMap {
    let mut map = TensorMap::new();
    for (name, tensor) in tensors {
        map.insert(name, tensor).unwrap();
    }
    map
}

/// A file as the format wants it: the header's length, the header as it is written here, and so many bytes of data.
fn file(json: &[u8], data_bytes: usize) -> Vec<u8> {
    [
        &(json.len() as u64).to_le_bytes()[..],
        json,
        &rig::pattern(data_bytes, 1),
    ]
    .concat()
}

fn write(path: &Path, json: &str, data_bytes: usize) {
    fs::write(path, file(json.as_bytes(), data_bytes)).unwrap();
}

/// Checks that two maps are the same: names, order, dtypes, shapes, bytes.
#[track_caller]
fn assert_same(found: &TensorMap, expected: &TensorMap) {
    let names = |map: &TensorMap| map.flatten().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, expected) in expected.flatten() {
        let found = found.get(&name).unwrap();
        assert_eq!(
            (found.dtype(), found.shape()),
            (expected.dtype(), expected.shape()),
            "{name}"
        );
        assert!(
            found.as_bytes().unwrap() == expected.as_bytes().unwrap(),
            "{name}"
        );
    }
}
