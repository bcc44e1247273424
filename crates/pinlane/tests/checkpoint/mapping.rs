//! Tensors over their files, mapped to memory.

use std::fs;

use pinlane::{
    DType, Device, Error, TensorMap, Tree as _,
    checkpoint::{self, Checkpoint, SaveOptions},
};

use crate::{
    assert_same, map,
    rig::{Rig, small_engine},
    tensor,
};

/// Tensors that a file holds in this order.
fn model() -> TensorMap {
    map([
        ("wide".to_owned(), tensor(DType::F32, &[1000, 30], 1)),
        ("none".to_owned(), tensor(DType::U8, &[0, 9], 2)),
        ("odd".to_owned(), tensor(DType::U8, &[77_777], 3)),
    ])
}

#[test]
fn mapped_tensors_are_those_of_the_files_and_stay_so_when_these_are_replaced() {
    let rig = Rig::new(1, &small_engine(2, 2, 64 << 10));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let options = SaveOptions::new().max_shard_bytes(120_000);
    checkpoint::save(&model(), &path, &options).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(checkpoint.shards().len() > 1);
    // SAFETY: the files are replaced and removed, and not changed.
    let mapped = unsafe { checkpoint.map() }.unwrap();
    drop(checkpoint);
    checkpoint::save(&map([]), &path, &SaveOptions::new()).unwrap();
    assert_same(&mapped, &model());
    let there = mapped.to(rig.device()).unwrap();
    assert_same(&there.to(&Device::host()).unwrap(), &model());
    drop((there, mapped));
    rig.finish();
}

#[test]
fn a_file_that_is_shorter_than_when_it_was_opened_is_not_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    checkpoint::save(&model(), &path, &SaveOptions::new()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(1000).unwrap();
    // SAFETY: nothing is mapped of a file that is short already.
    let refused = unsafe { checkpoint.map() }.unwrap_err();
    assert!(matches!(refused, Error::File { .. }), "{refused}");
    let told = refused.to_string();
    assert!(
        told.contains("model.safetensors") && told.contains("1000 bytes now"),
        "{told}"
    );
}
