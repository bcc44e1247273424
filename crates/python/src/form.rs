//! What leaves of the same element type, shape and strides have in common: where their elements lie, how they land, and the
//! engine's layouts for both. A tree of a thousand equal tensors has one form.
//!
//! The engine is not told of element types: elements that fill their memory without gaps move as bytes, and others by the
//! width of an element. They land as torch's own `to` lays them out: dense tensors with their strides, others without gaps in
//! the order of their strides.

use std::collections::HashMap;

use pinlane::{DType, Layout};

use crate::exchange::Description;

/// One kind of leaf.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) shape: Vec<i64>,
    /// The strides that it lands with, in elements.
    pub(crate) strides: Vec<i64>,
    /// Bytes of all elements.
    pub(crate) bytes: usize,
    /// Bytes from the first element to the end of the last.
    pub(crate) span: usize,
    /// Whether the elements fill their memory without gaps, each place once.
    pub(crate) is_dense: bool,
    /// Whether the elements may be complex numbers.
    pub(crate) may_be_conjugate: bool,
    /// How the engine reads it.
    pub(crate) source: (DType, Layout),
    /// How the engine writes it.
    pub(crate) place: (DType, Layout),
}

/// The forms of a tree's leaves.
#[derive(Debug, Default)]
pub(crate) struct Forms {
    forms: Vec<Form>,
    numbers: HashMap<Key, usize>,
    /// The last that was asked for: mostly the next one's too.
    last: Option<(Key, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    dtype: u64,
    item: usize,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Key {
    fn is_of(&self, leaf: &Description<'_>) -> bool {
        self.dtype == leaf.dtype
            && self.item == leaf.item
            && self.shape == leaf.shape
            && self.strides == leaf.strides
    }
}

impl Forms {
    /// The number of a leaf's form; `None` for elements of a width that the engine can't gather.
    pub(crate) fn number_of(&mut self, leaf: &Description<'_>) -> Result<Option<usize>, pinlane::Error> {
        if let Some((key, number)) = &self.last
            && key.is_of(leaf)
        {
            return Ok(Some(*number));
        }
        let key = Key {
            dtype: leaf.dtype,
            item: leaf.item,
            shape: leaf.shape.into(),
            strides: leaf.strides.into(),
        };
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => {
                let Some(form) = Form::of(leaf)? else {
                    return Ok(None);
                };
                self.forms.push(form);
                self.numbers.insert(key.clone(), self.forms.len() - 1);
                self.forms.len() - 1
            }
        };
        self.last = Some((key, number));
        Ok(Some(number))
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
    fn of(leaf: &Description<'_>) -> Result<Option<Self>, pinlane::Error> {
        let number = |number: &i64| usize::try_from(*number).unwrap_or(usize::MAX);
        let shape: Vec<usize> = leaf.shape.iter().map(number).collect();
        let strides: Vec<usize> = leaf.strides.iter().map(number).collect();
        let layout = Layout::with_strides(&shape, &strides, 0, usize::MAX)?;
        let elements = layout.elements();
        let bytes = DType::U8
            .bytes_for(elements.saturating_mul(leaf.item))
            .map_err(pinlane::Error::from)?;
        let span = layout.span().end * leaf.item;
        let flat = (DType::U8, Layout::contiguous(&[bytes])?);
        let form = |is_dense, strides, source| Self {
            shape: leaf.shape.into(),
            strides,
            bytes,
            span,
            is_dense,
            may_be_conjugate: leaf.may_be_complex,
            source,
            place: flat.clone(),
        };
        if layout.is_dense() {
            return Ok(Some(form(true, leaf.strides.into(), flat.clone())));
        }
        let Some(dtype) = of_width(leaf.item) else {
            return Ok(None);
        };
        let dims: Vec<Dim> = (0..shape.len())
            .map(|number| Dim {
                number,
                size: shape[number],
                stride: strides[number],
            })
            .collect();
        let order = landing_order(dims);
        let mut landed = vec![0; order.len()];
        let mut stride = 1;
        for dim in order.iter().rev() {
            landed[dim.number] = stride as i64;
            stride *= dim.size.max(1);
        }
        let (sizes, steps): (Vec<usize>, Vec<usize>) = order.iter().map(|dim| (dim.size, dim.stride)).unzip();
        let packed = Layout::contiguous(&sizes)?;
        let gathered = Layout::with_strides(&sizes, &steps, 0, usize::MAX)?;
        Ok(Some(Self {
            place: (dtype, packed),
            ..form(false, landed, (dtype, gathered))
        }))
    }
}

/// The dimensions of a tensor with gaps, outermost first, in the order in which torch lands them: by stride, as far as the
/// strides tell.
///
/// A stride of zero tells nothing of where its dimension belongs, so it stays between the neighbours it has; of equal strides
/// the larger dimension is the outer one. That is no order in the mathematical sense, so it matters how it is sorted: by
/// insertion, from the innermost dimension on, each past neighbours that clearly belong further in.
fn landing_order(dims: Vec<Dim>) -> Vec<Dim> {
    let mut inner_first: Vec<Dim> = dims.into_iter().rev().collect();
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
