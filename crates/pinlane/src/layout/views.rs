//! Other layouts of the same storage. None of them copies; each keeps to the places that its origin reaches.

use std::ops::Range;

use super::{Dim, Layout, LayoutError};

impl Layout {
    /// The same elements in the same logical order, in another shape.
    ///
    /// # Errors
    ///
    /// [`LayoutError::ElementsDiffer`], [`LayoutError::NeedsCopy`] if no strides over the same storage do it, and
    /// [`LayoutError::Overflow`].
    pub fn reshape(&self, shape: &[usize]) -> Result<Self, LayoutError> {
        let reshaped = Self::contiguous_at(shape, self.offset)?;
        if reshaped.elements() != self.elements() {
            return Err(LayoutError::ElementsDiffer {
                from: self.shape().into(),
                to: shape.into(),
            });
        }
        if self.is_empty() {
            return Ok(reshaped);
        }
        // From the innermost dimension out, the new sizes must divide up each coalesced dimension exactly.
        let mut blocks = self.coalesced().into_iter().rev();
        let mut block = Dim { size: 1, stride: 1 };
        let mut strides = vec![0; shape.len()];
        for (stride, &size) in strides.iter_mut().zip(shape).rev() {
            if block.size == 1 && size > 1 {
                block = blocks.next().expect("as many elements are left as sizes ask for");
            }
            if !block.size.is_multiple_of(size) {
                return Err(LayoutError::NeedsCopy {
                    layout: Box::new(self.clone()),
                    to: shape.into(),
                });
            }
            *stride = block.stride;
            block.size /= size;
            block.stride *= size;
        }
        Self::checked(shape.into(), strides.into(), self.offset)
    }

