//! Views of a tensor: other shapes and parts of the same bytes.

use std::ops::Range;

use super::Tensor;
use crate::{HostMemory, Layout, Result, StridedCopy};

/// # Views
///
/// All share the tensor's bytes and copy nothing, wherever it is.
impl Tensor {
    /// The same elements in another shape.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`](crate::Error::Layout) where the number of elements differs, or where the strides would need a
    /// copy.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        self.view(self.layout.reshape(shape)?)
    }

    /// The dimensions in another order.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`](crate::Error::Layout) where `order` is not a permutation of the dimensions.
    pub fn permute(&self, order: &[usize]) -> Result<Self> {
        self.view(self.layout.permute(order)?)
    }

    /// Two dimensions exchanged.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`](crate::Error::Layout) where there is no such dimension.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        self.view(self.layout.transpose(a, b)?)
    }

    /// Every `step`-th index of `range` in dimension `dim`.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`](crate::Error::Layout) where the dimension or the range does not exist, or `step` is 0.
    pub fn slice(&self, dim: usize, range: Range<usize>, step: usize) -> Result<Self> {
        self.view(self.layout.slice(dim, range, step)?)
    }

    /// Dimensions of size 1 repeated to `shape`, without copying.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`](crate::Error::Layout) where the shapes do not fit.
    pub fn expand(&self, shape: &[usize]) -> Result<Self> {
        self.view(self.layout.expand(shape)?)
    }

    pub(crate) fn view(&self, layout: Layout) -> Result<Self> {
        Ok(Self {
            dtype: self.dtype,
            layout,
            storage: self.storage.clone(),
        })
    }

    /// The elements packed in row-major order: this tensor if they are, else a copy in pageable memory.
    ///
    /// # Errors
    ///
    /// [`Error::NotOnHost`](crate::Error::NotOnHost) where they would have to be copied and are not in host memory.
    pub fn contiguous(&self) -> Result<Self> {
        if self.layout.is_contiguous() {
            return Ok(self.clone());
        }
        let storage = self.host_bytes("packing a tensor")?;
        let copy = StridedCopy::new(&self.layout, self.dtype)?;
        HostMemory::Pageable.build(self.dtype, self.shape(), |packed| {
            Ok(copy.gather_slice(storage, 0, packed)?)
        })
    }
}
