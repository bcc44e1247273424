//! Copying tensors into pinned memory, on the caller's thread.

use super::Placement;
use crate::{
    Device, HostMemory, Result, Tensor,
    error::Failure,
    file::to_host::read_to_host,
    landing::{landing, span_bytes},
    memory::storage::Place,
};

/// The tensor in host memory that `device` reaches by itself; itself, if it is there.
pub(crate) fn pin(tensor: &Tensor, device: &Device) -> Result<Tensor> {
    let backend = device
        .require_accelerator("pinning host memory")?
        .running
        .engine()
        .driver
        .properties()
        .id
        .backend;
    let memory = HostMemory::Pinned(device);
    let dtype = tensor.dtype();
    match tensor.storage().place() {
        Place::Host(host) if host.pinned() == Some(backend) => Ok(tensor.clone()),
        Place::File(_) => {
            let read = read_to_host(&[(0, tensor)], memory, Placement::Separate);
            let mut read = read.map_err(Failure::into_error)?;
            Ok(read.remove(0))
        }
        Place::Host(_) | Place::Device(_) => {
            let bytes = tensor.host_bytes("pinning a tensor")?;
            let (layout, copy) = landing(tensor)?;
            let storage = match copy {
                Some(copy) => {
                    memory.build_storage(copy.bytes(), |packed| Ok(copy.gather_slice(bytes, 0, packed)?))?
                }
                None => {
                    let span = span_bytes(tensor)?;
                    memory.build_storage(span.len(), |packed| {
                        packed.copy_from_slice(&bytes[span]);
                        Ok(())
                    })?
                }
            };
            Ok(Tensor::new(dtype, layout, storage))
        }
    }
}
