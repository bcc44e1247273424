//! The bytes that are moved: made up once, and never written again while a tensor over them lives.

use std::ptr::NonNull;

use pinlane::{DType, Device, HostMemory, Layout, Tensor};
use pinlane_driver::{Backend, sync::Arc};

use crate::{error::Result, parallel};

/// Between two tensors, so that no copy of one reaches into the next, and nobody can move them as one.
const GAP: usize = 64;
/// What each cell's tensors may be shifted by.
const SHIFTS: usize = 1 << 20;

/// Host memory full of made-up bytes.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: Arc<Tensor>,
    pinned: Option<Backend>,
}

/// Where tensors of one size lie in an arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    start: usize,
    bytes: usize,
}

impl Places {
    /// Tensors of `bytes` bytes for the cell with this number. Each cell has its tensors elsewhere: what the one before
    /// left behind cannot pass for its own.
    pub(crate) fn new(cell: usize, bytes: usize) -> Self {
        Self {
            start: (cell * 65 * GAP) % SHIFTS,
            bytes,
        }
    }

    /// The bytes that an arena needs for `count` tensors of `bytes` bytes of any cell.
    pub(crate) fn needed(bytes: usize, count: usize) -> usize {
        SHIFTS + count * stride(bytes)
    }

    fn offset(&self, index: usize) -> usize {
        self.start + index * stride(self.bytes)
    }
}

fn stride(bytes: usize) -> usize {
    bytes.next_multiple_of(GAP) + GAP
}

impl Arena {
    /// An arena of `bytes` bytes, pinned for `device` where one is given.
    pub(crate) fn new(bytes: usize, pinned_for: Option<&Device>) -> Result<Self> {
        let place = pinned_for.map_or(HostMemory::Pageable, HostMemory::Pinned);
        let mut memory = place.empty(DType::U8, &[bytes])?;
        parallel::fill(memory.as_mut_slice()?, bytes as u64);
        Ok(Self {
            memory: Arc::new(memory),
            pinned: pinned_for.and_then(Device::id).map(|id| id.backend),
        })
    }

    /// The bytes of tensor `index`.
    pub(crate) fn bytes(&self, places: Places, index: usize) -> &[u8] {
        let all = self.memory.as_bytes().expect("an arena is packed host memory");
        &all[places.offset(index)..][..places.bytes]
    }

    /// Tensor `index`, with a storage of its own, as tensors of a list have.
    pub(crate) fn tensor(&self, places: Places, index: usize) -> Result<Tensor> {
        let (dtype, elements) = match places.bytes % size_of::<f32>() {
            0 => (DType::F32, places.bytes / size_of::<f32>()),
            _ => (DType::U8, places.bytes),
        };
        let bytes = self.bytes(places, index);
        // SAFETY: the bytes are initialised and live as long as `memory`, which is the owner; nobody writes them, since
        // `memory` is shared from `new` on; it is pinned, if it is, for as long as it lives.
        let tensor = unsafe {
            Tensor::from_raw_parts(
                NonNull::from(bytes).cast(),
                bytes.len(),
                dtype,
                Layout::contiguous(&[elements]).map_err(pinlane::Error::from)?,
                self.pinned,
                Arc::clone(&self.memory) as _,
            )?
        };
        Ok(tensor)
    }
}
