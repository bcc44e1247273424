//! Where a tensor's elements lie in its storage.
//!
//! A [`Layout`] is a shape, a stride for each dimension and an offset, all in elements. Element `[i, j, ..]` lies at
//! `offset + i * strides[0] + j * strides[1] + ..`; the *logical order* of elements is row-major in the shape,
//! whatever the strides. Strides are not negative, as in torch: a view can skip and repeat, not go backwards.
//!
//! Invariants, checked once by the constructors so that no later arithmetic can overflow:
//!
//! - the product of the sizes, zeros left out, is at most `isize::MAX`;
//! - so is the end of the [`span`](Layout::span), the range of storage that the elements reach into;
//! - a stride of a dimension with fewer than two elements is never used, and may be any number.

mod dims;
mod error;
mod views;

use std::ops::Range;

use self::dims::Dims;
pub use self::error::LayoutError;

/// The largest number of elements, or offset of one.
const MOST: usize = isize::MAX as usize;

/// Where a tensor's elements lie in its storage: shape, strides and offset, in elements.
///
/// ```
/// use pinlane::Layout;
///
/// let matrix = Layout::contiguous(&[2, 3])?;
/// assert_eq!(matrix.strides(), [3, 1]);
///
/// let columns = matrix.transpose(0, 1)?;
/// assert_eq!((columns.shape(), columns.strides()), (&[3, 2][..], &[1, 3][..]));
/// assert!(!columns.is_contiguous() && columns.is_dense());
///
/// let last = columns.slice(0, 2..3, 1)?;
/// assert_eq!(last.span(), 2..6);
/// # Ok::<(), pinlane::LayoutError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    dims: Dims,
    offset: usize,
    elements: usize,
    /// From the first element to the end of the last.
    reach: usize,
    is_contiguous: bool,
}

/// One dimension: how many steps, and how far each goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dim {
    pub(crate) size: usize,
    pub(crate) stride: usize,
}

impl Layout {
    /// Row-major from offset 0, without gaps.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Overflow`].
    pub fn contiguous(shape: &[usize]) -> Result<Self, LayoutError> {
        Self::contiguous_at(shape, 0)
    }

    /// Row-major from `offset`, without gaps.
    pub(crate) fn contiguous_at(shape: &[usize], offset: usize) -> Result<Self, LayoutError> {
        let mut strides = vec![0; shape.len()];
        let mut step = 1_usize;
        for (stride, &size) in strides.iter_mut().zip(shape).rev() {
            *stride = step;
            step = step
                .checked_mul(size.max(1))
                .ok_or_else(|| LayoutError::Overflow { shape: shape.into() })?;
        }
        Self::checked(shape.into(), strides.into(), offset)
    }

    /// The same shape and strides from offset 0 on.
    pub(crate) fn at_start(&self) -> Self {
        Self {
            dims: self.dims.clone(),
            offset: 0,
            ..*self
        }
    }

    /// Any strides, in a storage of `storage` elements.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Strides`] if the shape and the strides differ in length, [`LayoutError::Overflow`], and
    /// [`LayoutError::OutsideStorage`] if an element lies outside the storage.
    pub fn with_strides(
        shape: &[usize],
        strides: &[usize],
        offset: usize,
        storage: usize,
    ) -> Result<Self, LayoutError> {
        if shape.len() != strides.len() {
            return Err(LayoutError::Strides {
                shape: shape.into(),
                strides: strides.into(),
            });
        }
        let layout = Self::checked(shape.into(), strides.into(), offset)?;
        layout.check_within(storage)?;
        Ok(layout)
    }

