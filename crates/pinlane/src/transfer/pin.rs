//! Copying tensors into pinned memory, by threads of the host.

use super::{
    Placement,
    on_host::{HostCopy, Origin, copy_all},
};
use crate::{
    Device, HostMemory, Result, Tensor,
    error::Failure,
    file::{reading::order_by_file, to_host::read_to_host},
    landing::landing,
    memory::storage::Place,
};

const DOING: &str = "pinning a tensor";

/// The tensors in host memory that `device` reaches by itself; those that are there are themselves.
pub(crate) fn pin(tensors: &[&Tensor], device: &Device) -> Result<Vec<Tensor>, Failure> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let accelerator = device.require_accelerator("pinning host memory");
    let engine = accelerator
        .map_err(|error| Failure::of(0, error))?
        .running
        .engine();
    let backend = engine.driver.properties().id.backend;
    let memory = HostMemory::Pinned(device);
    let mut pinned = Vec::with_capacity(tensors.len());
    let mut copies = Vec::with_capacity(tensors.len());
    let mut in_files = Vec::new();
    for (index, &tensor) in tensors.iter().enumerate() {
        pinned.push(match tensor.storage().place() {
            Place::Host(host) if host.pinned() == Some(backend) => Some(tensor.clone()),
            Place::File(_) => {
                in_files.push((index, tensor));
                None
            }
            Place::Host(_) | Place::Device(_) => {
                let made = to_be_filled(tensor, memory).map_err(|error| Failure::of(index, error))?;
                copies.push(made.0);
                Some(made.1)
            }
        });
    }
    // SAFETY: each place is the memory of a new tensor, which nobody else has.
    unsafe { copy_all(&copies)? };
    order_by_file(&mut in_files);
    let read = read_to_host(&in_files, memory, Placement::Separate)?;
    for (&(index, _), tensor) in in_files.iter().zip(read) {
        pinned[index] = Some(tensor);
    }
    debug_assert!(pinned.iter().all(Option::is_some));
    Ok(pinned.into_iter().flatten().collect())
}

/// A tensor in pinned memory, and the copy that makes it that of `tensor`.
fn to_be_filled<'a>(tensor: &'a Tensor, memory: HostMemory<'_>) -> Result<(HostCopy<'a>, Tensor)> {
    let (layout, packing) = landing(tensor)?;
    let from = Origin::new(tensor, packing, DOING)?;
    let mut storage = memory.build_storage(from.bytes(), |_| Ok(()))?;
    let to = storage.bytes_mut().expect("new memory is its holder's to write");
    let copy = HostCopy::new(from, to);
    Ok((copy, Tensor::new(tensor.dtype(), layout, storage)))
}
