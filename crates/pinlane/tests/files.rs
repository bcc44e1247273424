//! Real files, read and written every way that the file system of the build's folder allows.

#[path = "rig/mod.rs"]
mod rig;

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
};

use pinlane::{DType, Device, DeviceOptions, Error, FileAccess, FileSink, FileSource, Tensor, Tree};
use rig::{Rig, pattern, small_engine};
use tempfile::TempDir;

const SLOT: usize = 256 << 10;
const WAYS: [FileAccess; 3] = [FileAccess::Auto, FileAccess::Buffered, FileAccess::Direct];

/// A folder on a disk, if the build's is: the system's own for such things may lie in memory.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn rig() -> Rig {
    Rig::new(1, &small_engine(2, 2, SLOT))
}

/// Tensors of all sizes, at offsets that are multiples of nothing.
fn places() -> Vec<(u64, usize)> {
    let sizes = [1, 17 * SLOT + 3, 0, 4096, 5, 100_001, 3 * SLOT];
    let mut end = 13;
    let place = |size| {
        end += 7 + size as u64;
        (end - size as u64, size)
    };
    sizes.into_iter().map(place).collect()
}

#[test]
fn what_a_file_holds_lands_whatever_way_it_is_read() {
    let (folder, rig) = (folder(), rig());
    let path = folder.path().join("file");
    let content = pattern(22 * SLOT, 1);
    fs::write(&path, &content).unwrap();
    for way in WAYS {
        let file = FileSource::open_with(&path, way).unwrap();
        assert_eq!(
            (file.path(), file.bytes()),
            (path.as_path(), content.len() as u64)
        );
        let tensors: Vec<_> = places()
            .into_iter()
            .map(|(offset, size)| file.tensor(offset, DType::U8, &[size]).unwrap())
            .collect();
        let there = tensors.to(rig.device()).unwrap().to(&Device::host()).unwrap();
        let here = tensors.to(&Device::host()).unwrap();
        for ((offset, size), landed) in places().into_iter().zip(there.iter().zip(&here)) {
            let held = &content[offset as usize..][..size];
            assert!(
                landed.0.as_bytes().unwrap() == held,
                "{way:?}, through the device"
            );
            assert!(landed.1.as_bytes().unwrap() == held, "{way:?}, to the host");
        }
    }
    rig.finish();
}

#[test]
fn what_is_written_is_read_again_whatever_way_it_is_written() {
    let (folder, rig) = (folder(), rig());
    let path = folder.path().join("file");
    let (last, size) = places()[places().len() - 1];
    let bytes = last as usize + size + 9;
    let tensors: Vec<_> = places()
        .into_iter()
        .map(|(offset, size)| {
            let held = pattern(size, offset as usize);
            Tensor::from_bytes(held, DType::U8, &[size]).unwrap()
        })
        .collect();
    let there = tensors.to(rig.device()).unwrap();
    for way in WAYS {
        for tensors in [&tensors, &there] {
            let file = fs::File::create(&path).unwrap();
            let sink = FileSink::new(file, &path, bytes as u64, way).unwrap();
            let places = places().into_iter().map(|(offset, _)| (sink.clone(), offset));
            tensors.write_to(&places.collect::<Vec<_>>()).unwrap();
            sink.sync().unwrap();
            let mut expected = vec![0; bytes];
            for (offset, size) in self::places() {
                expected[offset as usize..][..size].copy_from_slice(&pattern(size, offset as usize));
            }
            assert!(fs::read(&path).unwrap() == expected, "{way:?}");
        }
    }
    drop(there);
    rig.finish();
}

#[test]
fn tensors_of_several_files_are_written_and_read_as_one_tree() {
    let (folder, rig) = (folder(), rig());
    let tensors: Vec<_> = (0..40)
        .map(|seed| Tensor::from_bytes(pattern(30_000, seed), DType::U8, &[30_000]).unwrap())
        .collect();
    let there = tensors.to(rig.device()).unwrap();
    let path = |number: usize| folder.path().join(format!("file-{number}"));
    let sinks: Vec<_> = (0..3)
        .map(|number| FileSink::create(path(number), 20 * 30_000).unwrap())
        .collect();
    let place = |index: usize| (index % 3, (index / 3 * 30_000) as u64);
    let places: Vec<_> = (0..40)
        .map(|index| {
            let (file, offset) = place(index);
            (sinks[file].clone(), offset)
        })
        .collect();
    there.write_to(&places).unwrap();
    drop(there);
    let sources: Vec<_> = (0..3)
        .map(|number| FileSource::open(path(number)).unwrap())
        .collect();
    let in_files: Vec<_> = (0..40)
        .map(|index| {
            let (file, offset) = place(index);
            sources[file].tensor(offset, DType::U8, &[30_000]).unwrap()
        })
        .collect();
    let landed = in_files.to(rig.device()).unwrap().to(&Device::host()).unwrap();
    for (landed, tensor) in landed.iter().zip(&tensors) {
        assert!(landed.as_bytes().unwrap() == tensor.as_bytes().unwrap());
    }
    rig.finish();
}