    /// The one place that makes a layout: checks the invariants at the head of this module.
    fn checked(shape: Box<[usize]>, strides: Box<[usize]>, offset: usize) -> Result<Self, LayoutError> {
        debug_assert_eq!(shape.len(), strides.len());
        let is_empty = shape.contains(&0);
        let mut product = 1_usize;
        let mut last = Some(offset);
        for (&size, &stride) in shape.iter().zip(strides.iter()) {
            if size > 1 {
                product = product.saturating_mul(size);
                if !is_empty {
                    last = last.and_then(|last| last.checked_add((size - 1).checked_mul(stride)?));
                }
            }
        }
        match last {
            Some(last) if product <= MOST && last < MOST => Ok(Self::of(shape, strides, offset)),
            _ => Err(LayoutError::Overflow { shape }),
        }
    }

    /// A layout that keeps the invariants, because it was checked or is a view of one that was.
    fn of(shape: Box<[usize]>, strides: Box<[usize]>, offset: usize) -> Self {
        let is_empty = shape.contains(&0);
        let elements = if is_empty { 0 } else { shape.iter().product() };
        let wide = || wide_dims(&shape, &strides);
        let reach = if is_empty {
            0
        } else {
            wide().map(|dim| (dim.size - 1) * dim.stride).sum::<usize>() + 1
        };
        let is_contiguous = is_empty || is_packed(wide().rev());
        Self {
            dims: Dims::new(shape, strides),
            offset,
            elements,
            reach,
            is_contiguous,
        }
    }

    /// Refuses a layout with an element outside a storage of `storage` elements.
    ///
    /// # Errors
    ///
    /// [`LayoutError::OutsideStorage`].
    pub fn check_within(&self, storage: usize) -> Result<(), LayoutError> {
        let end = self.span().end;
        if end > storage {
            return Err(LayoutError::OutsideStorage {
                layout: Box::new(self.clone()),
                end,
                storage,
            });
        }
        Ok(())
    }

    /// The number of steps in each dimension, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.dims.shape()
    }

    /// How far apart in storage the neighbours in each dimension are, in elements.
    #[must_use]
    pub fn strides(&self) -> &[usize] {
        self.dims.strides()
    }

    /// Where in storage the first element lies, in elements.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The number of dimensions. None means one element.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// The range of storage from the first element reached to one past the last; empty, at the offset, if there is no
    /// element.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.offset..self.offset + self.reach
    }

    /// Whether the logical order is the order in storage, without gaps: one range of bytes is the whole tensor.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.is_contiguous
    }

    /// Whether the elements fill their [`span`](Self::span), each place once: contiguous, but for the order of the
    /// dimensions.
    #[must_use]
    pub fn is_dense(&self) -> bool {
        self.is_contiguous() || is_packed(self.dims_by_stride().into_iter())
    }

    /// Whether two elements may lie in the same place. `false` is certain; `true` may be wrong for strides that
    /// interleave, such as `[3, 2]` for the shape `[2, 3]`.
    #[must_use]
    pub fn may_overlap(&self) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut reach = 0;
        self.dims_by_stride().into_iter().any(|dim| {
            // Whoever steps past all that the smaller strides reach can't step onto it.
            let steps_onto_it = dim.stride <= reach;
            reach += (dim.size - 1) * dim.stride;
            steps_onto_it
        })
    }

    fn wide_dims(&self) -> impl DoubleEndedIterator<Item = Dim> {
        wide_dims(self.shape(), self.strides())
    }

    fn dims_by_stride(&self) -> Vec<Dim> {
        let mut dims: Vec<_> = self.wide_dims().collect();
        dims.sort_unstable_by_key(|dim| dim.stride);
        dims
    }

    /// The fewest dimensions that visit the same places in the same order, outermost first: without those of one
    /// element, and with neighbours merged where one stride does for both. Only for a layout that is not empty.
    pub(crate) fn coalesced(&self) -> Vec<Dim> {
        debug_assert!(!self.is_empty());
        let mut merged: Vec<Dim> = Vec::with_capacity(self.rank());
        for dim in self.wide_dims() {
            match merged.last_mut() {
                // Within bounds: `(size - 1) * stride` and `stride` are each at most `isize::MAX`.
                Some(outer) if outer.stride == dim.size * dim.stride => {
                    outer.size *= dim.size;
                    outer.stride = dim.stride;
                }
                _ => merged.push(dim),
            }
        }
        merged
    }
}

