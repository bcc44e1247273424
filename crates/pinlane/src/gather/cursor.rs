//! Walking the logical order of some dimensions.

use crate::layout::Dim;

/// A place in the logical order of some dimensions.
pub(super) struct Cursor<'a> {
    dims: &'a [Dim],
    /// An index for each dimension.
    pub(super) position: Vec<usize>,
    /// What they amount to in storage, from the first element on.
    pub(super) offset: usize,
}

impl<'a> Cursor<'a> {
    /// The `index`th place.
    pub(super) fn at(dims: &'a [Dim], mut index: usize) -> Self {
        let mut position = vec![0; dims.len()];
        let mut offset = 0;
        for (position, dim) in position.iter_mut().zip(dims).rev() {
            *position = index % dim.size;
            offset += *position * dim.stride;
            index /= dim.size;
        }
        Self {
            dims,
            position,
            offset,
        }
    }

    /// Moves to the next place.
    pub(super) fn next(&mut self) {
        if let Some(innermost) = self.dims.len().checked_sub(1) {
            self.advance(innermost, 1);
        }
    }

    /// Moves `by` steps along `dim`, at most to its end, from where the next dimension outwards takes over. Past the
    /// last place it comes back to the first.
    pub(super) fn advance(&mut self, dim: usize, by: usize) {
        self.position[dim] += by;
        self.offset += by * self.dims[dim].stride;
        for inner in (0..=dim).rev() {
            let Dim { size, stride } = self.dims[inner];
            if self.position[inner] < size {
                return;
            }
            self.position[inner] = 0;
            self.offset -= size * stride;
            if inner > 0 {
                self.position[inner - 1] += 1;
                self.offset += self.dims[inner - 1].stride;
            }
        }
    }
}
