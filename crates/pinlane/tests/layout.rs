//! Layouts and strided copies against the definition, element by element.

use std::collections::HashMap;

use pinlane::{DType, Layout, StridedCopy};
use proptest::prelude::*;

/// The place in storage of each element, in logical order: the definition of a layout.
fn places(layout: &Layout) -> Vec<usize> {
    let mut places = vec![layout.offset()];
    if layout.is_empty() {
        return Vec::new();
    }
    for (&size, &stride) in layout.shape().iter().zip(layout.strides()) {
        places = places
            .into_iter()
            .flat_map(|place| (0..size).map(move |index| place + if index == 0 { 0 } else { index * stride }))
            .collect();
    }
    places
}

/// Any small strides: gaps, repetition, overlap, no element, no dimension.
fn any_strides() -> impl Strategy<Value = Layout> {
    let dims = prop::collection::vec((prop_oneof![1 => 0_usize..1, 9 => 1_usize..5], 0_usize..30), 0..5);
    (dims, 0_usize..10).prop_map(|(dims, offset)| {
        let (shape, strides): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
        Layout::with_strides(&shape, &strides, offset, usize::MAX).expect("small")
    })
}

/// What views make of a contiguous tensor, large enough for every way of copying.
fn view() -> impl Strategy<Value = Layout> {
    let size = prop_oneof![Just(1_usize), 2_usize..6, 15_usize..40, 120_usize..150];
    let order = Just((0..4).collect::<Vec<usize>>()).prop_shuffle();
    let slice = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        1_usize..4,
    );
    let slices = prop::collection::vec(prop::option::weighted(0.3, slice), 4);
    (prop::collection::vec(size, 4), order, slices, 1_usize..4).prop_map(
        |(mut shape, order, slices, repeat)| {
            while shape.iter().product::<usize>() > 40_000 {
                *shape.iter_mut().max().expect("four") /= 2;
            }
            let mut layout = Layout::contiguous(&shape).expect("small");
            for (dim, slice) in slices.into_iter().enumerate() {
                if let Some((start, end, step)) = slice {
                    let start = start.index(shape[dim]);
                    let end = start + 1 + end.index(shape[dim] - start);
                    layout = layout.slice(dim, start..end, step).expect("within");
                }
            }
            layout = layout.permute(&order).expect("an order");
            if repeat > 1 {
                let at = layout.rank() - 2;
                layout = layout.unsqueeze(at).expect("within");
                let mut shape = layout.shape().to_vec();
                shape[at] = repeat;
                layout = layout.expand(&shape).expect("one expands");
            }
            layout
        },
    )
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![any_strides(), view()]
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::U8, DType::BF16, DType::F32, DType::C64, DType::C128])
}

/// Bytes that differ from their neighbours near and far.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|index| (index.wrapping_mul(0x9E37_79B9) >> 13) as u8)
        .collect()
}

fn naive_gather(layout: &Layout, element_bytes: usize, storage: &[u8]) -> Vec<u8> {
    places(layout)
        .into_iter()
        .flat_map(|place| &storage[place * element_bytes..][..element_bytes])
        .copied()
        .collect()
}

