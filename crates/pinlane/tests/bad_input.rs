//! Input at and beyond the edge: it works, or an error says what and why.

mod rig;

use std::{any::Any, fs, ptr::NonNull, sync::Arc, thread};

use pinlane::{
    DType, Device, DeviceOptions, Error, HostMemory, Layout, LayoutError, Placement, Route, Tensor,
    TensorMap, TransferOptions, Tree,
    driver::{Backend, ErrorKind},
};
use rig::{Rig, eventually, pattern, small_engine};
use tempfile::TempDir;

const SLOT: usize = 4096;

fn rig() -> Rig {
    Rig::new(1, &DeviceOptions::default())
}

fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

fn there_and_back<T: Tree>(tree: &T, rig: &Rig) -> T {
    tree.to(rig.device()).unwrap().to(&Device::host()).unwrap()
}

/// What is wrong with the tensor at `path`.
fn of_leaf(error: Error, path: &str) -> Error {
    match error {
        Error::Leaf { path: found, source } => {
            assert_eq!(found, path);
            *source
        }
        error => panic!("no leaf is named: {error}"),
    }
}

#[test]
fn tensors_without_elements_move_and_keep_their_shape() {
    let rig = rig();
    for shape in [&[0][..], &[3, 0, 5], &[0, 1 << 40]] {
        for dtype in DType::ALL {
            let empty = Tensor::zeros(dtype, shape).unwrap();
            let back = there_and_back(&empty, &rig);
            assert_eq!((back.dtype(), back.shape()), (dtype, shape));
            assert_eq!(back.as_bytes().unwrap(), [0_u8; 0]);
        }
    }
    let mixed = vec![tensor(0, 0), tensor(5, 1), tensor(0, 2), tensor(0, 3)];
    for placement in [Placement::Slab, Placement::Separate] {
        let options = TransferOptions::new().placement(placement);
        let there = mixed.to_with(rig.device(), &options).unwrap();
        let back = there.to_with(&Device::host(), &options.pinned_result()).unwrap();
        assert!(back[1].as_bytes().unwrap() == pattern(5, 1));
        assert!(back[3].as_bytes().unwrap().is_empty());
    }
    let pinned = HostMemory::Pinned(rig.device()).zeros(DType::F32, &[0]).unwrap();
    assert!(
        there_and_back(&pinned, &rig)
            .as_slice::<f32>()
            .unwrap()
            .is_empty()
    );
    drop(pinned);
    rig.finish();
}

#[test]
fn a_tensor_without_dimensions_is_one_element() {
    let rig = rig();
    let scalar = Tensor::from_slice(&[1.5_f64], &[]).unwrap();
    let back = there_and_back(&scalar, &rig);
    assert_eq!(back.shape(), [0_usize; 0]);
    assert_eq!(back.as_slice::<f64>().unwrap(), [1.5]);
    rig.finish();
}

#[test]
fn an_empty_tree_moves() {
    let rig = rig();
    let nothing: (Vec<Tensor>, TensorMap, Option<Tensor>) = Default::default();
    let transfer = nothing.transfer(rig.device()).unwrap();
    assert!(transfer.is_done());
    assert_eq!(transfer.plans().count(), 0);
    let (list, map, none) = rig::block_on(transfer).unwrap();
    assert!(list.is_empty() && map.is_empty() && none.is_none());
    rig.finish();
}

#[test]
fn elements_that_share_a_place_land_each_in_its_own() {
    let rig = rig();
    let row = Tensor::from_slice(&[1_i16, 2, 3], &[3]).unwrap();
    let matrix = row.expand(&[2, 3]).unwrap();
    let back = there_and_back(&matrix, &rig);
    assert_eq!(back.as_slice::<i16>().unwrap(), [1, 2, 3, 1, 2, 3]);

    let owner = Arc::new([1_u8, 2, 3, 4]);
    let windows = Layout::with_strides(&[3, 2], &[1, 1], 0, 4).unwrap();
    let ptr = NonNull::from(&*owner).cast();
    // SAFETY: four bytes that live in the owner and that nobody writes.
    let windows = unsafe { Tensor::from_raw_parts(ptr, 4, DType::U8, windows, None, owner) }.unwrap();
    let back = there_and_back(&windows, &rig);
    assert_eq!(back.as_slice::<u8>().unwrap(), [1, 2, 2, 3, 3, 4]);

    // A view taken on the device is moved with what it spans, and keeps its strides.
    let there = row.to(rig.device()).unwrap().expand(&[4, 3]).unwrap();
    let back = there.to(&Device::host()).unwrap();
    assert_eq!(back.to_vec::<i16>().unwrap(), [1, 2, 3].repeat(4));
    drop(there);
    rig.finish();
}

