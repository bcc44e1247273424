//! The results of a request, in the order of the tree's tensors, whatever order they are made in.

use crate::{
    Tensor,
    memory::list::{self, List},
};

/// Results, each in the place of the tensor that it is of.
pub(crate) struct Outputs(List<Option<Tensor>>);

impl Outputs {
    /// Room for so many.
    pub(crate) fn with_capacity(tensors: usize) -> Self {
        Self(list::with_capacity(tensors))
    }

    /// Puts the result of the tensor of number `index` in its place.
    #[inline]
    pub(crate) fn put(&mut self, index: usize, output: Tensor) {
        // Where all go the same way, each comes behind the one before.
        if index == self.0.len() {
            self.0.push(Some(output));
            return;
        }
        if index > self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        debug_assert!(self.0[index].is_none(), "tensor {index} has its result already");
        self.0[index] = Some(output);
    }

    /// All, in order; nothing, where tensors that are there already were filled.
    pub(crate) fn in_order(self) -> impl Iterator<Item = Tensor> {
        let present =
            |output: Option<Tensor>| output.expect("each tensor goes one way, which gives its result");
        self.0.into_iter().map(present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn results_come_in_the_order_of_their_tensors_whatever_order_they_are_made_in() {
        let mut outputs = Outputs::with_capacity(2);
        for index in [0, 3, 1, 4, 2] {
            outputs.put(index, Tensor::zeros(DType::U8, &[index]).unwrap());
        }
        let lengths: Vec<_> = outputs.in_order().map(|tensor| tensor.shape()[0]).collect();
        assert_eq!(lengths, [0, 1, 2, 3, 4]);
    }
}