/// The ranges that `cuts` divide `bytes` into.
fn chunks(bytes: usize, cuts: &[prop::sample::Index]) -> Vec<std::ops::Range<usize>> {
    let mut ends: Vec<_> = cuts
        .iter()
        .map(|cut| cut.index(bytes + 1))
        .chain([0, bytes])
        .collect();
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_gather_in_any_chunks_is_the_copy_element_by_element(
        layout in layout(),
        dtype in dtype(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let element_bytes = dtype.element_bytes().expect("whole bytes");
        let storage = noise(layout.span().end * element_bytes);
        let copy = StridedCopy::new(&layout, dtype).expect("small");
        prop_assert_eq!(copy.bytes(), layout.elements() * element_bytes);
        prop_assert!(copy.span().end <= storage.len());

        let mut packed = vec![0xAA; copy.bytes()];
        for range in chunks(copy.bytes(), &cuts) {
            copy.gather_slice(&storage, range.start, &mut packed[range]).expect("within");
        }
        prop_assert!(packed == naive_gather(&layout, element_bytes, &storage));
    }

    #[test]
    fn a_scatter_in_any_chunks_undoes_the_gather_and_leaves_the_gaps_alone(
        layout in layout(),
        dtype in dtype(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        prop_assume!(!layout.may_overlap());
        let element_bytes = dtype.element_bytes().expect("whole bytes");
        let copy = StridedCopy::new(&layout, dtype).expect("small");
        let packed = noise(copy.bytes());
        let mut storage = vec![0xAA; layout.span().end * element_bytes + 3];
        for range in chunks(copy.bytes(), &cuts) {
            copy.scatter_slice(&mut storage, range.start, &packed[range]).expect("within");
        }

        prop_assert!(packed == naive_gather(&layout, element_bytes, &storage));
        let mut expected = vec![0xAA; storage.len()];
        for (place, element) in places(&layout).into_iter().zip(packed.chunks_exact(element_bytes)) {
            expected[place * element_bytes..][..element_bytes].copy_from_slice(element);
        }
        prop_assert!(storage == expected);
    }

    #[test]
    fn the_span_is_the_first_to_the_last_place(layout in layout()) {
        let places = places(&layout);
        let span = layout.span();
        prop_assert_eq!(places.len(), layout.elements());
        prop_assert_eq!(span.start, places.iter().copied().min().unwrap_or(layout.offset()));
        prop_assert_eq!(span.end, places.iter().map(|place| place + 1).max().unwrap_or(layout.offset()));
        prop_assert!(layout.check_within(span.end).is_ok());
        prop_assert!(span.end == 0 || layout.check_within(span.end - 1).is_err());
    }

    #[test]
    fn contiguous_dense_and_overlapping_mean_what_they_say(layout in layout()) {
        let places = places(&layout);
        let mut visits = HashMap::new();
        for place in &places {
            *visits.entry(*place).or_insert(0) += 1;
        }
        let overlaps = visits.values().any(|&count| count > 1);
        let fills = visits.len() == layout.span().len();

        prop_assert_eq!(layout.is_contiguous(), places.iter().copied().eq(layout.span()));
        prop_assert_eq!(layout.is_dense(), !overlaps && fills);
        prop_assert!(layout.may_overlap() || !overlaps);
        prop_assert!(!layout.is_dense() || !layout.may_overlap());
    }

    #[test]
    fn a_reshape_that_succeeds_visits_the_same_places(
        layout in layout(),
        splits in prop::collection::vec(1_usize..5, 0..4),
    ) {
        let mut left = layout.elements();
        let mut shape = Vec::new();
        for split in splits {
            if left % split == 0 {
                shape.push(split);
                left /= split;
            }
        }
        shape.push(left);
        if let Ok(reshaped) = layout.reshape(&shape) {
            prop_assert_eq!(reshaped.shape(), &shape[..]);
            prop_assert_eq!(places(&reshaped), places(&layout));
        } else {
            prop_assert!(!layout.is_contiguous());
        }
        prop_assert_eq!(places(&layout.reshape(layout.shape()).expect("the same shape")), places(&layout));
    }

    #[test]
    fn a_reshape_that_fails_has_no_strides_that_would_do(layout in any_strides(), split in any::<prop::sample::Index>()) {
        let elements = layout.elements();
        prop_assume!(elements > 0);
        let divisors: Vec<_> = (1..=elements).filter(|divisor| elements % divisor == 0).collect();
        let split = *split.get(&divisors);
        let shape = [split, elements / split];
        if layout.reshape(&shape).is_err() {
            let places = places(&layout);
            // The first step of each dimension tells the only strides that there could be.
            let stride = |index: usize| places.get(index).and_then(|place| place.checked_sub(places[0]));
            let outer = if split > 1 { stride(shape[1]) } else { Some(0) };
            let inner = if shape[1] > 1 { stride(1) } else { Some(0) };
            if let (Some(outer), Some(inner)) = (outer, inner) {
                let only = Layout::with_strides(&shape, &[outer, inner], layout.offset(), usize::MAX);
                prop_assert_ne!(self::places(&only.expect("small")), places);
            }
        }
    }

    #[test]
    fn a_slice_of_a_permutation_is_the_permutation_of_the_slice(
        layout in any_strides(),
        seed in any::<prop::sample::Index>(),
        start in any::<prop::sample::Index>(),
        end in any::<prop::sample::Index>(),
        step in 1_usize..4,
    ) {
        prop_assume!(layout.rank() > 0);
        let dim = seed.index(layout.rank());
        let size = layout.shape()[dim];
        let start = start.index(size + 1);
        let end = start + end.index(size - start + 1);
        let other = layout.rank() - 1;

        let first = layout.slice(dim, start..end, step).unwrap().transpose(dim, other).unwrap();
        let then = layout.transpose(dim, other).unwrap().slice(other, start..end, step).unwrap();
        prop_assert_eq!(&first, &then);

        // And it takes those elements whose index in that dimension is in the slice.
        let moved = places(&layout.transpose(dim, 0).unwrap());
        let row = moved.len() / size.max(1);
        let kept: Vec<_> = (start..end).step_by(step).flat_map(|index| &moved[index * row..][..row]).collect();
        prop_assert!(places(&first.transpose(dim, other).unwrap().transpose(dim, 0).unwrap()).iter().eq(kept));
    }
}

#[test]
fn elements_that_share_bytes_move_only_where_they_are_contiguous() {
    let layout = Layout::contiguous(&[4, 4]).unwrap();
    let copy = StridedCopy::new(&layout, DType::F6E2M3).unwrap();
    assert_eq!((copy.bytes(), copy.is_contiguous()), (12, true));
    assert!(StridedCopy::new(&layout.transpose(0, 1).unwrap(), DType::F6E2M3).is_err());

    let rows = layout.slice(0, 1..3, 1).unwrap();
    assert_eq!(StridedCopy::new(&rows, DType::F6E2M3).unwrap().span(), 3..9);
    let middle = Layout::contiguous(&[8]).unwrap().slice(0, 1..3, 1).unwrap();
    assert!(StridedCopy::new(&middle, DType::F4).is_err());
}

#[test]
fn a_copy_beyond_the_tensor_or_its_storage_is_refused() {
    let layout = Layout::contiguous(&[2, 3]).unwrap().transpose(0, 1).unwrap();
    let copy = StridedCopy::new(&layout, DType::U16).unwrap();
    let storage = [0; 12];
    assert!(copy.gather_slice(&storage, 2, &mut [0; 10]).is_ok());
    assert!(copy.gather_slice(&storage, 3, &mut [0; 10]).is_err());
    assert!(copy.gather_slice(&storage, usize::MAX, &mut [0; 2]).is_err());
    assert!(copy.gather_slice(&storage[..11], 0, &mut [0; 2]).is_err());
    assert!(copy.scatter_slice(&mut [0; 12], 12, &[0]).is_err());
}

#[test]
fn bytes_that_overflow_are_refused() {
    let most = isize::MAX as usize;
    let repeated = Layout::with_strides(&[most], &[0], 0, 1).unwrap();
    assert!(StridedCopy::new(&repeated, DType::U8).is_ok());
    assert!(StridedCopy::new(&repeated, DType::I16).is_err());
    let far = Layout::with_strides(&[2], &[most / 2], 0, most).unwrap();
    assert!(StridedCopy::new(&far, DType::F32).is_err());
}
