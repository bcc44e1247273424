//! What is read is what the file holds, for any pieces and any way of reading, and every failure names the tensor.

use std::{io::ErrorKind, time::Duration};

use pinlane_driver::{
    sim::{Alive, Machine, MachineConfig},
    sync::{atomic::Ordering, lock},
};
use proptest::{prelude::*, sample::Index};

use super::{
    FileAccess, FileSink,
    faulty::{FaultyFile, FaultySink, MOST, NOWHERE},
    source::PAGE,
};
use crate::{DType, Device, DeviceOptions, Error, Tensor, TransferOptions, Tree};

const SLOT: usize = 64 << 10;

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u64)
        .map(|index| ((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 37) as u8)
        .collect()
}

/// A device with an engine of its own, and its simulator, to see that nothing is left behind.
struct Rig {
    machine: Machine,
    device: Device,
}

impl Rig {
    fn new(slot_bytes: usize) -> Self {
        let machine = Machine::new(MachineConfig::default());
        let options = DeviceOptions {
            pinned_budget: Some(16 * slot_bytes),
            lanes: Some(2),
            slots_per_lane: Some(2),
            slot_bytes: Some(slot_bytes),
            profile: None,
        };
        let device = Device::with_options(machine.device(0).unwrap(), &options).unwrap();
        Self { machine, device }
    }

    /// What tensors hold that were moved to the device and back.
    fn there_and_back(&self, tensors: &Vec<Tensor>) -> Vec<Vec<u8>> {
        let there = tensors.to(&self.device).unwrap();
        bytes_of(&there.to(&Device::host()).unwrap())
    }

    fn finish(self) {
        let Self { machine, device } = self;
        assert_eq!(device.stats().unwrap().leaked_bytes, 0);
        drop(device);
        let sim = machine.sim(0).unwrap();
        for _ in 0..2_000 {
            if sim.alive() == Alive::default() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sim.alive(), Alive::default());
        assert_eq!(sim.freed_in_use(), 0);
    }
}

/// The elements of tensors on the host, in their order.
fn bytes_of(tensors: &[Tensor]) -> Vec<Vec<u8>> {
    tensors
        .iter()
        .map(|tensor| tensor.contiguous().unwrap().as_bytes().unwrap().to_vec())
        .collect()
}

/// A tensor in a file, as a view of a matrix of bytes.
#[derive(Clone, Debug)]
struct View {
    offset: Index,
    rows: usize,
    columns: usize,
    row_range: (Index, Index),
    row_step: usize,
    column_range: (Index, Index),
    column_step: usize,
    transposed: bool,
    /// Above 1: the view again and again.
    repeated: usize,
}

fn views() -> impl Strategy<Value = View> {
    let indices = || (any::<Index>(), any::<Index>());
    let sizes = prop_oneof![
        3 => (1_usize..20, 1_usize..20),
        2 => (1_usize..5, 1_usize..40_000),
        1 => (1_usize..40_000, 1_usize..4),
    ];
    (
        any::<Index>(),
        sizes,
        indices(),
        1_usize..3,
        indices(),
        1_usize..3,
        any::<bool>(),
        1_usize..4,
    )
        .prop_map(
            |(
                offset,
                (rows, columns),
                row_range,
                row_step,
                column_range,
                column_step,
                transposed,
                repeated,
            )| View {
                offset,
                rows,
                columns,
                row_range,
                row_step,
                column_range,
                column_step,
                transposed,
                repeated,
            },
        )
}

impl View {
    /// The view, of a tensor in a file as of one in memory.
    fn of(&self, tensor: &Tensor) -> Tensor {
        let part = |(a, b): (Index, Index), size: usize| {
            let (a, b) = (a.index(size + 1), b.index(size + 1));
            a.min(b)..a.max(b)
        };
        let tensor = tensor
            .slice(0, part(self.row_range, self.rows), self.row_step)
            .unwrap();
        let columns = part(self.column_range, self.columns);
        let tensor = tensor.slice(1, columns, self.column_step).unwrap();
        let tensor = if self.transposed {
            tensor.transpose(0, 1).unwrap()
        } else {
            tensor
        };
        if self.repeated == 1 || !tensor.layout().is_contiguous() {
            return tensor;
        }
        let [rows, columns] = *tensor.shape() else {
            unreachable!("a matrix")
        };
        let tensor = tensor.reshape(&[1, rows, columns]).unwrap();
        tensor.expand(&[self.repeated, rows, columns]).unwrap()
    }

    /// The view in a file and in memory.
    fn both(&self, file: &FaultyFile, source: &super::FileSource) -> (Tensor, Tensor) {
        let bytes = self.rows * self.columns;
        let offset = self.offset.index(file.content.len() - bytes + 1);
        let shape = [self.rows, self.columns];
        let in_file = source.tensor(offset as u64, DType::U8, &shape).unwrap();
        let held = file.content[offset..][..bytes].to_vec();
        let in_memory = Tensor::from_bytes(held, DType::U8, &shape).unwrap();
        (self.of(&in_file), self.of(&in_memory))
    }
}

