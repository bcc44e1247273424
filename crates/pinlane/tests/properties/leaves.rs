//! The tensors that are moved, as numbers, and what a plain copy of each is.

use std::io::Write;

use pinlane::{DType, Device, Layout, Tensor, Tree};
use proptest::{collection::vec, prelude::*, sample::select};
use tempfile::TempDir;

use crate::{hops::assert_over_budget, rig::pattern};

/// One tensor, as numbers.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    dtype: DType,
    shape: Vec<usize>,
    views: Vec<View>,
    memory: Memory,
    /// Which map of the tree it is in; 0 is the list beside the map.
    pub(crate) home: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Memory {
    Pageable,
    Pinned,
    File,
}

/// A view of a tensor. Numbers are taken modulo what the tensor at hand has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View {
    Transpose(usize, usize),
    Slice {
        dim: usize,
        start: usize,
        length: usize,
        step: usize,
    },
    Expand(usize),
}

/// One view of another, up to three of them.
pub(crate) fn views() -> impl Strategy<Value = Vec<View>> {
    let view = prop_oneof![
        (0..8usize, 0..8usize).prop_map(|(a, b)| View::Transpose(a, b)),
        (0..8usize, 0..100usize, 0..100usize, 1..4usize).prop_map(|(dim, start, length, step)| View::Slice {
            dim,
            start,
            length,
            step
        }),
        (1..4usize).prop_map(View::Expand),
    ];
    vec(view, 1..4)
}

pub(crate) fn leaf() -> impl Strategy<Value = Leaf> {
    let size = prop_oneof![6 => 1..6usize, 1 => Just(0), 1 => Just(1)];
    let small = vec(size, 0..5);
    // Long enough for several slots, and not a multiple of anything.
    let long = (1..9000usize).prop_map(|length| vec![length]);
    let plane = (1..90usize, 1..90usize).prop_map(|(rows, columns)| vec![rows, columns]);
    (
        select(&DType::ALL[..]),
        prop_oneof![3 => small, 1 => long, 1 => plane],
        prop_oneof![Just(Vec::new()), views()],
        prop_oneof![3 => Just(Memory::Pageable), 2 => Just(Memory::Pinned), 1 => Just(Memory::File)],
        0..4usize,
    )
        .prop_map(|(dtype, mut shape, views, memory, home)| {
            if dtype.is_sub_byte() {
                // Four elements are whole bytes in every dtype.
                shape.push(4);
            }
            Leaf {
                dtype,
                shape,
                views,
                memory,
                home,
            }
        })
}

/// A tensor of the tree, and what a plain copy of its elements is.
pub(crate) struct Made {
    pub(crate) tensor: Tensor,
    pub(crate) expected: Vec<u8>,
    /// The tensor that it is a view of, and that tensor's bytes.
    pub(crate) base: Tensor,
    pub(crate) bytes: Vec<u8>,
}

impl Leaf {
    pub(crate) fn make(&self, number: usize, device: &Device, folder: &TempDir) -> Made {
        let elements = self.shape.iter().product();
        let bytes = pattern(self.dtype.bytes_for(elements).unwrap(), number);
        let pageable = Tensor::from_bytes(bytes.clone(), self.dtype, &self.shape).unwrap();
        let base = match self.memory {
            Memory::Pageable => pageable,
            Memory::Pinned => match pageable.pin_memory(device) {
                Ok(pinned) => pinned,
                Err(error) => {
                    assert_over_budget(&error);
                    pageable
                }
            },
            Memory::File => {
                let path = folder.path().join(number.to_string());
                let mut file = std::fs::File::create(&path).unwrap();
                let before = number % 7;
                file.write_all(&vec![0xEE; before]).unwrap();
                file.write_all(&bytes).unwrap();
                Tensor::from_file(&path, before as u64, self.dtype, &self.shape).unwrap()
            }
        };
        let mut tensor = base.clone();
        for view in &self.views {
            if let Some(seen) = self.view(&tensor, *view) {
                tensor = seen;
            }
        }
        let expected = naive_copy(&bytes, tensor.layout(), self.dtype);
        Made {
            tensor,
            expected,
            base,
            bytes,
        }
    }

    /// The view, where the tensor has one like it that can be moved.
    fn view(&self, tensor: &Tensor, view: View) -> Option<Tensor> {
        let seen = view.of(tensor)?;
        // Elements that share bytes, and files, move in one piece or not at all; `bad_input` has the refusals.
        let moves = match self.memory {
            Memory::File => seen.layout().is_dense(),
            Memory::Pageable | Memory::Pinned => true,
        };
        (moves && is_whole(&seen)).then_some(seen)
    }
}

impl Made {
    /// Views of what has landed on a device, as far as they can be moved, and the same views of a plain copy.
    pub(crate) fn seen_through(&self, views: &[View], there: &Tensor) -> Self {
        let (dtype, shape) = (there.dtype(), there.shape());
        let base = Tensor::from_bytes(self.expected.clone(), dtype, shape).unwrap();
        let (mut tensor, mut copy) = (there.clone(), base.clone());
        for view in views {
            if let (Some(seen), Some(also)) = (view.of(&tensor), view.of(&copy))
                && is_whole(&seen)
            {
                (tensor, copy) = (seen, also);
            }
        }
        Self {
            tensor,
            expected: naive_copy(&self.expected, copy.layout(), dtype),
            base,
            bytes: self.expected.clone(),
        }
    }
}

impl View {
    /// The view, where the tensor has one like it.
    fn of(self, tensor: &Tensor) -> Option<Tensor> {
        let rank = tensor.shape().len();
        if rank == 0 && !matches!(self, Self::Expand(_)) {
            return None;
        }
        let seen = match self {
            Self::Transpose(a, b) => tensor.transpose(a % rank, b % rank),
            Self::Slice {
                dim,
                start,
                length,
                step,
            } => {
                let dim = dim % rank;
                let size = tensor.shape()[dim];
                let start = start % (size + 1);
                let end = start + length % (size - start + 1);
                tensor.slice(dim, start..end, step)
            }
            Self::Expand(times) => tensor.expand(&[&[times], tensor.shape()].concat()),
        };
        Some(seen.unwrap())
    }
}

/// Whether its elements are not narrower than a byte, or fill bytes of their own.
fn is_whole(tensor: &Tensor) -> bool {
    !tensor.dtype().is_sub_byte() || tensor.layout().is_contiguous() && starts_on_a_byte(tensor)
}

fn starts_on_a_byte(tensor: &Tensor) -> bool {
    let bits = tensor.dtype().bits();
    (tensor.layout().offset() * bits).is_multiple_of(8) && (tensor.elements() * bits).is_multiple_of(8)
}

/// The elements in logical order, one at a time.
pub(crate) fn naive_copy(storage: &[u8], layout: &Layout, dtype: DType) -> Vec<u8> {
    let Some(width) = dtype.element_bytes() else {
        let start = dtype.bytes_for(layout.offset()).unwrap();
        return storage[start..][..dtype.bytes_for(layout.elements()).unwrap()].to_vec();
    };
    let mut copy = Vec::with_capacity(layout.elements() * width);
    for index in 0..layout.elements() {
        let mut rest = index;
        let mut place = layout.offset();
        for (&size, &stride) in layout.shape().iter().zip(layout.strides()).rev() {
            place += rest % size * stride;
            rest /= size;
        }
        copy.extend_from_slice(&storage[place * width..][..width]);
    }
    copy
}
