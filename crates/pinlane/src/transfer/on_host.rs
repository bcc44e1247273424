//! Copies within the host's memory: shared by several threads, since one alone does not keep the memory busy.

use std::ptr::NonNull;

use crate::{
    Result, StridedCopy, Tensor,
    error::Failure,
    landing::span_bytes,
    memory::copying::{self, Stores},
    parts::{Item, share},
};

/// From so many bytes on they are stored past the caches, where what they overwrite would be read first. Measured on two threads
/// of one core.
const STREAMED_FROM: usize = 32 << 20;

/// A tensor's bytes on the host, as they land elsewhere.
pub(super) enum Origin<'a> {
    Memory(&'a [u8]),
    /// Memory to gather from.
    Strided(&'a [u8], StridedCopy),
}

/// Bytes, and where they go: to as many.
pub(super) struct HostCopy<'a> {
    from: Origin<'a>,
    to: NonNull<u8>,
}

// SAFETY: the place is only named here; who has it filled promises that nobody else touches it meanwhile. What is copied is
// borrowed, and as `Sync` as bytes are.
unsafe impl Sync for HostCopy<'_> {}

impl<'a> HostCopy<'a> {
    /// To memory that stays where it is when the borrow ends.
    pub(super) fn new(from: Origin<'a>, to: &mut [u8]) -> Self {
        assert_eq!(
            from.bytes(),
            to.len(),
            "a tensor and its place have the same bytes"
        );
        Self {
            from,
            to: NonNull::from(to).cast(),
        }
    }
}

impl<'a> Origin<'a> {
    /// The bytes of a tensor, by the copy that packs them where they leave gaps.
    pub(super) fn new(tensor: &'a Tensor, packing: Option<StridedCopy>, doing: &'static str) -> Result<Self> {
        let storage = tensor.host_bytes(doing)?;
        Ok(match packing {
            Some(copy) => Self::Strided(storage, copy),
            None => Self::Memory(&storage[span_bytes(tensor)?]),
        })
    }

    /// How many there are.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Strided(_, copy) => copy.bytes(),
        }
    }
}

/// Makes every copy.
///
/// # Safety
///
/// Each place is still there, they lie apart from each other and from what is copied, and nobody else touches them meanwhile.
pub(super) unsafe fn copy_all(copies: &[HostCopy<'_>]) -> Result<(), Failure> {
    let bytes = copies.iter().map(|copy| copy.from.bytes());
    let stores = match bytes.fold(0, usize::saturating_add) {
        STREAMED_FROM.. => Stores::Streamed,
        _ => Stores::Cached,
    };
    // SAFETY: the caller's promise.
    unsafe { copy_all_with(copies, stores) }
}

/// The same, stored so; but what is gathered, which goes through the caches.
///
/// # Safety
///
/// As for [`copy_all`].
unsafe fn copy_all_with(copies: &[HostCopy<'_>], stores: Stores) -> Result<(), Failure> {
    share(
        copies.iter().map(|copy| copy.from.bytes()),
        || (),
        |(), items| {
            for Item { index, range } in items {
                let HostCopy { from, to } = &copies[*index];
                // SAFETY: the item's part of the place, which is as long as what is copied, is by the caller's promise this
                // thread's alone; a gathered tensor's layout was checked against its storage.
                unsafe {
                    let to = to.as_ptr().add(range.start);
                    match from {
                        Origin::Memory(bytes) => {
                            let bytes = &bytes[range.clone()];
                            copying::copy(bytes.as_ptr(), to, bytes.len(), stores);
                        }
                        Origin::Strided(storage, copy) => copy.gather(storage.as_ptr(), range.clone(), to),
                    }
                }
            }
            copying::fence(stores);
            Ok(())
        },
    )
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::{DType, landing::packing};

    #[test]
    fn tensors_of_no_part_and_of_several_land_whole_with_gaps_and_without() {
        let tensor = |rows, columns, seed| Tensor::rand(DType::F32, &[rows, columns], seed).unwrap();
        let large = tensor(1801, 1501, 1);
        let tensors = [
            tensor(3, 5, 2),
            large.transpose(0, 1).unwrap(),
            tensor(0, 7, 3),
            large.slice(0, 1..1800, 1).unwrap(),
            large.slice(1, 0..1500, 3).unwrap(),
        ];
        for stores in [Stores::Cached, Stores::Streamed] {
            let room = |tensor: &Tensor| vec![0; tensor.bytes().unwrap()];
            let mut landed: Vec<Vec<u8>> = tensors.iter().map(room).collect();
            let copies = tensors.iter().zip(&mut landed).map(|(tensor, landed)| {
                let from = Origin::new(tensor, packing(tensor).unwrap().1, "testing").unwrap();
                HostCopy::new(from, landed)
            });
            let copies: Vec<_> = copies.collect();
            // SAFETY: each vector is a place of its own, which nobody touches.
            unsafe { copy_all_with(&copies, stores).unwrap() };
            for (tensor, landed) in tensors.iter().zip(&landed) {
                let expected = tensor.contiguous().unwrap();
                assert!(expected.as_bytes().unwrap() == landed, "{:?}", tensor.layout());
            }
        }
    }
}