fn accesses() -> impl Strategy<Value = FileAccess> {
    prop_oneof![
        Just(FileAccess::Auto),
        Just(FileAccess::Buffered),
        Just(FileAccess::Direct)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_lands_is_what_the_file_holds_however_it_is_read(
        views in prop::collection::vec(views(), 1..12),
        access in accesses(),
        most in prop_oneof![Just(MOST), 1000_usize..50_000],
        interrupted in 0_usize..5,
        cached in any::<(Index, Index)>(),
        has_direct: bool,
        refuses_direct: bool,
        wide: bool,
        into: bool,
    ) {
        let mut file = FaultyFile::new(pattern(300_000));
        let (a, b) = (cached.0.index(300_000) as u64, cached.1.index(300_000) as u64);
        file.cached = a.min(b)..a.max(b);
        file.most = most;
        file.interrupted = if interrupted == 1 { 0 } else { interrupted };
        file.has_direct = has_direct;
        file.refuses_direct = refuses_direct;
        let source = file.source(access);
        let (in_file, in_memory): (Vec<_>, Vec<_>) =
            views.iter().map(|view| view.both(&file, &source)).unzip();
        let rig = Rig::new(if wide { SLOT } else { PAGE as usize });
        let expected = bytes_of(&in_memory);
        prop_assert!(rig.there_and_back(&in_file) == expected);
        prop_assert!(bytes_of(&in_file.to(&Device::host()).unwrap()) == expected);
        if into {
            let places = in_memory.iter().map(|tensor| Tensor::zeros(DType::U8, tensor.shape()).unwrap());
            let places: Vec<_> = places.collect();
            let mut there = places.to(&rig.device).unwrap();
            in_file.copy_into(&mut there).unwrap();
            prop_assert!(bytes_of(&there.to(&Device::host()).unwrap()) == expected);
            let mut here = places;
            in_file.copy_into(&mut here).unwrap();
            prop_assert!(bytes_of(&here) == expected);
            drop(there);
        }
        rig.finish();
    }

    #[test]
    fn a_bad_byte_fails_the_tensor_it_belongs_to_and_nothing_afterwards(
        sizes in prop::collection::vec(1_usize..30_000, 1..12),
        bad in any::<Index>(),
        shrinks: bool,
        access in accesses(),
        cached: bool,
        to_host: bool,
    ) {
        let bytes: usize = sizes.iter().sum();
        let mut file = FaultyFile::new(pattern(bytes));
        if !cached {
            file.cached = 0..0;
        }
        let source = file.source(access);
        let mut offset = 0;
        let tensors: Vec<_> = sizes.iter().map(|&size| {
            let tensor = source.tensor(offset, DType::U8, &[size]).unwrap();
            offset += size as u64;
            tensor
        }).collect();
        let bad = bad.index(bytes) as u64;
        let fault = if shrinks { &file.end } else { &file.bad };
        fault.store(bad, Ordering::Relaxed);
        let rig = Rig::new(SLOT);
        let to = if to_host { Device::host() } else { rig.device.clone() };
        let failed = tensors.to(&to).unwrap_err();
        drop(to);
        let Error::Leaf { path, source } = &failed else {
            panic!("no tensor is named: {failed}");
        };
        // Past the cache, whatever shares the page is read with it.
        let index: usize = path.trim_start_matches('#').parse().unwrap();
        let start: usize = sizes[..index].iter().sum();
        let near = (start as u64).saturating_sub(PAGE)..(start + sizes[index]) as u64 + PAGE;
        prop_assert!(near.contains(&bad), "{failed}, but {bad} is bad");
        let told = source.to_string();
        prop_assert!(matches!(**source, Error::File { .. }), "{told}");
        prop_assert!(told.contains("faulty") && told.contains(&format!("at offset {start}")), "{told}");
        fault.store(bytes as u64, Ordering::Relaxed);
        file.bad.store(NOWHERE, Ordering::Relaxed);
        let expected: Vec<_> = {
            let mut rest = &file.content[..];
            sizes.iter().map(|&size| {
                let (head, tail) = rest.split_at(size);
                rest = tail;
                head.to_vec()
            }).collect()
        };
        prop_assert!(rig.there_and_back(&tensors) == expected);
        prop_assert_eq!(rig.device.stats().unwrap().pinned.leased, 8 * SLOT, "the slots, and nothing else");
        rig.finish();
    }
}

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

#[test]
fn many_small_neighbours_in_a_file_are_read_by_a_few_calls() {
    let (count, bytes) = (2000, 96);
    let file = FaultyFile::new(pattern(count * bytes));
    let source = file.source(FileAccess::Auto);
    // In no order of the file's.
    let tensors: Vec<_> = (0..count)
        .map(|index| (index * 7 % count * bytes) as u64)
        .map(|offset| source.tensor(offset, DType::U8, &[bytes]).unwrap())
        .collect();
    let rig = Rig::new(SLOT);
    let expected: Vec<_> = (0..count)
        .map(|index| file.content[index * 7 % count * bytes..][..bytes].to_vec())
        .collect();
    assert!(rig.there_and_back(&tensors) == expected);
    // A slot holds 256 of them, since each is aligned.
    assert!(file.calls() <= 2 * (count / 256 + 1), "{} calls", file.calls());
    rig.finish();
}

#[test]
fn what_is_not_in_the_page_cache_is_read_past_it_and_straight_into_the_slots() {
    let bytes = 40 * SLOT;
    let mut file = FaultyFile::new(pattern(bytes + 3000));
    file.cached = 0..0;
    let source = file.source(FileAccess::Auto);
    let tensor = source.tensor(1234, DType::U8, &[bytes]).unwrap();
    let rig = Rig::new(4 * SLOT);
    let plans = tensor.plan(&rig.device, &TransferOptions::default()).unwrap();
    assert!(rig.there_and_back(&vec![tensor]) == [&file.content[1234..][..bytes]]);
    // But for what is too short to ask about.
    assert!(file.direct_calls() + 2 >= file.calls());
    // One for each chunk, and one for each end of the tensor.
    assert!(
        file.calls() <= plans[0].chunks() + 4,
        "{} calls for {} chunks",
        file.calls(),
        plans[0].chunks()
    );
    rig.finish();
}
