//! What can be wrong with a layout, a view of one, or a copy along one.

use super::{Layout, MOST};
use crate::{DType, DTypeError};

/// A layout that can't be, or can't be viewed in the way that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// More elements, or elements further out, than memory can have.
    #[error(
        "a tensor of shape {shape:?} does not fit in memory: it has, or reaches to, more than {MOST} elements"
    )]
    Overflow {
        /// The shape asked for.
        shape: Box<[usize]>,
    },
    /// As many strides as dimensions are needed.
    #[error(
        "the shape {shape:?} and the strides {strides:?} differ in length; give one stride for each dimension"
    )]
    Strides {
        /// The shape asked for.
        shape: Box<[usize]>,
        /// The strides given.
        strides: Box<[usize]>,
    },
    /// An element outside the storage.
    #[error(
        "the shape {:?} with strides {:?} from offset {} reaches to element {end} of a storage of {storage}",
        layout.shape(), layout.strides(), layout.offset()
    )]
    OutsideStorage {
        /// The layout asked for.
        layout: Box<Layout>,
        /// The end of its span, in elements.
        end: usize,
        /// The size of the storage, in elements.
        storage: usize,
    },
    /// There is no such dimension.
    #[error("dimension {dim} was named, but the tensor has {rank}; they count from 0")]
    NoSuchDim {
        /// The dimension named.
        dim: usize,
        /// The number of dimensions.
        rank: usize,
    },
    /// A dimension is missing or named twice.
    #[error("{order:?} is not an order of the {rank} dimensions; name each from 0 on once")]
    NotAPermutation {
        /// The order asked for.
        order: Box<[usize]>,
        /// The number of dimensions.
        rank: usize,
    },
    /// A shape of another number of elements.
    #[error("a tensor of shape {from:?} can't be reshaped to {to:?}: the numbers of elements differ")]
    ElementsDiffer {
        /// The tensor's shape.
        from: Box<[usize]>,
        /// The shape asked for.
        to: Box<[usize]>,
    },
    /// No strides give that shape over the same storage.
    #[error(
        "a tensor of shape {:?} with strides {:?} can't be seen as {to:?} without a copy; call contiguous() first",
        layout.shape(), layout.strides()
    )]
    NeedsCopy {
        /// The tensor's layout.
        layout: Box<Layout>,
        /// The shape asked for.
        to: Box<[usize]>,
    },
    /// Only dimensions of size 1, or new ones, can be repeated.
    #[error(
        "a tensor of shape {from:?} can't be expanded to {to:?}: sizes match from the right, or are 1 before"
    )]
    NotExpandable {
        /// The tensor's shape.
        from: Box<[usize]>,
        /// The shape asked for.
        to: Box<[usize]>,
    },
    /// A slice that goes beyond its dimension, or backwards.
    #[error("the range {start}..{end} was taken of dimension {dim}, which has the size {size}")]
    OutsideDim {
        /// The dimension.
        dim: usize,
        /// The first index asked for.
        start: usize,
        /// One past the last index asked for.
        end: usize,
        /// The dimension's size.
        size: usize,
    },
    /// A slice with a step of zero.
    #[error("dimension {dim} was sliced with a step of 0; the smallest is 1")]
    ZeroStep {
        /// The dimension.
        dim: usize,
    },
    /// A dimension to be removed that has not one element.
    #[error("dimension {dim} has the size {size}; only one of size 1 can be squeezed away")]
    NotSqueezable {
        /// The dimension.
        dim: usize,
        /// Its size.
        size: usize,
    },
    /// Elements that share bytes lie one after another or not at all.
    #[error(
        "elements of {dtype} share bytes, so they can only be moved where they are contiguous and start with a whole \
         byte; unpack them first"
    )]
    SharedBytes {
        /// The elements' type.
        dtype: DType,
    },
    /// A copy of bytes that the tensor or its storage does not have.
    #[error(
        "a copy of {bytes} bytes from byte {start} on goes beyond the tensor's {packed} bytes, or its storage of \
         {storage} bytes is shorter than the {span} that the layout reaches"
    )]
    OutsideTensor {
        /// The first byte asked for, in logical order.
        start: usize,
        /// How many bytes were asked for.
        bytes: usize,
        /// How many bytes the tensor has.
        packed: usize,
        /// The bytes of storage that the layout reaches.
        span: usize,
        /// The bytes of storage there are.
        storage: usize,
    },
    /// The elements' type does not fit.
    #[error(transparent)]
    DType(#[from] DTypeError),
}
