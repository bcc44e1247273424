//! From files to devices and the host.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "a slice in one dimension is one range"
)]

use std::{fs, path::Path};

use pinlane::{
    DType, Device, Error, HostMemory, Tensor, TensorMap, Tree,
    checkpoint::{self, Checkpoint, CheckpointError, Names, SaveOptions},
    driver::{
        ErrorKind,
        sim::{DeviceConfig, MachineConfig},
    },
};

use crate::{
    assert_same, map,
    rig::{Rig, pattern, small_engine},
    tensor,
};

const SLOT: usize = 64 << 10;

fn rig(devices: usize) -> Rig {
    Rig::new(devices, &small_engine(2, 2, SLOT))
}

/// Tensors of many sizes, in the order in which a file holds them: widest dtype first, then by name.
fn model() -> TensorMap {
    map([
        ("a.long".to_owned(), tensor(DType::I64, &[3, 5], 1)),
        ("a.wide".to_owned(), tensor(DType::F32, &[1000, 300], 2)),
        ("b.small".to_owned(), tensor(DType::F32, &[], 3)),
        ("b.odd".to_owned(), tensor(DType::U8, &[77_777], 4)),
        ("c.none".to_owned(), tensor(DType::U8, &[0, 9], 5)),
        ("c.odd".to_owned(), tensor(DType::U8, &[3], 6)),
    ])
}

fn saved(folder: &Path) -> Checkpoint {
    let path = folder.join("model.safetensors");
    checkpoint::save(&model(), &path, &SaveOptions::new()).unwrap();
    Checkpoint::open(path).unwrap()
}

#[test]
fn what_was_saved_is_loaded_to_a_device_and_to_both_kinds_of_host_memory() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let checkpoint = saved(folder.path());
    let there = checkpoint.load(rig.device()).unwrap();
    assert!(
        there
            .flatten()
            .all(|(_, tensor)| tensor.device() == *rig.device())
    );
    assert_same(&there.to(&Device::host()).unwrap(), &model());
    assert_same(&checkpoint.load(&Device::host()).unwrap(), &model());
    let none = checkpoint.filter(|_| false);
    assert!(none.load(rig.device()).unwrap().is_empty());
    assert!(none.stream(rig.device()).unwrap().next().is_none());
    let small = checkpoint.filter(|entry| entry.bytes() < 1000);
    let pinned = small.load_pinned(rig.device()).unwrap();
    assert!(pinned.is_pinned());
    assert_same(&pinned, &small.load(&Device::host()).unwrap());
    drop((there, pinned));
    rig.finish();
}

#[test]
fn neighbours_in_a_file_move_as_one_run_of_its_bytes() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let checkpoint = saved(folder.path());
    let [first, last] = ["a.wide", "b.odd"].map(|name| checkpoint.get(name).unwrap());
    let run = first.file_range().start..last.file_range().end;
    let whole = fs::read(first.shard().path()).unwrap();
    for device in [rig.device().clone(), Device::host()] {
        let there = first.shard().range(run.clone()).unwrap().to(&device).unwrap();
        let back = there.to(&Device::host()).unwrap();
        assert!(back.as_bytes().unwrap() == &whole[run.start as usize..run.end as usize]);
    }
    let beyond = first
        .shard()
        .range(run.start..whole.len() as u64 + 1)
        .unwrap_err();
    assert!(beyond.to_string().contains("model.safetensors"), "{beyond}");
    rig.finish();
}

#[test]
fn tensors_that_a_file_does_not_align_arrive_whole() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let path = folder.path().join("model.safetensors");
    let json = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[70000],"data_offsets":[1,560001]},
        "c":{"dtype":"I16","shape":[2],"data_offsets":[560001,560005]}}"#;
    crate::write(&path, json, 560_005);
    let bytes = pattern(560_005, 1);
    for device in [rig.device(), &Device::host()] {
        let loaded = pinlane::load(&path, device).unwrap().to(&Device::host()).unwrap();
        for (name, range) in [("a", 0..1), ("b", 1..560_001), ("c", 560_001..560_005)] {
            assert!(
                loaded.get(name).unwrap().as_bytes().unwrap() == &bytes[range],
                "{name}"
            );
        }
        assert_eq!(loaded.get("c").unwrap().as_slice::<i16>().unwrap().len(), 2);
    }
    rig.finish();
}

#[test]
fn a_tensor_without_a_name_is_loaded_by_no_map_and_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    crate::write(
        &path,
        r#"{"":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#,
        3,
    );
    let checkpoint = Checkpoint::open(&path).unwrap();
    for refused in [
        checkpoint.load(&Device::host()).unwrap_err(),
        checkpoint.load_to_each(|_| Device::host()).unwrap_err(),
    ] {
        assert!(matches!(refused, Error::BadName { .. }), "{refused}");
    }
    let (name, tensor) = checkpoint
        .stream(&Device::host())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(
        (name.as_str(), tensor.as_bytes().unwrap()),
        ("", &pattern(3, 1)[..])
    );
}

