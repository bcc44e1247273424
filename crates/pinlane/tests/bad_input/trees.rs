//! Trees that are empty, huge, deep, or whose names and routes can't be; devices that aren't there.

use std::{fs, thread};

use pinlane::{DType, Device, DeviceOptions, Error, Route, Tensor, TensorMap, TransferOptions, Tree};
use tempfile::TempDir;

use crate::{
    of_leaf, rig,
    rig::{Rig, pattern},
    tensor, there_and_back,
};

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
        (there.clone(), Route::Gathered),
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
