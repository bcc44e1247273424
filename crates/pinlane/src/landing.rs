//! How a tensor's bytes are taken from where they are, and in what layout they land.

use std::ops::Range;

use crate::{Layout, Result, StridedCopy, Tensor};

/// Whether a tensor's elements fill their memory without gaps, so that they land as they lie.
pub(crate) fn keeps_layout(tensor: &Tensor) -> bool {
    let layout = tensor.layout();
    layout.is_contiguous() || (layout.is_dense() && !tensor.dtype().is_sub_byte())
}

/// The layout in which a tensor's elements land somewhere else, and the copy that packs them, where they do not fill
/// their memory without gaps.
pub(crate) fn landing(tensor: &Tensor) -> Result<(Layout, Option<StridedCopy>)> {
    if keeps_layout(tensor) {
        return Ok((tensor.layout().at_start(), None));
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
#[inline]
pub(crate) fn span_bytes(tensor: &Tensor) -> Result<Range<usize>> {
    let span = tensor.layout().span();
    let start = match span.start {
        0 => 0,
        offset => tensor.dtype().bytes_for(offset)?,
    };
    Ok(start..tensor.dtype().bytes_for(span.end)?)
}
