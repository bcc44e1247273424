//! The strided copy: a tensor's elements out of storage into a packed run of bytes, and back.
//!
//! A pinned slot holds the tensor's elements in logical order without gaps: *packed*. [`StridedCopy`] is worked out once
//! for a tensor and then copies any range of the packed bytes, so that a tensor can be cut into chunks wherever a slot
//! happens to end, also in the middle of an element.
//!
//! How: dimensions are first merged as far as they go. What then is contiguous innermost, or else one element, is a
//! *unit*; the copy visits units in logical order.
//!
//! - No dimension left: the range is one `memcpy`.
//! - Else one line of units after another, each a tight loop compiled for its unit's width where that is that of an
//!   element, a `memcpy` for each unit where it is longer.
//! - Where an outer dimension is the contiguous one in storage and the innermost jumps from cache line to cache line, as
//!   in a transposed matrix, lines would fetch a cache line for each element. There, whole rows of that outer dimension
//!   are transposed in tiles. A range with less than two such rows still goes line by line.

mod cursor;
mod runs;
mod transpose;

use std::{ops::Range, ptr};

use self::{
    cursor::Cursor,
    transpose::{CACHE_LINE, Lines, transpose},
};
use crate::{DType, Layout, LayoutError, layout::Dim};

/// The widest unit that has a loop of its own.
const WIDEST_ELEMENT: usize = 16;

/// A copy between strided storage and packed bytes, worked out once and done range by range.
///
/// ```
/// use pinlane::{DType, Layout, StridedCopy};
///
/// let storage = *b"abcdef";
/// let transposed = Layout::contiguous(&[2, 3])?.transpose(0, 1)?;
/// let copy = StridedCopy::new(&transposed, DType::U8)?;
///
/// let mut packed = [0; 6];
/// copy.gather_slice(&storage, 0, &mut packed[..4])?;
/// copy.gather_slice(&storage, 4, &mut packed[4..])?;
/// assert_eq!(&packed, b"adbecf");
/// # Ok::<(), pinlane::LayoutError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StridedCopy {
    /// What is left of the dimensions around the unit, outermost first; strides in bytes.
    dims: Box<[Dim]>,
    /// The bytes that lie together in storage as in the packed order.
    unit: usize,
    /// The bytes of storage that are reached into.
    span: Range<usize>,
    /// The packed bytes.
    bytes: usize,
    /// The dimension to tile with the innermost, where that pays.
    tiled: Option<usize>,
}

impl StridedCopy {
    /// Works out the copy of the elements of `layout`, each a `dtype`.
    ///
    /// # Errors
    ///
    /// [`LayoutError::DType`] if the bytes overflow or end within a byte, and [`LayoutError::SharedBytes`] for elements
    /// narrower than a byte that are not contiguous from a whole byte on.
    pub fn new(layout: &Layout, dtype: DType) -> Result<Self, LayoutError> {
        let bytes = dtype.bytes_for(layout.elements())?;
        let Some(element_bytes) = dtype.element_bytes() else {
            if !layout.is_contiguous() {
                return Err(LayoutError::SharedBytes { dtype });
            }
            let start = dtype
                .bytes_for(layout.offset())
                .map_err(|_| LayoutError::SharedBytes { dtype })?;
            let end = dtype.bytes_for(layout.span().end)?;
            return Ok(Self::one_run(start..end));
        };
        let span = layout.span();
        let span = dtype.bytes_for(span.start)?..dtype.bytes_for(span.end)?;
        if layout.is_contiguous() {
            return Ok(Self::one_run(span));
        }
        let mut dims: Vec<_> = layout
            .coalesced()
            .into_iter()
            .map(|dim| Dim {
                size: dim.size,
                stride: dim.stride * element_bytes,
            })
            .collect();
        let unit = match dims.pop_if(|innermost| innermost.stride == element_bytes) {
            Some(innermost) => innermost.size * element_bytes,
            None => element_bytes,
        };
        Ok(Self {
            tiled: tiled_dim(&dims, unit),
            dims: dims.into(),
            unit,
            span,
            bytes,
        })
    }

    fn one_run(span: Range<usize>) -> Self {
        Self {
            dims: Box::default(),
            unit: span.len().max(1),
            bytes: span.len(),
            span,
            tiled: None,
        }
    }

