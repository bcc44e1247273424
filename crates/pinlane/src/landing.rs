//! How a tensor's bytes are taken from where they are, and in what layout they land.

use std::ops::Range;

use crate::{Layout, Result, StridedCopy, Tensor};

/// The layout in which a tensor's elements land somewhere else, and the copy that packs them, where they do not fill
/// their memory without gaps.
pub(crate) fn landing(tensor: &Tensor) -> Result<(Layout, Option<StridedCopy>)> {
    let layout = tensor.layout();
    if layout.is_dense() && !tensor.dtype().is_sub_byte() {
        return Ok((layout.at_start(), None));
    }
    packing(tensor)
}

/// The copy that packs a tensor's elements in their logical order, where they do not lie so already.
pub(crate) fn packing(tensor: &Tensor) -> Result<(Layout, Option<StridedCopy>)> {
    let layout = tensor.layout();
    if layout.is_contiguous() {
        return Ok((layout.at_start(), None));
    }
    let copy = StridedCopy::new(layout, tensor.dtype())?;
    Ok((Layout::contiguous(layout.shape())?, Some(copy)))
}

/// The bytes of the storage that a tensor's elements reach from first to last.
pub(crate) fn span_bytes(tensor: &Tensor) -> Result<Range<usize>> {
    let span = tensor.layout().span();
    Ok(tensor.dtype().bytes_for(span.start)?..tensor.dtype().bytes_for(span.end)?)
}