#[test]
fn each_tensor_goes_to_the_device_that_its_name_says() {
    let (rig, folder) = (rig(2), tempfile::tempdir().unwrap());
    let checkpoint = saved(folder.path());
    let place = |name: &str| match name.as_bytes()[0] {
        b'a' => rig.devices[0].clone(),
        b'b' => rig.devices[1].clone(),
        _ => Device::host(),
    };
    let loaded = checkpoint.load_to_each(place).unwrap();
    for (name, tensor) in loaded.flatten() {
        assert_eq!(tensor.device(), place(&name), "{name}");
    }
    assert_same(&loaded.to(&Device::host()).unwrap(), &model());
    drop(loaded);
    rig.finish();
}

#[test]
fn a_stream_hands_out_every_tensor_in_the_order_of_the_files() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let big = map((0..12).map(|index| (format!("t{index:02}"), tensor(DType::U8, &[3 << 20], index))));
    let path = folder.path().join("model.safetensors");
    checkpoint::save(&big, &path, &SaveOptions::new().max_shard_bytes(10 << 20)).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.shards().len(), 4);
    for device in [rig.device(), &Device::host()] {
        let landed = checkpoint.stream(device).unwrap().map(|landed| {
            let (name, tensor) = landed.unwrap();
            assert_eq!(tensor.device(), *device);
            (name, tensor.to(&Device::host()).unwrap())
        });
        assert_same(&map(landed), &big);
    }
    // One that is dropped early leaves nothing behind.
    let mut stream = checkpoint.stream(rig.device()).unwrap();
    assert_eq!(stream.next().unwrap().unwrap().0, "t00");
    drop(stream);
    rig.finish();
}

#[test]
fn a_file_that_shrinks_after_it_was_opened_is_an_error_with_tensor_file_and_offset() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let checkpoint = saved(folder.path());
    let odd = checkpoint.get("c.odd").unwrap().file_range();
    let path = checkpoint.shards()[0].path().to_owned();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(odd.end - 1).unwrap();
    let alone = checkpoint.only(["c.odd"]).unwrap();
    let mut errors = vec![
        alone.load(rig.device()).unwrap_err(),
        alone.load(&Device::host()).unwrap_err(),
        alone.load_pinned(rig.device()).unwrap_err(),
        alone.stream(rig.device()).unwrap().next().unwrap().unwrap_err(),
    ];
    let mut into = map([("c.odd".to_owned(), tensor(DType::U8, &[3], 0))])
        .to(rig.device())
        .unwrap();
    errors.push(alone.load_into(&mut into, Names::All).unwrap_err());
    for error in errors {
        let said = error.to_string();
        assert!(
            said.contains("c.odd") && said.contains("model.safetensors"),
            "{said}"
        );
        assert!(said.contains(&odd.start.to_string()), "{said}");
    }
    drop(into);
    // The rest is still there.
    let rest = checkpoint.matching("[ab].*").unwrap();
    assert_eq!(rest.load(rig.device()).unwrap().len(), 4);
    rig.finish();
}

#[test]
fn tensors_that_exist_are_loaded_into_by_name_whatever_their_order_and_nesting() {
    let (rig, folder) = (rig(2), tempfile::tempdir().unwrap());
    let checkpoint = saved(folder.path());
    let zeros = |tensor: &Tensor, device: &Device| {
        Tensor::zeros(tensor.dtype(), tensor.shape())
            .unwrap()
            .to(device)
            .unwrap()
    };
    // In groups, from last to first, on three devices.
    let places = [Device::host(), rig.devices[0].clone(), rig.devices[1].clone()];
    let mut tree = TensorMap::new();
    for (group, place) in ["c", "b", "a"].into_iter().zip(&places) {
        let mut inner = TensorMap::new();
        for (name, tensor) in model().flatten() {
            if let Some(rest) = name.strip_prefix(&format!("{group}.")) {
                inner.insert(rest, zeros(tensor, place)).unwrap();
            }
        }
        tree.insert(group, inner).unwrap();
    }
    let pointers = |tree: &TensorMap| {
        tree.flatten()
            .map(|(_, tensor)| tensor.device_ptr())
            .collect::<Vec<_>>()
    };
    let before = pointers(&tree);
    let left_out = checkpoint.load_into(&mut tree, Names::All).unwrap();
    assert!(left_out.missing.is_empty() && left_out.unexpected.is_empty());
    assert_eq!(pointers(&tree), before, "the tensors are where they were");
    for (name, tensor) in tree.to(&Device::host()).unwrap().flatten() {
        assert!(
            tensor.as_bytes().unwrap() == model().get(&name).unwrap().as_bytes().unwrap(),
            "{name}"
        );
    }
    drop((tree, places));
    rig.finish();
}

