//! One file of a checkpoint, open.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    path::Path,
};

use indexmap::IndexMap;

use super::{CheckpointError, Header, TensorInfo};
use crate::{DType, Error, FileAccess, FileSource, Result, Tensor};

/// One file of a checkpoint. Its tensors share the open file, so it may be renamed or removed while they are there.
#[derive(Clone, Debug)]
pub struct Shard {
    source: FileSource,
    data_start: u64,
    metadata: Option<IndexMap<String, String>>,
}

impl Shard {
    /// Opens a file and reads its header; gives its tensors too.
    pub(super) fn open(path: &Path, access: FileAccess) -> Result<(Self, IndexMap<String, TensorInfo>)> {
        let (file, bytes) = open_regular(path)?;
        let header = Header::read(&file, path, bytes)?;
        let data_start = header.data_start();
        let (tensors, metadata) = header.into_parts();
        let shard = Self {
            source: FileSource::of(file, path, bytes, access),
            data_start,
            metadata,
        };
        Ok((shard, tensors))
    }

    /// Where the file was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The size of the whole file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    /// Where in the file the tensors' data begins.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// The texts in the header's `__metadata__`; `None` where it has none.
    #[must_use]
    pub fn metadata(&self) -> Option<&IndexMap<String, String>> {
        self.metadata.as_ref()
    }

    /// Fills `into` with the data from `start` on, counted from the header's end.
    pub(super) fn read_at(&self, into: &mut [u8], start: u64) -> Result<()> {
        self.source.read_at(self.data_start + start, into)
    }

    /// Bytes of the file, where they lie, as a tensor of [`DType::U8`]: neighbours in the file that are to be neighbours
    /// elsewhere too move as one.
    ///
    /// # Errors
    ///
    /// As for [`FileSource::tensor`]: the file never had the bytes.
    pub fn range(&self, bytes: Range<u64>) -> Result<Tensor> {
        let length = usize::try_from(bytes.end.saturating_sub(bytes.start)).unwrap_or(usize::MAX);
        self.source.tensor(bytes.start, DType::U8, &[length])
    }

    /// The whole file as memory: see [`Checkpoint::map`](super::Checkpoint::map).
    ///
    /// # Safety
    ///
    /// As there.
    ///
    /// # Errors
    ///
    /// As there.
    pub unsafe fn map(&self) -> Result<Tensor> {
        // SAFETY: the caller's promise.
        unsafe { self.source.map() }
    }

    /// A tensor of the file, where it lies.
    pub(super) fn tensor(&self, info: &TensorInfo) -> Result<Tensor> {
        self.source
            .tensor(self.data_start + info.start, info.dtype, &info.shape)
    }
}

/// Opens a file that is neither a folder nor a pipe or device, which could block for ever; gives its size.
pub(super) fn open_regular(path: &Path) -> Result<(File, u64)> {
    let failed = |doing: &str, source: io::Error| Error::File {
        doing: doing.to_owned(),
        path: path.to_owned(),
        source,
    };
    let irregular = || CheckpointError::NotFound {
        path: path.to_owned(),
        reason: "it is no regular file; name a safetensors file, a folder of them, or an index".to_owned(),
    };
    if !fs::metadata(path)
        .map_err(|source| failed("opening", source))?
        .is_file()
    {
        return Err(irregular().into());
    }
    let file = File::open(path).map_err(|source| failed("opening", source))?;
    let metadata = file
        .metadata()
        .map_err(|source| failed("asking for the size of", source))?;
    if !metadata.is_file() {
        return Err(irregular().into());
    }
    Ok((file, metadata.len()))
}
