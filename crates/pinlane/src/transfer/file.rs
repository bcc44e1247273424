//! Tensors in files, read to the host.

use crate::{
    HostMemory, Result, Tensor,
    file::{
        read::Unread,
        reading::{FileEnd, Reading},
    },
    landing::landing,
    memory::storage::{FileBytes, Place},
};

/// The tensor in pageable memory, read by the caller's thread. A tensor that is in no file is returned as it is.
pub(crate) fn read(tensor: &Tensor) -> Result<Tensor> {
    let Place::File(source) = tensor.storage().place() else {
        return Ok(tensor.clone());
    };
    let end = FileEnd::new(tensor, source, 0, false)?;
    let storage = HostMemory::Pageable.build_storage(end.bytes(), |bytes| read_into(&end, bytes))?;
    Ok(Tensor::new(tensor.dtype(), landing(tensor)?.0, storage))
}

/// Fills `into` with the elements of `tensor`, which lies in `source`, in their order.
pub(crate) fn read_packed(tensor: &Tensor, source: &FileBytes, into: &mut [u8]) -> Result<()> {
    read_into(&FileEnd::new(tensor, source, 0, true)?, into)
}

fn read_into(end: &FileEnd, into: &mut [u8]) -> Result<()> {
    let mut reading = Reading::default();
    let unread = |Unread { error, .. }| *error;
    // SAFETY: the bytes are initialised and borrowed exclusively until the reading is finished.
    unsafe {
        reading
            .push(end, 0..into.len(), into.as_mut_ptr())
            .map_err(unread)?;
        reading.finish().map_err(unread)
    }
}