    /// The size of the packed elements in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of storage that the elements reach into. Where [`is_contiguous`](Self::is_contiguous), they are the
    /// packed bytes.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether every range is one `memcpy`.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.dims.is_empty()
    }

    /// Copies the packed bytes `range` out of `storage` to `packed`.
    ///
    /// # Safety
    ///
    /// `range` ends at or before [`bytes`](Self::bytes). The bytes [`span`](Self::span) past `storage` can be read,
    /// `range.len()` bytes from `packed` on can be written, the two do not overlap, and nobody else writes the former
    /// or touches the latter meanwhile.
    pub unsafe fn gather(&self, storage: *const u8, range: Range<usize>, packed: *mut u8) {
        // SAFETY: the caller's promise; with `GATHER`, storage is only read.
        unsafe { self.copy::<true>(storage.cast_mut(), range, packed) }
    }

    /// Copies `packed` into `storage`, where it becomes the packed bytes `range`. Where elements overlap, any of them
    /// stays.
    ///
    /// # Safety
    ///
    /// As for [`gather`](Self::gather), with reading and writing exchanged.
    pub unsafe fn scatter(&self, storage: *mut u8, range: Range<usize>, packed: *const u8) {
        // SAFETY: the caller's promise; without `GATHER`, packed is only read.
        unsafe { self.copy::<false>(storage, range, packed.cast_mut()) }
    }

    /// [`gather`](Self::gather) of the range from byte `start` on that fills `packed`, with every promise checked.
    ///
    /// # Errors
    ///
    /// [`LayoutError::OutsideTensor`] if the tensor has not so many bytes, or the storage fewer than it needs.
    pub fn gather_slice(&self, storage: &[u8], start: usize, packed: &mut [u8]) -> Result<(), LayoutError> {
        let range = self.checked_range(storage.len(), start, packed.len())?;
        // SAFETY: the range and the span are checked, and the borrows keep the two apart and everybody else out.
        unsafe { self.gather(storage.as_ptr(), range, packed.as_mut_ptr()) };
        Ok(())
    }

    /// [`scatter`](Self::scatter) of `packed`, the range from byte `start` on, with every promise checked.
    ///
    /// # Errors
    ///
    /// As for [`gather_slice`](Self::gather_slice).
    pub fn scatter_slice(&self, storage: &mut [u8], start: usize, packed: &[u8]) -> Result<(), LayoutError> {
        let range = self.checked_range(storage.len(), start, packed.len())?;
        // SAFETY: the range and the span are checked, and the borrows keep the two apart and everybody else out.
        unsafe { self.scatter(storage.as_mut_ptr(), range, packed.as_ptr()) };
        Ok(())
    }

    fn checked_range(&self, storage: usize, start: usize, bytes: usize) -> Result<Range<usize>, LayoutError> {
        match start.checked_add(bytes) {
            Some(end) if end <= self.bytes && self.span.end <= storage => Ok(start..end),
            _ => Err(LayoutError::OutsideTensor {
                start,
                bytes,
                packed: self.bytes,
                span: self.span.end,
                storage,
            }),
        }
    }

    /// Out of storage if `GATHER`, else into it.
    ///
    /// # Safety
    ///
    /// As for [`gather`](Self::gather) or [`scatter`](Self::scatter).
    unsafe fn copy<const GATHER: bool>(&self, storage: *mut u8, range: Range<usize>, mut packed: *mut u8) {
        debug_assert!(range.end <= self.bytes, "{range:?} of {}", self.bytes);
        if range.is_empty() {
            return;
        }
        // SAFETY: the span starts within storage; a range that is not empty is within it, and so is every offset that
        // the cursor takes below, since it names an element. Packed holds what the parts of the range add up to.
        unsafe {
            let base = storage.add(self.span.start);
            if self.is_contiguous() {
                return copy_bytes::<GATHER>(base.add(range.start), packed, range.len());
            }
            let mut cursor = Cursor::at(&self.dims, range.start / self.unit);
            let mut left = range.len();

            let into_unit = range.start % self.unit;
            if into_unit != 0 {
                let part = left.min(self.unit - into_unit);
                copy_bytes::<GATHER>(base.add(cursor.offset + into_unit), packed, part);
                cursor.next();
                packed = packed.add(part);
                left -= part;
            }
            let whole = left / self.unit;
            match self.unit {
                1 => self.copy_units::<GATHER, 1>(base, &mut cursor, whole, packed),
                2 => self.copy_units::<GATHER, 2>(base, &mut cursor, whole, packed),
                4 => self.copy_units::<GATHER, 4>(base, &mut cursor, whole, packed),
                8 => self.copy_units::<GATHER, 8>(base, &mut cursor, whole, packed),
                16 => self.copy_units::<GATHER, 16>(base, &mut cursor, whole, packed),
                _ => self.copy_runs::<GATHER>(base, &mut cursor, whole, packed),
            }
            if !left.is_multiple_of(self.unit) {
                packed = packed.add(whole * self.unit);
                copy_bytes::<GATHER>(base.add(cursor.offset), packed, left % self.unit);
            }
        }
    }

    /// Copies `units` units of `UNIT` bytes from the cursor on, and moves it past them.
    ///
    /// # Safety
    ///
    /// `base` is where the first element lies; there are as many units, and room for them in `packed`.
    unsafe fn copy_units<const GATHER: bool, const UNIT: usize>(
        &self,
        base: *mut u8,
        cursor: &mut Cursor<'_>,
        units: usize,
        mut packed: *mut u8,
    ) {
        let innermost = self.dims.len() - 1;
        let line = self.dims[innermost];
        let mut left = units;
        while left > 0 {
            // SAFETY: the cursor is at an element, and the units of the line or of the tiled block are all in bounds.
            let copied = unsafe {
                let strided = base.add(cursor.offset);
                if let Some((dim, rows, block)) = self.tiled_block(cursor, left) {
                    self.copy_tiled::<GATHER, UNIT>(strided, dim, rows, packed);
                    cursor.advance(dim, rows);
                    rows * block
                } else {
                    let count = left.min(line.size - cursor.position[innermost]);
                    copy_line::<GATHER, UNIT>(strided, line.stride, packed, count);
                    cursor.advance(innermost, count);
                    count
                }
            };
            // SAFETY: at most the end of what the caller gave.
            packed = unsafe { packed.add(copied * UNIT) };
            left -= copied;
        }
    }

    /// As [`copy_units`](Self::copy_units), for units that have no loop of their own.
    ///
    /// # Safety
    ///
    /// As for [`copy_units`](Self::copy_units).
    unsafe fn copy_runs<const GATHER: bool>(
        &self,
        base: *mut u8,
        cursor: &mut Cursor<'_>,
        units: usize,
        mut packed: *mut u8,
    ) {
        let innermost = self.dims.len() - 1;
        let line = self.dims[innermost];
        let mut left = units;
        while left > 0 {
            let count = left.min(line.size - cursor.position[innermost]);
            for index in 0..count {
                // SAFETY: the cursor is at an element, the line goes on for `count`, and there is room for each unit.
                unsafe {
                    let strided = base.add(cursor.offset + index * line.stride);
                    copy_bytes::<GATHER>(strided, packed, self.unit);
                    packed = packed.add(self.unit);
                }
            }
            cursor.advance(innermost, count);
            left -= count;
        }
    }

    /// If the cursor is at the start of a row of the tiled dimension, and `left` reaches over several of them: that
    /// dimension, how many rows, and the units of one.
    fn tiled_block(&self, cursor: &Cursor<'_>, left: usize) -> Option<(usize, usize, usize)> {
        let dim = self.tiled?;
        if cursor.position[dim + 1..].iter().any(|&position| position != 0) {
            return None;
        }
        let block: usize = self.dims[dim + 1..].iter().map(|dim| dim.size).product();
        let rows = (left / block).min(self.dims[dim].size - cursor.position[dim]);
        (rows > 1).then_some((dim, rows, block))
    }

    /// Copies `rows` rows of dimension `tiled`, each of all that is inside it, in tiles.
    ///
    /// # Safety
    ///
    /// The rows are in bounds from `strided` on, and there is room for them in `packed`.
    unsafe fn copy_tiled<const GATHER: bool, const UNIT: usize>(
        &self,
        strided: *mut u8,
        tiled: usize,
        rows: usize,
        packed: *mut u8,
    ) {
        let between = &self.dims[tiled + 1..self.dims.len() - 1];
        let planes: usize = between.iter().map(|dim| dim.size).product();
        let line = self.dims[self.dims.len() - 1];
        let mut cursor = Cursor::at(between, 0);
        for plane in 0..planes {
            // SAFETY: the cursor names an element of the dimensions between, and each plane is a part of the rows.
            unsafe {
                let columns = Lines {
                    first: strided.add(cursor.offset),
                    stride: line.stride,
                    count: line.size,
                };
                let rows = Lines {
                    first: packed.add(plane * line.size * UNIT),
                    stride: planes * line.size * UNIT,
                    count: rows,
                };
                if GATHER {
                    transpose::<UNIT>(columns.as_source(), rows);
                } else {
                    transpose::<UNIT>(rows.as_source(), columns);
                }
            }
            cursor.next();
        }
    }
}

