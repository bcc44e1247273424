//! The poison, how it gets into memory that is free, and the comparison that finds it.

use pinlane::{DType, HostMemory, Placement, Tensor, TransferOptions, Tree};

use super::round::Round;
use crate::rig::is_over_budget;

pub(super) const POISON: u8 = 0xEE;

impl Round<'_> {
    /// Takes what is free of the pinned pool, fills it and gives it back.
    pub(super) fn poison_pinned_memory(&mut self) {
        for _ in 0..3 {
            let bytes = self.size();
            let taken = HostMemory::Pinned(self.device).full(DType::U8, &[bytes], POISON);
            drop(unless_over_budget(taken));
        }
    }

    /// Takes what may just have been freed on the device, a tree as long as `tree`, fills it and gives it back.
    pub(super) fn poison_device_memory(&self, tree: &[Vec<u8>]) {
        let poison = poison(tree);
        // Both ways in which the tree that was dropped may have been laid out.
        for placement in [Placement::Slab, Placement::Separate] {
            let options = TransferOptions::new().placement(placement);
            drop(poison.to_with(self.device, &options).unwrap());
        }
    }
}

/// Tensors on the host as long as those of `tree`, full of poison.
pub(super) fn poison(tree: &[Vec<u8>]) -> Vec<Tensor> {
    let full = |bytes: &Vec<u8>| Tensor::full(DType::U8, &[bytes.len()], POISON).unwrap();
    tree.iter().map(full).collect()
}

/// What was asked for, or nothing where the pinned budget has no room for it.
pub(super) fn unless_over_budget<T>(asked: pinlane::Result<T>) -> Option<T> {
    match asked {
        Err(error) if is_over_budget(&error) => None,
        given => Some(given.unwrap()),
    }
}

pub(super) fn assert_holds(tree: &[Tensor], expected: &[Vec<u8>], what: &str) {
    assert_eq!(tree.len(), expected.len());
    for (leaf, (tensor, expected)) in tree.iter().zip(expected).enumerate() {
        let found = tensor.as_bytes().unwrap();
        assert_eq!(found.len(), expected.len(), "{what}");
        if let Some(first) = found.iter().zip(expected).position(|(a, b)| a != b) {
            panic!(
                "{what}: leaf {leaf} of {} bytes has {:#04x} for {:#04x} from byte {first} on",
                found.len(),
                found[first],
                expected[first]
            );
        }
    }
}