#[test]
fn a_layout_that_reaches_past_foreign_memory_is_refused() {
    let owner: Arc<dyn Any + Send + Sync> = Arc::new([0_u8; 16]);
    let take = |dtype, layout| {
        let ptr = NonNull::from(&*owner).cast();
        // SAFETY: sixteen bytes that live in the owner and that nobody writes.
        unsafe { Tensor::from_raw_parts(ptr, 16, dtype, layout, None, Arc::clone(&owner)) }
    };
    let far = 1_usize << 40;
    for (dtype, shape, strides, offset) in [
        (DType::U8, &[17][..], &[1][..], 0),
        (DType::U8, &[16], &[1], 1),
        (DType::U8, &[2], &[16], 0),
        (DType::F32, &[5], &[1], 0),
        (DType::F32, &[2, 2], &[3, 1], 0),
        (DType::F4, &[33], &[1], 0),
        (DType::C128, &[1], &[1], 1),
        (DType::U8, &[2], &[far], 0),
        (DType::U8, &[1], &[1], far),
    ] {
        let layout = Layout::with_strides(shape, strides, offset, usize::MAX).unwrap();
        let refused = take(dtype, layout).unwrap_err();
        assert!(
            matches!(refused, Error::Layout(LayoutError::OutsideStorage { .. })),
            "{refused}"
        );
    }
    assert!(take(DType::F4, Layout::contiguous(&[32]).unwrap()).is_ok());
    assert!(take(DType::C128, Layout::contiguous(&[1]).unwrap()).is_ok());
}

#[test]
fn sizes_that_overflow_are_refused() {
    for shape in [
        &[usize::MAX, 2][..],
        &[0, 1 << 63, 4],
        &[usize::MAX],
        &[1 << 32, 1 << 32],
        &[1 << 22; 3],
    ] {
        let refused = Tensor::zeros(DType::U8, shape).unwrap_err();
        assert!(
            matches!(refused, Error::Layout(LayoutError::Overflow { .. })),
            "{refused}"
        );
        assert!(matches!(
            Tensor::from_bytes(Vec::new(), DType::U8, shape),
            Err(Error::Layout(LayoutError::Overflow { .. }))
        ));
    }
    // The elements can be counted, their bytes can't.
    let refused = Tensor::zeros(DType::C128, &[1 << 60]).unwrap_err();
    assert!(matches!(refused, Error::DType(_)), "{refused}");
    // The bytes can be counted, and no host has them.
    let refused = Tensor::zeros(DType::U8, &[isize::MAX as usize]).unwrap_err();
    assert!(matches!(refused, Error::HostMemory { .. }), "{refused}");
}

#[test]
fn a_tensor_larger_than_the_device_is_refused_before_it_is_planned() {
    let rig = rig();
    let byte = tensor(1, 1);
    // Cut into chunks, either would fill the host's memory with the plan alone.
    for tree in [
        vec![byte.expand(&[1 << 50]).unwrap()],
        vec![byte.expand(&[isize::MAX as usize]).unwrap(); 5],
    ] {
        for placement in [Placement::Slab, Placement::Separate] {
            let options = TransferOptions::new().placement(placement);
            let refused = tree.to_with(rig.device(), &options).unwrap_err();
            assert_eq!(refused.driver_kind(), Some(ErrorKind::OutOfMemory), "{refused}");
        }
    }
    let refused = byte.expand(&[1 << 50]).unwrap().contiguous().unwrap_err();
    assert!(matches!(refused, Error::HostMemory { .. }), "{refused}");
    let refused = byte.expand(&[1 << 50]).unwrap().pin_memory(rig.device());
    assert!(matches!(
        of_leaf(refused.unwrap_err(), "U8 [1125899906842624]"),
        Error::PinnedBudget { .. }
    ));
    let wide = Tensor::zeros(DType::C128, &[1]).unwrap();
    let wide = wide.expand(&[1 << 62]).unwrap();
    let refused = wide.to(rig.device()).unwrap_err();
    let source = of_leaf(refused, "C128 [4611686018427387904]");
    assert!(matches!(source, Error::Layout(LayoutError::DType(_))), "{source}");
    rig.finish();
}