#[test]
fn what_may_not_be_opened_is_named_with_the_reason() {
    let folder = folder();
    let path = folder.path().join("file");
    fs::write(&path, [0]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    // Whoever may do anything may read it all the same.
    let reason = match fs::File::open(&path) {
        Err(error) => error.kind(),
        Ok(_) => ErrorKind::NotADirectory,
    };
    let path = match reason {
        ErrorKind::PermissionDenied => path,
        _ => path.join("below a file"),
    };
    for refused in [
        FileSource::open(&path).map(drop).unwrap_err(),
        FileSink::create(&path, 1).map(drop).unwrap_err(),
    ] {
        assert!(
            matches!(&refused, Error::File { path: found, source, .. } if *found == path && source.kind() == reason),
            "{refused}"
        );
    }
}

#[test]
fn a_tree_is_written_to_as_many_places_as_it_has_tensors() {
    let folder = folder();
    let sink = FileSink::create(folder.path().join("file"), 10).unwrap();
    let tensors = vec![Tensor::zeros(DType::U8, &[1]).unwrap(); 2];
    let refused = tensors.write_to(&[(sink, 0)]).unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
}

#[test]
fn a_tree_of_all_kinds_is_pinned_in_its_order() {
    let (folder, rig) = (folder(), Rig::new(1, &DeviceOptions::default()));
    let path = folder.path().join("file");
    fs::write(&path, pattern(3 * SLOT, 1)).unwrap();
    let file = FileSource::open(&path).unwrap();
    let in_file = |offset| file.tensor(offset, DType::U8, &[SLOT]).unwrap();
    let wide = Tensor::from_bytes(pattern(60, 2), DType::U8, &[6, 10]).unwrap();
    let tree = vec![
        in_file(SLOT as u64),
        wide.clone(),
        wide.pin_memory(rig.device()).unwrap(),
        wide.slice(1, 2..7, 2).unwrap(),
        in_file(0),
        wide.slice(0, 0..0, 1).unwrap(),
    ];
    let pinned = tree.pin_memory(rig.device()).unwrap();
    assert!(pinned.is_pinned());
    let expected = tree.to(&Device::host()).unwrap();
    for (number, (pinned, expected)) in pinned.iter().zip(&expected).enumerate() {
        let expected = expected.contiguous().unwrap();
        assert_eq!(
            (pinned.dtype(), pinned.shape()),
            (expected.dtype(), expected.shape())
        );
        assert!(
            pinned.as_bytes().unwrap() == expected.as_bytes().unwrap(),
            "{number}"
        );
    }
    drop((tree, pinned, expected, wide));
    rig.finish();
}

#[test]
fn the_tensor_that_finds_no_room_when_a_tree_is_pinned_is_named_wherever_it_lies() {
    let folder = folder();
    let path = folder.path().join("file");
    fs::write(&path, pattern(4 << 20, 1)).unwrap();
    let options = DeviceOptions {
        pinned_budget: Some(6 << 20),
        ..small_engine(1, 1, SLOT)
    };
    let rig = Rig::new(1, &options);
    let file = FileSource::open(&path).unwrap();
    let in_file = file.tensor(0, DType::U8, &[4 << 20]).unwrap();
    let here = in_file.to(&Device::host()).unwrap();
    for tree in [[&here, &here], [&here, &in_file], [&in_file, &in_file]] {
        let tree = tree.map(Tensor::clone);
        let refused = tree.pin_memory(rig.device()).unwrap_err();
        let Error::Leaf { path, source } = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(path, "#1");
        assert!(matches!(**source, Error::PinnedBudget { .. }), "{source:?}");
    }
    drop((in_file, here));
    rig.finish();
}
