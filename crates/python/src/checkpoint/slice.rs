//! Which bytes of a file a part of a tensor is read by.
//!
//! A part has some indices of each dimension. Of the outer dimensions, those before the *split*, only the wanted indices are
//! read; of the split dimension everything from the first wanted index to the last; of the inner ones everything. Each
//! combination of outer indices is one run of bytes. The further in the split is, the fewer bytes are read that nobody wants,
//! and the more runs there are: it is where both together cost least.

use std::ops::Range;

use pinlane::{DType, checkpoint::Entry};
use pyo3::{exceptions::PyIndexError, prelude::*};

use super::{no_dtype, torch_shape};

/// What a run costs beside its bytes, in bytes: what is read in the time of a call.
const COST_OF_RUN: usize = 4096;

/// What is read for a part of a tensor.
pub(super) struct Cut {
    /// The shape of what is read.
    shape: Vec<usize>,
    /// For each dimension, where in that the first wanted index is, and how far the next is from it.
    wanted: Vec<(usize, usize)>,
    /// The outer dimensions: the first wanted index of each, how many there are, and how many bytes one is from the next.
    outer: Vec<(usize, usize, usize)>,
    /// Where the run of the first outer indices begins and ends, in bytes of the tensor.
    run: Range<usize>,
    bytes: usize,
}

/// One run of bytes.
pub(super) struct Run {
    /// Where it is in the tensor.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where it goes.
    pub(super) placed: usize,
}

impl Cut {
    /// `indices` are the start, the number and the step of those wanted of each dimension, as torch counts them.
    pub(super) fn of(py: Python<'_>, entry: &Entry<'_>, indices: &[(usize, usize, usize)]) -> PyResult<Self> {
        let whole = torch_shape(py, entry)?;
        let item = match entry.dtype() {
            DType::F4 => 1,
            other => other.element_bytes().ok_or_else(|| no_dtype(py, entry))?,
        };
        let is_inside = |(&(start, count, step), &size): (&(usize, usize, usize), &usize)| {
            count == 0
                || count
                    .checked_sub(1)
                    .and_then(|last| last.checked_mul(step)?.checked_add(start))
                    < Some(size)
        };
        if indices.len() != whole.len() || !indices.iter().zip(&whole).all(is_inside) {
            let message = format!(
                "tensor {:?} of shape {whole:?} has no part {indices:?}",
                entry.name()
            );
            return Err(PyIndexError::new_err(message));
        }
        // What is told of a file is no larger than the file, so nothing here overflows.
        let splits = 0..whole.len().max(1);
        let cuts = splits.map(|split| Self::split_at(split, &whole, item, indices));
        Ok(cuts.min_by_key(Self::cost).expect("there is a split at 0"))
    }

    fn split_at(split: usize, whole: &[usize], item: usize, indices: &[(usize, usize, usize)]) -> Self {
        let mut bytes_of_one = vec![item; whole.len()];
        for dim in (1..whole.len()).rev() {
            bytes_of_one[dim - 1] = bytes_of_one[dim] * whole[dim];
        }
        let mut cut = Self {
            shape: Vec::with_capacity(whole.len()),
            wanted: Vec::with_capacity(whole.len()),
            outer: Vec::with_capacity(split),
            run: 0..item,
            bytes: 0,
        };
        for (dim, &(start, count, step)) in indices.iter().enumerate() {
            if dim < split {
                cut.shape.push(count);
                cut.wanted.push((0, 1));
                cut.outer.push((start, count, step * bytes_of_one[dim]));
                cut.run.start += start * bytes_of_one[dim];
            } else if dim == split {
                let length = if count == 0 { 0 } else { (count - 1) * step + 1 };
                cut.shape.push(length);
                cut.wanted.push((0, step));
                cut.run.start += start * bytes_of_one[dim];
                cut.run.end = cut.run.start + length * bytes_of_one[dim];
            } else {
                cut.shape.push(whole[dim]);
                cut.wanted.push((start, step));
            }
        }
        cut.bytes = cut.shape.iter().product::<usize>() * item;
        cut
    }

    fn cost(&self) -> usize {
        self.bytes + self.count() * COST_OF_RUN
    }

    /// How many runs there are.
    fn count(&self) -> usize {
        self.outer.iter().map(|&(_, count, _)| count).product()
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn wanted(&self) -> &[(usize, usize)] {
        &self.wanted
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Calls `each` with every run, in the order in which they go to memory.
    pub(super) fn runs(&self, mut each: impl FnMut(Run)) {
        if self.bytes == 0 {
            return;
        }
        let length = self.run.len();
        for number in 0..self.count() {
            let (mut rest, mut start) = (number, self.run.start);
            for &(_, count, distance) in self.outer.iter().rev() {
                start += rest % count * distance;
                rest /= count;
            }
            each(Run {
                start,
                end: start + length,
                placed: number * length,
            });
        }
    }
}