/// The dimensions with more than one element, outermost first: the ones whose stride counts.
fn wide_dims(shape: &[usize], strides: &[usize]) -> impl DoubleEndedIterator<Item = Dim> {
    let dims = shape.iter().zip(strides).filter(|&(&size, _)| size > 1);
    dims.map(|(&size, &stride)| Dim { size, stride })
}

/// Whether each of `dims`, innermost first, steps exactly over what those before it fill.
fn is_packed(mut dims: impl Iterator<Item = Dim>) -> bool {
    let mut filled = 1;
    dims.all(|dim| {
        let steps_over = dim.stride == filled;
        filled *= dim.size;
        steps_over
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_dimensional_layout_has_one_element() {
        let scalar = Layout::contiguous(&[]).expect("a scalar");
        assert_eq!((scalar.elements(), scalar.span()), (1, 0..1));
        assert!(scalar.is_contiguous() && scalar.is_dense() && !scalar.may_overlap());
        assert_eq!(scalar.coalesced(), []);
    }

    #[test]
    fn an_empty_layout_reaches_nothing() {
        let empty = Layout::with_strides(&[3, 0, 2], &[usize::MAX, 7, 0], 4, 4).expect("empty");
        assert_eq!((empty.elements(), empty.span()), (0, 4..4));
        assert!(empty.is_contiguous() && empty.is_dense() && !empty.may_overlap());
        assert!(Layout::with_strides(&[0], &[1], 5, 4).is_err());
    }

    #[test]
    fn sizes_that_overflow_are_refused_even_beside_a_zero() {
        let half = 1 << (usize::BITS / 2);
        for shape in [
            &[half, half][..],
            &[half, 0, half],
            &[usize::MAX],
            &[0, usize::MAX],
        ] {
            assert_eq!(
                Layout::contiguous(shape),
                Err(LayoutError::Overflow { shape: shape.into() })
            );
        }
        assert!(Layout::with_strides(&[3], &[usize::MAX / 2], 0, usize::MAX).is_err());
        assert!(Layout::with_strides(&[2], &[1], usize::MAX, usize::MAX).is_err());
        assert!(Layout::with_strides(&[half, half], &[0, 0], 0, 1).is_err());
    }

    #[test]
    fn the_stride_of_a_single_step_does_not_count() {
        let layout = Layout::with_strides(&[1, 4, 1], &[usize::MAX, 1, 9], 0, 4).expect("in bounds");
        assert!(layout.is_contiguous());
        assert_eq!(layout.coalesced(), [Dim { size: 4, stride: 1 }]);
    }

    #[test]
    fn an_element_outside_the_storage_is_refused() {
        assert!(Layout::with_strides(&[2, 3], &[5, 1], 2, 10).is_ok());
        let error = Layout::with_strides(&[2, 3], &[5, 1], 3, 10).expect_err("one too far");
        assert!(matches!(
            error,
            LayoutError::OutsideStorage {
                end: 11,
                storage: 10,
                ..
            }
        ));
        assert!(Layout::with_strides(&[2], &[1, 1], 0, 10).is_err());
    }

    #[test]
    fn a_repeated_dimension_overlaps() {
        let repeated = Layout::with_strides(&[4, 2], &[0, 1], 0, 2).expect("in bounds");
        assert!(repeated.may_overlap() && !repeated.is_dense() && !repeated.is_contiguous());
    }

    #[test]
    fn neighbours_merge_where_one_stride_does_for_both() {
        let layout = Layout::with_strides(&[2, 3, 4, 5], &[100, 20, 5, 1], 0, 200).expect("in bounds");
        assert_eq!(
            layout.coalesced(),
            [Dim { size: 2, stride: 100 }, Dim { size: 60, stride: 1 }]
        );
    }
}
