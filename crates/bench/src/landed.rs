//! What a way has landed, and whether it is right.

use pinlane::{DType, Tensor};
use pinlane_guide::plain::{DeviceBlock, PinnedBlock};

use crate::{
    error::Result,
    parallel,
    readback::{Landing, POISON, Readback},
    ways::Sources,
};

/// The result of one run of a way. Dropped outside the time that is taken.
#[derive(Debug)]
pub enum Landed {
    /// Tensors on the device, by the engine.
    OnDevice(Vec<Tensor>),
    /// Tensors on the device, by the plain way.
    Blocks(Vec<DeviceBlock>),
    /// Tensors on the host, by the engine: those that were to lie in pageable memory, and the others.
    OnHost {
        /// In pageable memory.
        pageable: Vec<Tensor>,
        /// In pinned memory.
        pinned: Vec<Tensor>,
    },
    /// The same by the plain way.
    Copied {
        /// In pageable memory.
        pageable: Vec<Vec<u8>>,
        /// In pinned memory.
        pinned: Vec<PinnedBlock>,
    },
}

impl Landed {
    /// The number of the first tensor whose bytes are not those of its source. Everything is overwritten afterwards:
    /// whoever lands in the same memory next can't find the right bytes there by chance.
    pub(crate) fn first_wrong(
        mut self,
        sources: &Sources<'_>,
        readback: &mut Readback,
    ) -> Result<Option<usize>> {
        match &mut self {
            Self::OnDevice(tensors) => {
                let landings = tensors.iter().zip(&sources.expected).map(|(tensor, &expected)| {
                    let ptr = tensor
                        .device_ptr()
                        .filter(|_| tensor.bytes().is_ok_and(|bytes| bytes == expected.len()));
                    ptr.map(|ptr| Landing { ptr, expected })
                });
                match landings.collect::<Option<Vec<_>>>() {
                    Some(landings) if landings.len() == sources.expected.len() => {
                        readback.first_wrong(&landings, true)
                    }
                    _ => Ok(Some(0)),
                }
            }
            Self::Blocks(blocks) => {
                let landings = blocks.iter().zip(&sources.expected);
                let landings: Vec<_> = landings
                    .map(|(block, &expected)| Landing {
                        ptr: block.ptr(),
                        expected,
                    })
                    .collect();
                readback.first_wrong(&landings, false)
            }
            Self::OnHost { pageable, pinned } => {
                Ok(compare(sources, host_bytes(pageable)?, host_bytes(pinned)?))
            }
            Self::Copied { pageable, pinned } => {
                let pageable = pageable.iter_mut().map(Vec::as_mut_slice).collect();
                let pinned = pinned
                    .iter_mut()
                    // SAFETY: the block is borrowed mutably and as long as it says, and the device is done with it: the
                    // way has waited for its stream.
                    .map(|block| unsafe { std::slice::from_raw_parts_mut(block.as_ptr(), block.bytes()) })
                    .collect();
                Ok(compare(sources, pageable, pinned))
            }
        }
    }
}

/// The bytes of tensors that nobody shares.
fn host_bytes(tensors: &mut [Tensor]) -> Result<Vec<&mut [u8]>> {
    let bytes = tensors.iter_mut().map(|tensor| match tensor.dtype() {
        DType::F32 => Ok(bytemuck::cast_slice_mut(tensor.as_mut_slice::<f32>()?)),
        _ => tensor.as_mut_slice::<u8>(),
    });
    Ok(bytes.collect::<pinlane::Result<_>>()?)
}

/// Compares with the sources, in the order of the sources, and overwrites.
fn compare(sources: &Sources<'_>, pageable: Vec<&mut [u8]>, pinned: Vec<&mut [u8]>) -> Option<usize> {
    if pageable.len() + pinned.len() != sources.expected.len() {
        return Some(0);
    }
    let (mut pageable, mut pinned) = (pageable.into_iter(), pinned.into_iter());
    let memory = sources.cell.memory;
    let pairs = sources.expected.iter().enumerate().map(|(index, &expected)| {
        let landed = if memory.is_pinned(index) {
            pinned.next()
        } else {
            pageable.next()
        };
        (landed.unwrap_or_default(), expected)
    });
    let pairs: Vec<(&mut [u8], &[u8])> = pairs.collect();
    parallel::first(pairs, sources.cell.total(), |(landed, expected)| {
        let differs = landed != expected;
        landed.fill(POISON);
        differs
    })
}