#[test]
fn a_device_that_does_not_exist_is_refused_by_its_name() {
    for name in [
        "sim:9",
        "cuda:0",
        "tpu",
        "sim:x",
        "sim:",
        "sim:-1",
        "sim:4294967296",
        "",
        ":",
        "SIM:0",
        "host:0",
    ] {
        let refused = Device::open(name).unwrap_err();
        let Error::NoSuchDevice { name: found, reason } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(found, name);
        assert!(!reason.is_empty());
        assert!(refused.to_string().contains(&format!("{name:?}")));
    }
    assert_eq!(Device::open("sim").unwrap(), Device::open("sim:0").unwrap());
    assert_eq!(Device::open("cpu").unwrap(), Device::host());
}

#[test]
fn a_tree_of_a_hundred_thousand_leaves_moves_there_and_back() {
    let rig = rig();
    let mut tree = TensorMap::new();
    for index in 0..100_000_u32 {
        let leaf = Tensor::from_vec(vec![index], &[]).unwrap();
        tree.insert(index.to_string(), leaf).unwrap();
    }
    let there = tree.transfer(rig.device()).unwrap().wait().unwrap();
    assert_eq!(rig.sim().alive().device_allocations, 1);
    let back = there.to(&Device::host()).unwrap();
    let values = back
        .flatten()
        .map(|(name, leaf)| (name, leaf.as_slice::<u32>().unwrap()[0]));
    for (index, (name, value)) in values.enumerate() {
        assert_eq!((name, value as usize), (index.to_string(), index));
    }
    drop(there);
    rig.finish();
}

/// A map in a map, `levels` deep, with a tensor in the innermost.
fn nested(levels: usize) -> Result<TensorMap, Error> {
    let mut tree = TensorMap::new();
    tree.insert("leaf", tensor(10, 1))?;
    for _ in 1..levels {
        let mut outer = TensorMap::new();
        outer.insert("m", tree)?;
        tree = outer;
    }
    Ok(tree)
}

#[test]
fn a_tree_of_a_thousand_levels_moves_there_and_back() {
    let rig = rig();
    let tree = nested(1000).unwrap();
    let back = there_and_back(&tree, &rig);
    let path = format!("{}leaf", "m.".repeat(999));
    assert!(back.get(&path).unwrap().as_bytes().unwrap() == pattern(10, 1));
    let too_narrow = TransferOptions::new().route(Route::Direct);
    let refused = tree.to_with(rig.device(), &too_narrow).unwrap_err();
    assert!(matches!(of_leaf(refused, &path), Error::Route { .. }));
    rig.finish();
}

#[test]
fn the_deepest_tree_there_may_be_moves_on_a_thread_with_an_ordinary_stack() {
    let moved = thread::spawn(|| {
        let rig = rig();
        let deepest = nested(1024).unwrap();
        let copy = deepest.clone();
        let back = there_and_back(&copy, &rig);
        assert_eq!(back.flatten().count(), 1);
        drop((deepest, copy, back));
        rig.finish();
        let refused = nested(1025).unwrap_err();
        assert!(matches!(refused, Error::BadName { .. }), "{refused}");
    });
    moved.join().unwrap();
}

#[test]
fn names_that_are_taken_or_empty_are_refused_and_the_tree_stays_as_it_was() {
    let mut tree = TensorMap::new();
    tree.insert("a", tensor(3, 1)).unwrap();
    let taken = tree.insert("a", TensorMap::new()).unwrap_err();
    assert!(
        matches!(&taken, Error::DuplicateName { path } if path == "a"),
        "{taken}"
    );
    let empty = tree.insert("", tensor(3, 2)).unwrap_err();
    assert!(matches!(&empty, Error::BadName { .. }), "{empty}");
    assert_eq!(tree.len(), 1);
    assert!(tree.get("a").unwrap().as_bytes().unwrap() == pattern(3, 1));
    // Dots and other letters are fine.
    for name in [".", "a.b", "ключ", " "] {
        tree.insert(name, tensor(1, 1)).unwrap();
        assert!(tree.get(name).is_some());
    }
    assert!(tree.get("no").is_none() && tree.get("a.").is_none() && tree.get("").is_none());
}