    /// The dimensions in another order: dimension `i` of the view is dimension `order[i]` of this.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NotAPermutation`].
    pub fn permute(&self, order: &[usize]) -> Result<Self, LayoutError> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.rank()) {
            return Err(LayoutError::NotAPermutation {
                order: order.into(),
                rank: self.rank(),
            });
        }
        let reorder = |numbers: &[usize]| order.iter().map(|&dim| numbers[dim]).collect();
        Ok(Self::of(
            reorder(self.shape()),
            reorder(self.strides()),
            self.offset,
        ))
    }

    /// Two dimensions exchanged.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NoSuchDim`].
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self, LayoutError> {
        self.dim(a)?;
        self.dim(b)?;
        let swapped = |numbers: &[usize]| {
            let mut numbers: Box<[usize]> = numbers.into();
            numbers.swap(a, b);
            numbers
        };
        Ok(Self::of(
            swapped(self.shape()),
            swapped(self.strides()),
            self.offset,
        ))
    }

    /// Every `step`th index of `range` in one dimension. An empty view keeps the offset.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NoSuchDim`], [`LayoutError::OutsideDim`], and [`LayoutError::ZeroStep`].
    ///
    /// ```
    /// # use pinlane::Layout;
    /// let odd = Layout::contiguous(&[8])?.slice(0, 1..8, 2)?;
    /// assert_eq!((odd.shape(), odd.strides(), odd.offset()), (&[4][..], &[2][..], 1));
    /// # Ok::<(), pinlane::LayoutError>(())
    /// ```
    pub fn slice(&self, dim: usize, range: Range<usize>, step: usize) -> Result<Self, LayoutError> {
        let Dim { size, stride } = self.dim(dim)?;
        if step == 0 {
            return Err(LayoutError::ZeroStep { dim });
        }
        if range.start > range.end || range.end > size {
            return Err(LayoutError::OutsideDim {
                dim,
                start: range.start,
                end: range.end,
                size,
            });
        }
        let mut shape: Box<[usize]> = self.shape().into();
        let mut strides: Box<[usize]> = self.strides().into();
        let mut offset = self.offset;
        shape[dim] = range.len().div_ceil(step);
        if !shape.contains(&0) {
            offset += range.start * stride;
            if shape[dim] > 1 {
                strides[dim] = stride * step;
            }
        }
        Ok(Self::of(shape, strides, offset))
    }

    /// One index of a dimension, which is gone from the view.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NoSuchDim`] and [`LayoutError::OutsideDim`].
    pub fn select(&self, dim: usize, index: usize) -> Result<Self, LayoutError> {
        self.slice(dim, index..index.saturating_add(1), 1)?.squeeze(dim)
    }

    /// Without a dimension, whose size is 1.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NoSuchDim`] and [`LayoutError::NotSqueezable`].
    pub fn squeeze(&self, dim: usize) -> Result<Self, LayoutError> {
        let Dim { size, .. } = self.dim(dim)?;
        if size != 1 {
            return Err(LayoutError::NotSqueezable { dim, size });
        }
        let without = |numbers: &[usize]| [&numbers[..dim], &numbers[dim + 1..]].concat().into();
        Ok(Self::of(
            without(self.shape()),
            without(self.strides()),
            self.offset,
        ))
    }

    /// With a new dimension of size 1 in front of dimension `dim`, or behind the last.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NoSuchDim`] if `dim` is more than the rank.
    pub fn unsqueeze(&self, dim: usize) -> Result<Self, LayoutError> {
        if dim > self.rank() {
            return Err(LayoutError::NoSuchDim {
                dim,
                rank: self.rank(),
            });
        }
        let with = |numbers: &[usize]| [&numbers[..dim], &[1], &numbers[dim..]].concat().into();
        Ok(Self::of(with(self.shape()), with(self.strides()), self.offset))
    }

    /// Repeated to `shape`: sizes are matched from the right, those of 1 and the missing ones repeat with a stride of
    /// 0 (torch's broadcasting).
    ///
    /// # Errors
    ///
    /// [`LayoutError::NotExpandable`] and [`LayoutError::Overflow`].
    ///
    /// ```
    /// # use pinlane::Layout;
    /// let row = Layout::contiguous(&[3])?.expand(&[4, 3])?;
    /// assert_eq!((row.elements(), row.span(), row.may_overlap()), (12, 0..3, true));
    /// # Ok::<(), pinlane::LayoutError>(())
    /// ```
    pub fn expand(&self, shape: &[usize]) -> Result<Self, LayoutError> {
        let not_expandable = || LayoutError::NotExpandable {
            from: self.shape().into(),
            to: shape.into(),
        };
        let added = shape.len().checked_sub(self.rank()).ok_or_else(not_expandable)?;
        let mut strides = vec![0; added];
        for (dim, &size) in shape[added..].iter().enumerate() {
            strides.push(match self.shape()[dim] {
                own if own == size => self.strides()[dim],
                1 => 0,
                _ => return Err(not_expandable()),
            });
        }
        Self::checked(shape.into(), strides.into(), self.offset)
    }

    fn dim(&self, dim: usize) -> Result<Dim, LayoutError> {
        if dim >= self.rank() {
            return Err(LayoutError::NoSuchDim {
                dim,
                rank: self.rank(),
            });
        }
        Ok(Dim {
            size: self.shape()[dim],
            stride: self.strides()[dim],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contiguous(shape: &[usize]) -> Layout {
        Layout::contiguous(shape).expect("a small shape")
    }

    #[test]
    fn a_reshape_splits_and_merges_what_strides_allow() {
        let gap = Layout::with_strides(&[4, 6], &[10, 1], 0, 40).expect("in bounds");
        let split = gap.reshape(&[2, 2, 1, 3, 2]).expect("splits only");
        assert_eq!(split.strides(), [20, 10, 6, 2, 1]);
        assert_eq!(split.reshape(&[4, 6]).expect("merges back").strides(), [10, 1]);
        let error = gap.reshape(&[24]).expect_err("there is a gap");
        assert!(error.to_string().contains("contiguous()"), "{error}");
        assert!(
            contiguous(&[2, 3])
                .transpose(0, 1)
                .expect("two dims")
                .reshape(&[6])
                .is_err()
        );
    }

    #[test]
    fn a_reshape_to_another_number_of_elements_is_refused() {
        assert!(matches!(
            contiguous(&[2, 3]).reshape(&[7]),
            Err(LayoutError::ElementsDiffer { .. })
        ));
        assert!(contiguous(&[2, 3]).reshape(&[0]).is_err());
        assert!(contiguous(&[]).reshape(&[1, 1]).is_ok());
        assert!(contiguous(&[1]).reshape(&[]).is_ok());
        assert!(contiguous(&[3, 0]).reshape(&[0, 9, 9]).is_ok());
    }

    #[test]
    fn a_slice_to_the_end_of_an_empty_tensor_stays_where_it_is() {
        let empty = contiguous(&[5, 0]).slice(0, 5..5, 1).expect("nothing");
        assert_eq!((empty.offset(), empty.shape()), (0, &[0, 0][..]));
        assert_eq!(contiguous(&[5]).slice(0, 5..5, 3).expect("nothing").offset(), 0);
    }

    #[test]
    fn a_slice_outside_its_dimension_is_refused() {
        let layout = contiguous(&[5]);
        for range in [Range { start: 3, end: 2 }, 0..6, 6..6] {
            assert!(matches!(
                layout.slice(0, range, 1),
                Err(LayoutError::OutsideDim { .. })
            ));
        }
        assert_eq!(layout.slice(0, 0..5, 0), Err(LayoutError::ZeroStep { dim: 0 }));
        assert!(layout.slice(1, 0..1, 1).is_err());
        assert!(layout.select(0, 5).is_err());
        assert!(layout.select(0, usize::MAX).is_err());
    }

    #[test]
    fn a_step_longer_than_the_dimension_takes_its_first_index() {
        let one = contiguous(&[5]).slice(0, 2..5, usize::MAX).expect("one index");
        assert_eq!((one.shape(), one.span()), (&[1][..], 2..3));
    }

    #[test]
    fn an_order_that_is_no_permutation_is_refused() {
        let layout = contiguous(&[2, 3, 4]);
        assert_eq!(layout.permute(&[2, 0, 1]).expect("an order").shape(), [4, 2, 3]);
        for order in [&[0, 1][..], &[0, 1, 1], &[0, 1, 3], &[0, 1, 2, 3]] {
            assert!(layout.permute(order).is_err());
        }
        assert!(layout.transpose(0, 3).is_err());
    }

    #[test]
    fn dimensions_of_one_come_and_go() {
        let layout = contiguous(&[2, 3]);
        for dim in 0..=2 {
            let more = layout.unsqueeze(dim).expect("up to the rank");
            assert_eq!(more.squeeze(dim), Ok(layout.clone()));
        }
        assert!(layout.unsqueeze(3).is_err());
        assert_eq!(
            layout.squeeze(0),
            Err(LayoutError::NotSqueezable { dim: 0, size: 2 })
        );
    }

    #[test]
    fn only_a_size_of_one_expands() {
        let column = contiguous(&[3, 1]);
        assert_eq!(column.expand(&[2, 3, 4]).expect("repeats").strides(), [0, 1, 0]);
        assert_eq!(column.expand(&[3, 0]).expect("repeats never").elements(), 0);
        for shape in [&[3][..], &[6, 1], &[3, 1, 1]] {
            assert!(column.expand(shape).is_err());
        }
        assert!(matches!(
            column.expand(&[usize::MAX, 3, 1]),
            Err(LayoutError::Overflow { .. })
        ));
    }
}
