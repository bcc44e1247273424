//! What leaves of the same element type, shape and strides have in common: where their elements lie, how they land, and how
//! the engine gathers them. A tree of a thousand equal tensors has one form.
//!
//! The engine is not told of element types: elements that fill their memory without gaps move as bytes, and others by the
//! width of an element. They land as torch's own `to` lays them out: dense tensors with their strides, others without gaps in
//! the order of their strides.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use pinlane::{DType, Layout, StridedCopy};

use crate::exchange::Description;

/// One kind of leaf.
#[derive(Debug)]
pub(crate) struct Form {
    dtype: u64,
    item: usize,
    pub(crate) shape: Box<[i64]>,
    /// The strides that it has, in elements.
    found: Box<[i64]>,
    /// The strides that it lands with, where these are others.
    landed: Option<Box<[i64]>>,
    /// Bytes of all elements.
    pub(crate) bytes: usize,
    /// Whether the elements may be complex numbers.
    pub(crate) may_be_conjugate: bool,
    /// How the elements are gathered, where they do not fill their memory without gaps, each place once.
    pub(crate) gathered: Option<StridedCopy>,
}

/// The forms of a tree's leaves.
#[derive(Debug, Default)]
pub(crate) struct Forms {
    forms: Vec<Form>,
    /// The number of a form, by a hash of what tells it from others. Of two with the same hash the later is here.
    numbers: HashMap<u64, usize>,
    hasher: RandomState,
    /// The last that was asked for: mostly the next one's too.
    last: usize,
}

impl Forms {
    /// The number of a leaf's form; `None` for elements of a width that the engine can't gather.
    pub(crate) fn number_of(&mut self, leaf: &Description<'_>) -> Result<Option<usize>, pinlane::Error> {
        if self.forms.get(self.last).is_some_and(|form| form.is_of(leaf)) {
            return Ok(Some(self.last));
        }
        let hash = self
            .hasher
            .hash_one((leaf.dtype, leaf.item, leaf.shape, leaf.strides));
        self.last = match self.numbers.get(&hash) {
            Some(&number) if self.forms[number].is_of(leaf) => number,
            _ => {
                let Some(form) = Form::of(leaf)? else {
                    return Ok(None);
                };
                self.numbers.insert(hash, self.forms.len());
                self.forms.push(form);
                self.forms.len() - 1
            }
        };
        Ok(Some(self.last))
    }

    pub(crate) fn get(&self, number: usize) -> &Form {
        &self.forms[number]
    }
}

/// A dimension: its number in the shape, its size and stride.
#[derive(Clone, Copy)]
struct Dim {
    number: usize,
    size: usize,
    stride: usize,
}

impl Form {
    /// Whether the elements fill their memory without gaps, each place once: it moves as the bytes that it is.
    pub(crate) fn is_dense(&self) -> bool {
        self.gathered.is_none()
    }

    /// The strides that it lands with, in elements.
    pub(crate) fn strides(&self) -> &[i64] {
        self.landed.as_ref().unwrap_or(&self.found)
    }

    fn is_of(&self, leaf: &Description<'_>) -> bool {
        self.dtype == leaf.dtype
            && self.item == leaf.item
            && *self.shape == *leaf.shape
            && *self.found == *leaf.strides
    }

    /// `None` for gaps between elements of a width that the engine can't gather.
    fn of(leaf: &Description<'_>) -> Result<Option<Self>, pinlane::Error> {
        if let Some(elements) = contiguous_elements(leaf) {
            return Self::dense(leaf, elements).map(Some);
        }
        let number = |number: &i64| usize::try_from(*number).unwrap_or(usize::MAX);
        let shape: Vec<usize> = leaf.shape.iter().map(number).collect();
        let strides: Vec<usize> = leaf.strides.iter().map(number).collect();
        let layout = Layout::with_strides(&shape, &strides, 0, usize::MAX)?;
        if layout.is_dense() {
            return Self::dense(leaf, layout.elements()).map(Some);
        }
        let Some(dtype) = of_width(leaf.item) else {
            return Ok(None);
        };
        let dims = shape.iter().zip(&strides).enumerate();
        let order = landing_order(dims.map(|(number, (&size, &stride))| Dim { number, size, stride }));
        let mut landed = vec![0; order.len()];
        let mut stride = 1;
        for dim in order.iter().rev() {
            landed[dim.number] = stride;
            stride *= dim.size.max(1) as i64;
        }
        let (sizes, steps): (Vec<usize>, Vec<usize>) = order.iter().map(|dim| (dim.size, dim.stride)).unzip();
        let gathered = Layout::with_strides(&sizes, &steps, 0, usize::MAX)?;
        Ok(Some(Self {
            dtype: leaf.dtype,
            item: leaf.item,
            shape: leaf.shape.into(),
            found: leaf.strides.into(),
            landed: Some(landed.into()),
            bytes: dtype.bytes_for(layout.elements())?,
            may_be_conjugate: leaf.may_be_complex,
            gathered: Some(StridedCopy::new(&gathered, dtype)?),
        }))
    }

    /// The form of a leaf whose `elements` elements fill their memory.
    fn dense(leaf: &Description<'_>, elements: usize) -> Result<Self, pinlane::Error> {
        let bytes = DType::U8.bytes_for(elements.saturating_mul(leaf.item))?;
        Ok(Self {
            dtype: leaf.dtype,
            item: leaf.item,
            shape: leaf.shape.into(),
            found: leaf.strides.into(),
            landed: None,
            bytes,
            may_be_conjugate: leaf.may_be_complex,
            gathered: None,
        })
    }
}

/// The number of elements of a leaf that is contiguous, as nearly all are; `None` for any other.
fn contiguous_elements(leaf: &Description<'_>) -> Option<usize> {
    let mut elements = 1usize;
    for (&size, &stride) in leaf.shape.iter().zip(leaf.strides).rev() {
        let (size, stride) = (usize::try_from(size).ok()?, usize::try_from(stride).ok()?);
        match size {
            0 => return Some(0),
            1 => {}
            _ if stride == elements => elements = elements.checked_mul(size)?,
            _ => return None,
        }
    }
    Some(elements)
}

/// The dimensions of a tensor with gaps, outermost first, in the order in which torch lands them: by stride, as far as the
/// strides tell.
///
/// A stride of zero tells nothing of where its dimension belongs, so it stays between the neighbours it has; of equal strides
/// the larger dimension is the outer one. That is no order in the mathematical sense, so it matters how it is sorted: by
/// insertion, from the innermost dimension on, each past neighbours that clearly belong further in.
fn landing_order(dims: impl DoubleEndedIterator<Item = Dim>) -> Vec<Dim> {
    let mut inner_first: Vec<Dim> = dims.rev().collect();
    for start in 1..inner_first.len() {
        let mut moving = start;
        for other in (0..start).rev() {
            let (before, dim) = (inner_first[other], inner_first[moving]);
            if before.stride == 0 || dim.stride == 0 {
                continue;
            }
            let belongs_before = (dim.stride, dim.size) < (before.stride, before.size);
            if belongs_before {
                inner_first.swap(other, moving);
                moving = other;
            } else if before.stride < dim.stride {
                break;
            }
        }
    }
    inner_first.reverse();
    inner_first
}

/// A dtype of that width, whatever it means.
fn of_width(bytes: usize) -> Option<DType> {
    match bytes {
        1 => Some(DType::U8),
        2 => Some(DType::U16),
        4 => Some(DType::U32),
        8 => Some(DType::U64),
        16 => Some(DType::C128),
        _ => None,
    }
}
