//! What is sent: trees out of all kinds of host memory. Whatever is freed turns to poison.

use std::{any::Any, hint::black_box, ptr::NonNull, sync::Arc};

use pinlane::{DType, HostMemory, Layout, Route, Tensor};
use rand::RngExt;

use super::{
    bytes::{POISON, unless_over_budget},
    round::Round,
};
use crate::rig::pattern;

/// Where a source's bytes lie.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Memory {
    Pageable,
    /// Every other byte of pageable memory; the others are poison.
    Strided,
    Pinned,
}

/// Tensors, the bytes that must land of each, and the routes that can carry them up.
pub(super) struct Sent {
    pub(super) tree: Vec<Tensor>,
    pub(super) expected: Vec<Vec<u8>>,
    pub(super) routes: Vec<Option<Route>>,
}

impl Round<'_> {
    pub(super) fn tree(&mut self) -> Sent {
        let only = match self.random.random_range(0..4) {
            0 => Some(Memory::Pageable),
            1 => Some(Memory::Strided),
            2 => Some(Memory::Pinned),
            _ => None,
        };
        let (mut tree, mut expected) = (Vec::new(), Vec::new());
        let mut routes = self.routes();
        let (mut all_dense, mut all_pinned) = (true, true);
        for _ in 0..self.random.random_range(1..=10) {
            let memory = only.unwrap_or_else(|| {
                [Memory::Pageable, Memory::Strided, Memory::Pinned][self.random.random_range(0..3)]
            });
            let bytes = pattern(self.size(), self.seed());
            let (tensor, memory) = self.source(&bytes, memory);
            all_dense &= memory != Memory::Strided;
            all_pinned &= memory == Memory::Pinned;
            tree.push(tensor);
            expected.push(bytes);
        }
        if all_dense {
            routes.push(Some(Route::Plain));
        }
        if all_pinned {
            routes.push(Some(Route::Direct));
        }
        Sent {
            tree,
            expected,
            routes,
        }
    }

    /// A tensor of these bytes, pinned as far as the budget goes.
    fn source(&self, bytes: &[u8], memory: Memory) -> (Tensor, Memory) {
        match memory {
            Memory::Pinned => {
                let pinned = HostMemory::Pinned(self.device).copy_of(bytes, &[bytes.len()]);
                match unless_over_budget(pinned) {
                    Some(pinned) => (pinned, Memory::Pinned),
                    None => self.source(bytes, Memory::Pageable),
                }
            }
            Memory::Pageable => (poisoned_when_freed(bytes.to_vec()), Memory::Pageable),
            Memory::Strided => {
                let spread = bytes.iter().flat_map(|&byte| [byte, POISON]).collect();
                let every_other = poisoned_when_freed(spread).slice(0, 0..2 * bytes.len(), 2);
                let memory = if bytes.len() > 1 {
                    Memory::Strided
                } else {
                    Memory::Pageable
                };
                (every_other.unwrap(), memory)
            }
        }
    }

    pub(super) fn seed(&mut self) -> usize {
        self.random.random_range(0..usize::MAX)
    }

    /// Mostly small, sometimes several slots, seldom what many lanes share.
    pub(super) fn size(&mut self) -> usize {
        match self.random.random_range(0..100) {
            0..60 => self.random.random_range(1..2000),
            60..90 => self.random.random_range(2000..100_000),
            90..99 => self.random.random_range(100_000..400_000),
            _ => self.random.random_range(1 << 20..5 << 20),
        }
    }
}

/// A tensor over these bytes, which turn to poison when nobody may read them any more.
fn poisoned_when_freed(bytes: Vec<u8>) -> Tensor {
    struct Poisoned(Vec<u8>);

    impl Drop for Poisoned {
        fn drop(&mut self) {
            self.0.fill(POISON);
            // Writes to memory that is freed next are not left out.
            black_box(&mut self.0);
        }
    }

    let len = bytes.len();
    let owner = Arc::new(Poisoned(bytes));
    let ptr = NonNull::new(owner.0.as_ptr().cast_mut()).unwrap();
    let layout = Layout::contiguous(&[len]).unwrap();
    let owner: Arc<dyn Any + Send + Sync> = owner;
    // SAFETY: the vector is as long and lives in the owner, and nobody writes it before the owner is dropped.
    unsafe { Tensor::from_raw_parts(ptr, len, DType::U8, layout, None, owner) }.unwrap()
}