/// The outer dimension, if any, that is contiguous in storage while the innermost jumps over cache lines.
fn tiled_dim(dims: &[Dim], unit: usize) -> Option<usize> {
    let (innermost, outer) = dims.split_last()?;
    let has_a_loop = unit <= WIDEST_ELEMENT && unit.is_power_of_two();
    if !has_a_loop || innermost.stride < CACHE_LINE {
        return None;
    }
    outer.iter().position(|dim| dim.stride == unit)
}

/// Copies `count` units of `UNIT` bytes.
///
/// # Safety
///
/// They are in bounds from `strided` and from `packed` on.
#[inline]
unsafe fn copy_line<const GATHER: bool, const UNIT: usize>(
    strided: *mut u8,
    stride: usize,
    packed: *mut u8,
    count: usize,
) {
    for index in 0..count {
        // SAFETY: the caller's promise.
        unsafe { copy_unit::<GATHER, UNIT>(strided.add(index * stride), packed.add(index * UNIT)) };
    }
}

/// Copies one unit; with a width known to the compiler, that is one load and one store.
///
/// # Safety
///
/// It is in bounds at both ends.
#[inline(always)]
unsafe fn copy_unit<const GATHER: bool, const UNIT: usize>(strided: *mut u8, packed: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { copy_bytes::<GATHER>(strided, packed, UNIT) }
}

/// Copies `bytes` bytes that lie together at both ends.
///
/// # Safety
///
/// They are in bounds at both ends.
#[inline(always)]
unsafe fn copy_bytes<const GATHER: bool>(strided: *mut u8, packed: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if GATHER {
            ptr::copy_nonoverlapping(strided, packed, bytes);
        } else {
            ptr::copy_nonoverlapping(packed, strided, bytes);
        }
    }
}
