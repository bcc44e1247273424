//! What a transfer promises, whatever the moment at which it is waited for, awaited, fenced or dropped.

mod dropping;
mod into;
mod results;
#[path = "../rig/mod.rs"]
mod rig;
mod too_early;
mod waiting;

use std::{
    any::Any,
    ptr::NonNull,
    sync::{Arc, Weak},
};

use pinlane::{DType, Device, Layout, Tensor, Tree};
use rig::pattern;

pub(crate) const SLOT: usize = 4096;

pub(crate) fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

pub(crate) fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let host = tensor.to(&Device::host()).unwrap();
    host.as_bytes().unwrap().to_vec()
}

/// A tensor over foreign memory, and a way to see whether that memory is still kept.
pub(crate) fn foreign(bytes: usize) -> (Tensor, Weak<Vec<u8>>) {
    let owner = Arc::new(pattern(bytes, 5));
    let kept = Arc::downgrade(&owner);
    let ptr = NonNull::new(owner.as_ptr().cast_mut()).unwrap();
    let layout = Layout::contiguous(&[bytes]).unwrap();
    let owner: Arc<dyn Any + Send + Sync> = owner;
    // SAFETY: the vector is as long, lives in the owner, and nobody writes it.
    let tensor = unsafe { Tensor::from_raw_parts(ptr, bytes, DType::U8, layout, None, owner) };
    (tensor.unwrap(), kept)
}