#[test]
fn a_route_that_cant_carry_a_tensor_is_refused_with_the_tensors_path() {
    let rig = Rig::new(2, &DeviceOptions::default());
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, pattern(100, 1)).unwrap();
    let in_file = Tensor::from_file(&path, 0, DType::U8, &[100]).unwrap();
    let strided = tensor(100, 1).slice(0, 0..100, 2).unwrap();
    let pinned = tensor(100, 1).pin_memory(rig.device()).unwrap();
    let there = tensor(100, 1).to(&rig.devices[1]).unwrap();
    for (bad, route) in [
        (tensor(100, 1), Route::Direct),
        (strided.clone(), Route::Direct),
        (strided, Route::Plain),
        (in_file.clone(), Route::Direct),
        (in_file, Route::Plain),
        (there.clone(), Route::Staged),
        (there.clone(), Route::Packed),
        (there, Route::Plain),
    ] {
        let mut inner = TensorMap::new();
        inner.insert("good", pinned.clone()).unwrap();
        inner.insert("bad", bad).unwrap();
        let mut tree = TensorMap::new();
        tree.insert("layer.0", inner).unwrap();
        let options = TransferOptions::new().route(route);
        for refused in [
            tree.to_with(rig.device(), &options).unwrap_err(),
            tree.plan(rig.device(), &options).unwrap_err(),
        ] {
            let text = refused.to_string();
            let source = of_leaf(refused, "layer.0.bad");
            assert!(
                matches!(source, Error::Route { route: found, .. } if found == route),
                "{source}"
            );
            assert!(text.contains("layer.0.bad") && text.contains(&route.to_string()));
        }
    }
    let down = pinned.to(rig.device()).unwrap();
    let direct = TransferOptions::new().route(Route::Direct);
    down.to_with(&Device::host(), &direct).unwrap_err();
    assert!(down.to_with(&Device::host(), &direct.pinned_result()).is_ok());
    drop((down, pinned));
    rig.finish();
}

#[test]
fn files_that_are_missing_short_or_no_files_are_refused_with_their_path() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, [0; 100]).unwrap();
    let missing = folder.path().join("missing");
    for (path, offset, elements) in [
        (missing.as_path(), 0, 1),
        (folder.path(), 0, 0),
        (folder.path(), 0, 1),
        (&file, 0, 26),
        (&file, 1, 25),
        (&file, 101, 0),
        (&file, u64::MAX, 1),
        (&file, 0, 1 << 40),
    ] {
        let refused = Tensor::from_file(path, offset, DType::F32, &[elements]).unwrap_err();
        assert!(
            matches!(&refused, Error::File { path: found, .. } if found == path),
            "{refused}"
        );
    }
    assert!(Tensor::from_file(&file, 100, DType::F32, &[0]).is_ok());
}

#[test]
fn a_file_that_is_cut_off_after_opening_fails_the_transfer_and_nothing_else() {
    let rig = Rig::new(1, &small_engine(2, 2, SLOT));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, pattern(20 * SLOT, 1)).unwrap();
    let tensor = Tensor::from_file(&path, 0, DType::U8, &[20 * SLOT]).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(10 * SLOT as u64 + 1)
        .unwrap();
    for to in [rig.device(), &Device::host()] {
        let refused = tensor.to(to).unwrap_err();
        assert!(refused.to_string().contains("file"), "{refused}");
        let source = match refused {
            Error::Leaf { source, .. } => *source,
            error => error,
        };
        assert!(
            matches!(&source, Error::File { path: found, .. } if *found == path),
            "{source}"
        );
    }
    let start = tensor.slice(0, 0..10 * SLOT, 1).unwrap();
    let back = there_and_back(&start, &rig);
    assert!(back.as_bytes().unwrap() == &pattern(20 * SLOT, 1)[..10 * SLOT]);
    rig.finish();
}

