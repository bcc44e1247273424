//! Shape and strides.

use pinlane_driver::sync::Arc;

/// So many dimensions lie in the layout itself.
const FEW: usize = 4;

/// The size of each dimension, and how far apart its neighbours are.
///
/// Most tensors have few dimensions. Then they are where the tensor is: to copy them is no allocation and no count of
/// references, and to read them fetches nothing from elsewhere in memory, as it would at each of a long list of tensors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dims {
    /// What is behind the last dimension is zero. A rank of one byte, with its padding, would be copied in pieces that the
    /// next copy waits for.
    Few {
        rank: usize,
        shape: [usize; FEW],
        strides: [usize; FEW],
    },
    Many(Arc<Many>),
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Many {
    shape: Box<[usize]>,
    strides: Box<[usize]>,
}

impl Dims {
    /// As many strides as sizes.
    pub(super) fn new(shape: Box<[usize]>, strides: Box<[usize]>) -> Self {
        if shape.len() > FEW {
            return Self::Many(Arc::new(Many { shape, strides }));
        }
        let padded = |numbers: &[usize]| {
            let mut padded = [0; FEW];
            padded[..numbers.len()].copy_from_slice(numbers);
            padded
        };
        Self::Few {
            rank: shape.len(),
            shape: padded(&shape),
            strides: padded(&strides),
        }
    }

    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Few { rank, shape, .. } => &shape[..*rank],
            Self::Many(many) => &many.shape,
        }
    }

    pub(super) fn strides(&self) -> &[usize] {
        match self {
            Self::Few { rank, strides, .. } => &strides[..*rank],
            Self::Many(many) => &many.strides,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_dimensions_are_told_like_few() {
        for rank in 0..=FEW + 2 {
            let shape: Box<[usize]> = (1..=rank).collect();
            let strides: Box<[usize]> = (10..10 + rank).collect();
            let dims = Dims::new(shape.clone(), strides.clone());
            assert_eq!((dims.shape(), dims.strides()), (&*shape, &*strides));
            assert_eq!(dims, Dims::new(shape.clone(), strides.clone()));
            if rank > 0 {
                let mut other = strides.clone();
                other[rank - 1] += 1;
                assert_ne!(dims, Dims::new(shape.clone(), other));
                assert_ne!(dims, Dims::new(shape[1..].into(), strides[1..].into()));
            }
        }
    }
}