#[test]
fn what_does_not_fit_is_listed_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = saved(folder.path());
    let ones = |dtype, shape: &[usize]| HostMemory::Pageable.ones(dtype, shape).unwrap();
    let mut tree = map([
        ("a.long".to_owned(), ones(DType::I64, &[5, 3])),
        ("b.odd".to_owned(), ones(DType::I8, &[77_777])),
        ("c.odd".to_owned(), ones(DType::U8, &[3])),
        ("d.more".to_owned(), ones(DType::U8, &[1])),
    ]);
    let strict = checkpoint.load_into(&mut tree, Names::All).unwrap_err();
    let said = strict.to_string();
    for part in [
        "lacks \"d.more\"",
        "no place for \"a.wide\", \"b.small\", \"c.none\"",
        "\"a.long\" (I64 [3, 5] in the checkpoint, I64 [5, 3] here)",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let lenient = checkpoint.load_into(&mut tree, Names::Common).unwrap_err();
    let Error::Checkpoint(lenient) = lenient else {
        panic!("{lenient}");
    };
    assert!(
        matches!(&*lenient, CheckpointError::DoesNotFit { missing, unexpected, different }
            if missing.is_empty() && unexpected.is_empty() && different.len() == 2),
        "{lenient}"
    );
    assert!(
        tree.flatten()
            .all(|(_, tensor)| tensor.as_bytes().unwrap().contains(&1))
    );

    let mut tree = map([
        ("c.odd".to_owned(), ones(DType::U8, &[3])),
        ("d.more".to_owned(), ones(DType::U8, &[1])),
    ]);
    let left_out = checkpoint.load_into(&mut tree, Names::Common).unwrap();
    assert_eq!((left_out.missing.len(), left_out.unexpected.len()), (1, 5));
    assert_eq!(tree.get("d.more").unwrap().as_bytes().unwrap(), [1]);
    assert_eq!(
        tree.get("c.odd").unwrap().as_bytes().unwrap(),
        model().get("c.odd").unwrap().as_bytes().unwrap()
    );
}

#[test]
fn a_tensor_that_someone_else_reads_is_not_loaded_into() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = saved(folder.path()).only(["c.odd"]).unwrap();
    let mut tree = map([("c.odd".to_owned(), tensor(DType::U8, &[3], 9))]);
    let kept = tree.get("c.odd").unwrap().clone();
    let refused = checkpoint.load_into(&mut tree, Names::All).unwrap_err();
    assert!(
        matches!(&refused, Error::Leaf { path, source } if path == "c.odd" && matches!(**source, Error::Shared)),
        "{refused}"
    );
    assert_eq!(
        tree.get("c.odd").unwrap().as_bytes().unwrap(),
        kept.as_bytes().unwrap()
    );
    let mut nameless = vec![tensor(DType::U8, &[3], 9)];
    let said = checkpoint
        .load_into(&mut nameless, Names::All)
        .unwrap_err()
        .to_string();
    assert!(said.contains("no names"), "{said}");
}

#[test]
fn a_slice_is_the_part_that_it_says() {
    let (rig, folder) = (rig(1), tempfile::tempdir().unwrap());
    let checkpoint = saved(folder.path());
    let part = checkpoint.slice("a.wide", &[10..20]).unwrap();
    assert_eq!(part.shape(), [10, 300]);
    let back = part.to(rig.device()).unwrap().to(&Device::host()).unwrap();
    let whole = model();
    let whole = whole.get("a.wide").unwrap();
    assert!(back.as_bytes().unwrap() == &whole.as_bytes().unwrap()[10 * 1200..20 * 1200]);
    let columns = checkpoint.slice("a.wide", &[0..1000, 3..7]).unwrap();
    assert_eq!(
        (columns.shape(), columns.layout().strides()),
        (&[1000, 4][..], &[300, 1][..])
    );
    let back = columns.to(rig.device()).unwrap().to(&Device::host()).unwrap();
    let there = whole.slice(1, 3..7, 1).unwrap().contiguous().unwrap();
    assert!(back.as_bytes().unwrap() == there.as_bytes().unwrap());

    for (ranges, part) in [
        (&[0..1001][..], "\"a.wide\""),
        (&[0..1, 0..1, 0..1], "\"a.wide\""),
    ] {
        let said = checkpoint.slice("a.wide", ranges).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
    let path = folder.path().join("narrow.safetensors");
    checkpoint::save(
        &map([("f4".to_owned(), tensor(DType::F4, &[4, 4], 1))]),
        &path,
        &SaveOptions::new(),
    )
    .unwrap();
    let narrow = Checkpoint::open(&path).unwrap();
    assert_eq!(narrow.slice("f4", &[1..3]).unwrap().bytes().unwrap(), 4);
    assert!(matches!(
        narrow.slice("f4", &[0..1, 1..4]).unwrap_err(),
        Error::DType(_)
    ));
    rig.finish();
}

#[test]
fn a_device_without_room_is_an_error_and_the_next_load_works() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = saved(folder.path());
    let little = DeviceConfig {
        memory_bytes: 1 << 20,
        ..DeviceConfig::default()
    };
    let rig = Rig::on(MachineConfig::equal_devices(1, little), &small_engine(2, 2, SLOT));
    let full = checkpoint.load(rig.device()).unwrap_err();
    assert_eq!(full.driver_kind(), Some(ErrorKind::OutOfMemory), "{full}");
    let small = checkpoint.filter(|entry| entry.bytes() < 100_000);
    let there = small.load(rig.device()).unwrap();
    assert_eq!(there.len(), small.len());
    drop(there);
    rig.finish();
}