#[test]
fn a_view_with_gaps_of_a_file_is_refused() {
    let rig = rig();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, pattern(100, 1)).unwrap();
    let tensor = Tensor::from_file(&path, 0, DType::U8, &[10, 10]).unwrap();
    for view in [
        tensor.slice(1, 0..5, 1).unwrap(),
        tensor.slice(0, 0..10, 2).unwrap(),
        tensor.reshape(&[1, 100]).unwrap().expand(&[3, 100]).unwrap(),
    ] {
        let path = format!("U8 {:?}", view.shape());
        for refused in [
            view.to(rig.device()).unwrap_err(),
            view.to(&Device::host()).unwrap_err(),
            view.pin_memory(rig.device()).unwrap_err(),
        ] {
            let source = of_leaf(refused, &path);
            assert!(matches!(source, Error::Unsupported { .. }), "{source}");
        }
    }
    assert!(tensor.pin_memory(rig.device()).unwrap().as_bytes().unwrap() == pattern(100, 1));
    rig.finish();
}

#[test]
fn elements_narrower_than_a_byte_move_whole_or_not_at_all() {
    let rig = rig();
    let tensor = Tensor::from_bytes(pattern(6, 1), DType::F4, &[3, 4]).unwrap();
    let middle = there_and_back(&tensor.slice(0, 1..2, 1).unwrap(), &rig);
    assert!(middle.as_bytes().unwrap() == &pattern(6, 1)[2..4]);
    for view in [
        tensor.transpose(0, 1).unwrap(),
        tensor.slice(1, 0..2, 1).unwrap(),
        tensor.reshape(&[12]).unwrap().slice(0, 1..3, 1).unwrap(),
        tensor.reshape(&[12]).unwrap().slice(0, 0..3, 1).unwrap(),
    ] {
        let path = format!("F4 {:?}", view.shape());
        let source = of_leaf(view.to(rig.device()).unwrap_err(), &path);
        assert!(matches!(source, Error::Layout(_) | Error::DType(_)), "{source}");
    }
    rig.finish();
}

#[test]
fn what_is_not_on_the_host_can_not_be_read_in_place() {
    let rig = rig();
    let mut there = tensor(100, 1).to(rig.device()).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [0; 8]).unwrap();
    let mut in_file = Tensor::from_file(&path, 0, DType::U8, &[8]).unwrap();
    for (tensor, place) in [(&mut there, "sim:0"), (&mut in_file, "file")] {
        for refused in [
            tensor.as_slice::<u8>().map(drop).unwrap_err(),
            tensor.as_mut_slice::<u8>().map(drop).unwrap_err(),
            tensor.to_vec::<u8>().map(drop).unwrap_err(),
            tensor.sum().map(drop).unwrap_err(),
            tensor
                .slice(0, 0..8, 2)
                .unwrap()
                .contiguous()
                .map(drop)
                .unwrap_err(),
        ] {
            assert!(
                matches!(&refused, Error::NotOnHost { place: found, .. } if found.contains(place)),
                "{refused}"
            );
        }
    }
    drop(there);
    rig.finish();
}

#[test]
fn elements_are_read_as_what_they_are() {
    let mut tensor = Tensor::arange(DType::I32, 0, 6, 1).unwrap();
    assert!(matches!(tensor.as_slice::<f32>(), Err(Error::DType(_))));
    assert!(matches!(tensor.as_mut_slice::<u32>(), Err(Error::DType(_))));
    assert!(matches!(tensor.to_vec::<u8>(), Err(Error::DType(_))));
    let columns = tensor.reshape(&[2, 3]).unwrap().transpose(0, 1).unwrap();
    assert!(matches!(
        columns.as_slice::<i32>(),
        Err(Error::NotContiguous { .. })
    ));
    assert_eq!(columns.to_vec::<i32>().unwrap(), [0, 3, 1, 4, 2, 5]);
    let not_bools = Tensor::from_bytes(vec![0, 1, 2], DType::Bool, &[3]).unwrap();
    assert!(matches!(not_bools.as_slice::<bool>(), Err(Error::DType(_))));
}

