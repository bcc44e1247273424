//! Tensors in files, read to the host.

use std::os::unix::fs::FileExt;

use crate::{
    Error, HostMemory, Result, Tensor,
    landing::{landing, span_bytes},
    memory::storage::{FileBytes, Place},
};

/// The tensor in pageable memory, read by the caller's thread. A tensor that is in no file is returned as it is.
pub(crate) fn read(tensor: &Tensor) -> Result<Tensor> {
    let Place::File(source) = tensor.storage().place() else {
        return Ok(tensor.clone());
    };
    let (layout, copy) = landing(tensor)?;
    if copy.is_some() {
        return Err(gaps());
    }
    let span = span_bytes(tensor)?;
    let storage = HostMemory::Pageable.build_storage(span.len(), |bytes| {
        read_at(source, source.offset + span.start as u64, bytes)
    })?;
    Ok(Tensor::new(tensor.dtype(), layout, storage))
}

/// Fills `into` with the bytes of the file at `offset`.
pub(crate) fn read_at(source: &FileBytes, offset: u64, into: &mut [u8]) -> Result<()> {
    source
        .file
        .read_exact_at(into, offset)
        .map_err(|error| Error::File {
            doing: format!("reading {} bytes at offset {offset} of", into.len()),
            path: source.path.to_path_buf(),
            source: error,
        })
}

/// Why a view with gaps can't be read from a file.
pub(crate) fn gaps() -> Error {
    Error::Unsupported {
        doing: "reading a view of a tensor in a file",
        reason: "its elements do not lie in one piece; move the whole tensor and take the view there"
            .to_owned(),
    }
}
