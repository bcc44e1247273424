//! Writing: any tensors, any way, any fault.

use std::{
    fs::File,
    io::{ErrorKind, IoSlice},
    os::unix::fs::FileExt as _,
};

use pinlane_driver::sync::{atomic::Ordering, lock};
use proptest::{prelude::*, sample::Index};
use rustix::fs::MemfdFlags;

use super::{
    super::{
        FileAccess, FileSink,
        faulty::{FaultyFile, FaultySink, MOST, NOWHERE},
        mapped::Mapped,
        source::PAGE,
    },
    Rig, SLOT, pattern, views,
};
use crate::{DType, Error, Tensor, Tree};

/// Where tensors of these sizes go in a file: one behind the other, with gaps.
fn laid_out(sizes: &[(usize, usize)]) -> (Vec<u64>, usize) {
    let mut end = 0;
    let mut offsets = Vec::new();
    for &(gap, bytes) in sizes {
        offsets.push((end + gap) as u64);
        end += gap + bytes;
    }
    (offsets, end)
}

/// Bytes that nobody writes.
const UNTOUCHED: u8 = 0xA5;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_what_the_tensors_hold_and_nothing_beside(
        views in prop::collection::vec((views(), 0_usize..3, any::<bool>()), 1..12),
        gaps in prop::collection::vec(prop_oneof![Just(0), 0_usize..5000], 12),
        most in prop_oneof![Just(MOST), 1000_usize..50_000],
        interrupted in 0_usize..5,
        direct: bool,
        refuses_direct: bool,
        wide: bool,
    ) {
        let rig = Rig::new(if wide { SLOT } else { PAGE as usize });
        let file = FaultyFile::new(pattern(300_000));
        let source = file.source(FileAccess::Auto);
        let mut tensors = Vec::new();
        let mut expected = Vec::new();
        for (view, from, on_device) in &views {
            let (in_file, in_memory) = view.both(&file, &source);
            expected.push(in_memory.contiguous().unwrap().as_bytes().unwrap().to_vec());
            tensors.push(match (from, on_device) {
                (0, _) => in_file,
                (1, true) => in_memory.to(&rig.device).unwrap(),
                (_, true) => {
                    let whole = Tensor::from_bytes(file.content.to_vec(), DType::U8, &[300_000]).unwrap();
                    let there = whole.to(&rig.device).unwrap();
                    let start = view.offset.index(300_000 - view.rows * view.columns + 1);
                    let matrix = there.slice(0, start..start + view.rows * view.columns, 1).unwrap();
                    view.of(&matrix.reshape(&[view.rows, view.columns]).unwrap())
                }
                (_, false) => in_memory,
            });
        }
        let sizes: Vec<_> = expected.iter().zip(&gaps).map(|(bytes, &gap)| (gap, bytes.len())).collect();
        let (offsets, end) = laid_out(&sizes);
        let mut written = FaultySink::new(vec![UNTOUCHED; end + 100]);
        written.most = most;
        written.interrupted = if interrupted == 1 { 0 } else { interrupted };
        written.refuses_direct = refuses_direct;
        let sink = written.sink(direct);
        let places: Vec<_> = offsets.iter().map(|&offset| (sink.clone(), offset)).collect();
        tensors.write_to(&places).unwrap();
        let mut whole = vec![UNTOUCHED; end + 100];
        for (bytes, &offset) in expected.iter().zip(&offsets) {
            whole[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        prop_assert!(*lock(&written.content) == whole);
        drop(tensors);
        rig.finish();
    }

    #[test]
    fn a_full_disk_fails_the_tensor_it_has_no_room_for_and_nothing_afterwards(
        sizes in prop::collection::vec((0_usize..100, 1_usize..100_000), 1..8),
        full in any::<Index>(),
        direct: bool,
        from_host: bool,
    ) {
        let rig = Rig::new(SLOT);
        let (offsets, end) = laid_out(&sizes);
        let tensors: Vec<_> = sizes.iter().enumerate().map(|(seed, &(_, bytes))| {
            let mut held = pattern(bytes);
            held[0] = seed as u8;
            Tensor::from_bytes(held, DType::U8, &[bytes]).unwrap()
        }).collect();
        let moved = if from_host { tensors.clone() } else { tensors.to(&rig.device).unwrap() };
        let written = FaultySink::new(vec![UNTOUCHED; end]);
        let sink = written.sink(direct);
        let places: Vec<_> = offsets.iter().map(|&offset| (sink.clone(), offset)).collect();
        let (index, start) = {
            let index = full.index(sizes.len());
            (index, offsets[index])
        };
        let bad = start + full.index(sizes[index].1) as u64;
        written.full.store(bad, Ordering::Relaxed);
        let failed = moved.write_to(&places).unwrap_err();
        let Error::Leaf { path, source } = &failed else {
            panic!("no tensor is named: {failed}");
        };
        prop_assert_eq!(path, &format!("#{index}"), "{}", failed);
        let told = source.to_string();
        let is_full = matches!(&**source, Error::File { source, .. } if source.kind() == ErrorKind::StorageFull);
        prop_assert!(is_full);
        prop_assert!(told.contains("faulty") && told.contains("writing") && told.contains("at offset"), "{told}");
        written.full.store(NOWHERE, Ordering::Relaxed);
        moved.write_to(&places).unwrap();
        for (tensor, &offset) in tensors.iter().zip(&offsets) {
            let held = tensor.as_bytes().unwrap();
            prop_assert!(lock(&written.content)[offset as usize..][..held.len()] == *held);
        }
        drop(moved);
        rig.finish();
    }
}

#[test]
fn long_tensors_are_written_past_the_page_cache_straight_from_the_slots() {
    let rig = Rig::new(4 * SLOT);
    let bytes = 40 * SLOT;
    let tensor = Tensor::from_bytes(pattern(bytes), DType::U8, &[bytes]).unwrap();
    let there = tensor.to(&rig.device).unwrap();
    let written = FaultySink::new(vec![UNTOUCHED; bytes + 1234]);
    there.write_to(&[(written.sink(true), 1234)]).unwrap();
    assert!(lock(&written.content)[1234..] == *tensor.as_bytes().unwrap());
    let (calls, direct) = (
        written.calls.load(Ordering::Relaxed),
        written.direct_calls.load(Ordering::Relaxed),
    );
    assert!(direct >= 10 && calls <= direct + 2, "{direct} of {calls}");
    drop(there);
    rig.finish();
}

/// Ways to have a file mapped: as this system allows it, and as others may.
const MAPPINGS: [fn(&File, u64) -> Option<Mapped>; 2] = [Mapped::of, Mapped::that_copies];

/// A file in memory, and a sink that writes it by way of a mapping.
fn mapped_sink(bytes: usize, map: fn(&File, u64) -> Option<Mapped>) -> (File, FileSink) {
    let file = rustix::fs::memfd_create("mapped", MemfdFlags::empty()).unwrap();
    let file = File::from(file);
    file.set_len(bytes as u64).unwrap();
    let mapped = map(&file, bytes as u64);
    assert!(mapped.is_some());
    let writer = Box::new(file.try_clone().unwrap());
    (
        file,
        FileSink::of(writer, "memory".into(), bytes as u64, false, mapped),
    )
}

#[test]
fn a_file_in_memory_is_written_by_way_of_its_mapping_wherever_tensors_lie_in_it() {
    let rig = Rig::new(4 * SLOT);
    let sizes: Vec<_> = [300_000, 1, 4096, 70_001, 4095, 700_000, 64 << 10]
        .into_iter()
        .enumerate()
        .map(|(index, bytes)| (index * 1000 % 4097, bytes))
        .collect();
    let (offsets, end) = laid_out(&sizes);
    let tensors: Vec<_> = sizes
        .iter()
        .map(|&(_, bytes)| Tensor::from_bytes(pattern(bytes), DType::U8, &[bytes]).unwrap())
        .collect();
    let mut expected = vec![0; end];
    for (tensor, &offset) in tensors.iter().zip(&offsets) {
        let held = tensor.as_bytes().unwrap();
        expected[offset as usize..][..held.len()].copy_from_slice(held);
    }
    for map in MAPPINGS {
        for moved in [&tensors.to(&rig.device).unwrap(), &tensors] {
            let (file, sink) = mapped_sink(end, map);
            let places: Vec<_> = offsets.iter().map(|&offset| (sink.clone(), offset)).collect();
            // The second time pages are there already.
            for _ in 0..2 {
                moved.write_to(&places).unwrap();
                assert!(sink.opened().mapped().is_some(), "it was not given up");
                let mut found = vec![0; end];
                file.read_exact_at(&mut found, 0).unwrap();
                assert!(found == expected);
                file.write_all_at(&vec![0; end], 0).unwrap();
            }
        }
    }
    rig.finish();
}

#[test]
fn a_mapping_is_told_that_its_file_became_shorter_and_nobody_is_killed() {
    let bytes = 1 << 20;
    let held = pattern(bytes);
    for map in MAPPINGS {
        let (file, sink) = mapped_sink(bytes, map);
        let mapped = sink.opened().mapped().unwrap();
        assert_eq!(mapped.write_at(&[IoSlice::new(&held)], 0).unwrap(), bytes);
        let behind = mapped.write_at(&[IoSlice::new(&held)], PAGE);
        assert!(behind.is_err(), "behind its end is other memory");
        file.set_len(2 * PAGE).unwrap();
        let cut_off = mapped.write_at(&[IoSlice::new(&held[..PAGE as usize])], 2 * PAGE);
        assert_eq!(cut_off.unwrap_err().raw_os_error(), Some(libc::EFAULT));

        // Without it there is a way.
        let tensor = Tensor::from_bytes(held.clone(), DType::U8, &[bytes]).unwrap();
        tensor.write_to(&[(sink.clone(), 0)]).unwrap();
        let mut found = vec![0; bytes];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == held);
    }
}

#[test]
fn a_device_that_is_full_is_told_by_the_system() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let sink = FileSink::over(Box::new(full), "/dev/full".into(), 1 << 20, false);
    let tensor = Tensor::zeros(DType::U8, &[1 << 20]).unwrap();
    let rig = Rig::new(SLOT);
    for tensor in [tensor.to(&rig.device).unwrap(), tensor] {
        let failed = tensor.write_to(&[(sink.clone(), 0)]).unwrap_err();
        assert!(failed.to_string().contains("/dev/full"), "{failed}");
    }
    rig.finish();
}

#[test]
fn more_than_a_disk_holds_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let refused = FileSink::create(&path, 1 << 62).unwrap_err();
    assert!(
        matches!(&refused, Error::File { path: found, .. } if *found == path),
        "{refused}"
    );
    let sink = FileSink::create(&path, 10).unwrap();
    let tensor = Tensor::zeros(DType::U8, &[4]).unwrap();
    let refused = tensor.write_to(&[(sink.clone(), 7)]).unwrap_err();
    assert!(refused.to_string().contains("behind the end"), "{refused}");
    tensor.write_to(&[(sink, 6)]).unwrap();
}