#[test]
fn elements_that_do_not_fit_the_shape_are_refused() {
    assert!(Tensor::from_vec(vec![1_u8, 2, 3], &[2]).is_err());
    assert!(Tensor::from_slice(&[1.0_f32; 4], &[2, 3]).is_err());
    assert!(Tensor::from_bytes(vec![0; 7], DType::F32, &[2]).is_err());
    assert!(Tensor::from_bytes(vec![0; 1], DType::F4, &[1]).is_err());
    let tensor = tensor(6, 1);
    assert!(tensor.reshape(&[4]).is_err());
    assert!(tensor.permute(&[1]).is_err());
    assert!(tensor.transpose(0, 1).is_err());
    assert!(tensor.slice(0, 0..7, 1).is_err());
    assert!(tensor.slice(0, 0..6, 0).is_err());
    assert!(tensor.expand(&[5]).is_err());
}

#[test]
fn a_source_can_not_be_written_while_a_transfer_reads_it() {
    let rig = rig();
    for pinned in [false, true] {
        let mut source = tensor(1000, 1);
        if pinned {
            source = source.pin_memory(rig.device()).unwrap();
        }
        let stall = rig.sim().stall();
        let transfer = source.transfer(rig.device()).unwrap();
        assert!(matches!(source.as_mut_slice::<u8>(), Err(Error::Shared)));
        drop(stall);
        transfer.wait().unwrap();
        source.as_mut_slice::<u8>().unwrap()[0] = 0;

        let stall = rig.sim().stall();
        drop(source.transfer(rig.device()).unwrap());
        assert!(matches!(source.as_mut_slice::<u8>(), Err(Error::Shared)));
        drop(stall);
        eventually("the source is its own again", || {
            source.as_mut_slice::<u8>().is_ok()
        });
    }
    rig.finish();
}

#[test]
fn bytes_that_are_shared_or_foreign_are_not_written() {
    let mut tensor = tensor(10, 1);
    let view = tensor.slice(0, 0..5, 1).unwrap();
    assert!(matches!(tensor.as_mut_slice::<u8>(), Err(Error::Shared)));
    drop(view);
    assert!(tensor.as_mut_slice::<u8>().is_ok());

    let owner = Arc::new([0_u8; 4]);
    let ptr = NonNull::from(&*owner).cast();
    let layout = Layout::contiguous(&[4]).unwrap();
    // SAFETY: four bytes that live in the owner and that nobody writes.
    let foreign = unsafe { Tensor::from_raw_parts(ptr, 4, DType::U8, layout, None, owner) };
    let mut foreign = foreign.unwrap();
    assert!(matches!(foreign.as_mut_slice::<u8>(), Err(Error::Shared)));
    assert_eq!(foreign.as_slice::<u8>().unwrap(), [0; 4]);
}

#[test]
fn only_host_memory_is_pinned_and_only_for_an_accelerator() {
    let rig = rig();
    let there = tensor(10, 1).to(rig.device()).unwrap();
    let refused = of_leaf(there.pin_memory(rig.device()).unwrap_err(), "U8 [10]");
    assert!(matches!(refused, Error::NotOnHost { .. }), "{refused}");
    let refused = of_leaf(tensor(10, 1).pin_memory(&Device::host()).unwrap_err(), "U8 [10]");
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    let refused = HostMemory::Pinned(&Device::host()).zeros(DType::U8, &[1]);
    assert!(matches!(refused, Err(Error::Unsupported { .. })));
    // What is pinned already is not pinned again.
    let pinned = tensor(10, 1).pin_memory(rig.device()).unwrap();
    let again = pinned.pin_memory(rig.device()).unwrap();
    assert_eq!(
        again.as_bytes().unwrap().as_ptr(),
        pinned.as_bytes().unwrap().as_ptr()
    );
    drop((there, pinned, again));
    rig.finish();
}

#[test]
fn memory_that_is_wrongly_said_to_be_pinned_still_lands_right() {
    let rig = rig();
    let owner = Arc::new(pattern(50_000, 1));
    let ptr = NonNull::new(owner.as_ptr().cast_mut()).unwrap();
    let layout = Layout::contiguous(&[50_000]).unwrap();
    // SAFETY: the vector is as long and lives in the owner; that it is not pinned makes the copy slower, no more.
    let tensor = unsafe { Tensor::from_raw_parts(ptr, 50_000, DType::U8, layout, Some(Backend::Sim), owner) };
    let back = there_and_back(&tensor.unwrap(), &rig);
    assert!(back.as_bytes().unwrap() == pattern(50_000, 1));
    rig.finish();
}
