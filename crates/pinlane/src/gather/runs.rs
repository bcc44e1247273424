//! The runs of storage that packed bytes come from, for what is not in memory.

use std::ops::Range;

use super::{StridedCopy, cursor::Cursor};

impl StridedCopy {
    /// The runs of storage, in bytes, that make up the packed bytes `range`, in their order.
    ///
    /// # Panics
    ///
    /// When the range ends behind the last byte.
    pub(crate) fn runs(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        assert!(range.end <= self.bytes, "{range:?} of {}", self.bytes);
        let unit = self.unit.max(1);
        let mut cursor = Cursor::at(&self.dims, range.start / unit);
        let mut into_unit = range.start % unit;
        let mut left = range.len();
        std::iter::from_fn(move || {
            let bytes = left.min(unit - into_unit);
            if bytes == 0 {
                return None;
            }
            let start = self.span.start + cursor.offset + into_unit;
            cursor.next();
            into_unit = 0;
            left -= bytes;
            Some(start..start + bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use crate::{DType, Layout, StridedCopy};

    proptest! {
        #[test]
        fn the_runs_of_a_range_are_what_gathering_it_copies(
            shape in proptest::collection::vec(1_usize..6, 1..4),
            swap: bool,
            step in 1_usize..3,
            wide: bool,
            from in 0.0..1.0_f64,
            to in 0.0..1.0_f64,
        ) {
            let dtype = if wide { DType::I32 } else { DType::U8 };
            let mut layout = Layout::contiguous(&shape).unwrap();
            let last = shape.len() - 1;
            if swap {
                layout = layout.transpose(0, last).unwrap();
            }
            layout = layout.slice(last, 0..layout.shape()[last], step).unwrap();
            let storage: Vec<u8> = (0..dtype.bytes_for(shape.iter().product()).unwrap()).map(|byte| byte as u8).collect();
            let copy = StridedCopy::new(&layout, dtype).unwrap();
            let place = |part: f64| (part * copy.bytes() as f64) as usize;
            let range = place(from.min(to))..place(from.max(to));
            let mut packed = vec![0; range.len()];
            copy.gather_slice(&storage, range.start, &mut packed).unwrap();
            let runs: Vec<u8> = copy.runs(range).flat_map(|run| storage[run].to_vec()).collect();
            prop_assert_eq!(runs, packed);
        }
    }
}
