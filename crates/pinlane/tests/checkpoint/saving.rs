//! From devices and the host to files.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use pinlane::{
    DType, Device, Error, Tensor, TensorMap, Tree as _,
    checkpoint::{self, Checkpoint, CheckpointError, SaveOptions},
};

use crate::{
    assert_same, map,
    rig::{Rig, small_engine},
    tensor,
};

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn tensors_larger_than_a_piece_strided_and_nested_ones_are_saved_from_a_device() {
    let rig = Rig::new(1, &small_engine(2, 2, 1 << 20));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let large = tensor(DType::F6E2M3, &[44_739_248], 1);
    let matrix = tensor(DType::F32, &[300, 200], 2);
    let mut inner = TensorMap::new();
    inner.insert("large", large.clone()).unwrap();
    let mut tree = TensorMap::new();
    tree.insert("inner", inner).unwrap();
    tree.insert("turned", matrix.transpose(0, 1).unwrap()).unwrap();
    tree.insert("part", matrix.slice(1, 50..60, 1).unwrap()).unwrap();
    let there = tree.to(rig.device()).unwrap();
    let saved = checkpoint::save(&there, &path, &SaveOptions::new()).unwrap();
    assert_eq!(
        (saved.files, saved.index, saved.bytes),
        (vec![path.clone()], None, 33_554_436 + 240_000 + 12_000)
    );

    let loaded = pinlane::load(&path, &Device::host()).unwrap();
    assert!(loaded.get("inner.large").unwrap().as_bytes().unwrap() == large.as_bytes().unwrap());
    for (name, view) in [
        ("turned", matrix.transpose(0, 1)),
        ("part", matrix.slice(1, 50..60, 1)),
    ] {
        let packed = view.unwrap().contiguous().unwrap();
        assert!(
            loaded.get(name).unwrap().as_bytes().unwrap() == packed.as_bytes().unwrap(),
            "{name}"
        );
    }
    drop(there);
    rig.finish();
}

#[test]
fn a_file_so_long_that_it_is_written_past_the_page_cache_is_whole() {
    // Beside what is built: where temporary files lie is often no disk.
    a_long_file_is_whole(Path::new(env!("CARGO_TARGET_TMPDIR")));
}

#[test]
fn a_file_in_memory_so_long_that_it_is_written_by_way_of_a_mapping_is_whole() {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        a_long_file_is_whole(memory);
    }
}

fn a_long_file_is_whole(parent: &Path) {
    let rig = Rig::new(1, &small_engine(2, 2, 4 << 20));
    let folder = tempfile::tempdir_in(parent).unwrap();
    let path = folder.path().join("model.safetensors");
    let model = map([
        ("long".to_owned(), tensor(DType::U8, &[70_000_001], 1)),
        ("short".to_owned(), tensor(DType::U8, &[5], 2)),
    ]);
    let there = model.to(rig.device()).unwrap();
    for tree in [&there, &model] {
        checkpoint::save(tree, &path, &SaveOptions::new().metadata("kind", "long")).unwrap();
        assert_same(&pinlane::load(&path, &Device::host()).unwrap(), &model);
    }
    drop(there);
    rig.finish();
}

#[test]
fn a_new_file_has_the_permissions_of_any_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, other] = ["model.safetensors", "other"].map(|name| folder.path().join(name));
    checkpoint::save(&TensorMap::new(), &ours, &SaveOptions::new()).unwrap();
    fs::write(&other, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(ours), mode(other));
}

#[test]
fn new_files_have_the_permissions_of_those_that_they_replace() {
    let model = map((0..2).map(|index| (format!("t{index}"), tensor(DType::U8, &[10], index))));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // Narrower than new files are, and wider.
    for wanted in [0o600, 0o666] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        checkpoint::save(&model, &path, &SaveOptions::new()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
        checkpoint::save_file(&model, &path, &SaveOptions::new()).unwrap();
        assert_eq!(mode(&path), wanted);
        for options in [
            SaveOptions::new(),
            SaveOptions::new().max_shard_bytes(10),
            SaveOptions::new().max_shard_bytes(10),
            SaveOptions::new(),
        ] {
            let saved = checkpoint::save(&model, &path, &options).unwrap();
            for file in saved.files.iter().chain(&saved.index) {
                assert_eq!(mode(file), wanted, "{}", file.display());
            }
        }
    }
}

#[test]
fn a_pipe_is_neither_replaced_nor_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["pipe.safetensors", "model.safetensors.index.json"] {
        let path = folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(
            Checkpoint::open(&path)
                .unwrap_err()
                .to_string()
                .contains("no regular file")
        );
    }
    for name in ["pipe.safetensors", "model.safetensors"] {
        for save in [checkpoint::save, checkpoint::save_file] {
            let refused = save(&map([]), folder.path().join(name), &SaveOptions::new()).unwrap_err();
            assert!(refused.to_string().contains("no regular file"), "{refused}");
        }
    }
    assert_eq!(names_in(folder.path()).len(), 2);
}

#[test]
fn a_link_is_replaced_and_what_it_points_to_stays() {
    let folder = tempfile::tempdir().unwrap();
    let [real, link] = ["real.safetensors", "link.safetensors"].map(|name| folder.path().join(name));
    let model = |seed| map([("a".to_owned(), tensor(DType::U8, &[10], seed))]);
    checkpoint::save(&model(1), &real, &SaveOptions::new()).unwrap();
    std::os::unix::fs::symlink("real.safetensors", &link).unwrap();
    checkpoint::save(&model(2), &link, &SaveOptions::new()).unwrap();
    assert_same(&pinlane::load(&real, &Device::host()).unwrap(), &model(1));
    assert_same(&pinlane::load(&link, &Device::host()).unwrap(), &model(2));
}

#[test]
fn a_name_as_long_as_the_system_allows_is_saved_to() {
    let folder = tempfile::tempdir().unwrap();
    let model = map([("a".to_owned(), tensor(DType::U8, &[10], 1))]);
    // Of characters of two bytes each, but for the end.
    let path = folder.path().join(format!("{}.safetensors", "é".repeat(121)));
    checkpoint::save_file(&model, &path, &SaveOptions::new()).unwrap();
    assert_same(&pinlane::load(&path, &Device::host()).unwrap(), &model);
    let too_long = folder.path().join(format!("{}.safetensors", "n".repeat(250)));
    let refused = checkpoint::save_file(&model, &too_long, &SaveOptions::new()).unwrap_err();
    assert!(!refused.to_string().contains("/.n"), "{refused}");
}

#[test]
fn a_file_that_is_read_while_it_is_replaced_stays_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let first = map([("a".to_owned(), tensor(DType::U8, &[100_000], 1))]);
    let second = map([("a".to_owned(), tensor(DType::U8, &[10], 2))]);
    checkpoint::save(&first, &path, &SaveOptions::new()).unwrap();
    let opened = Checkpoint::open(&path).unwrap();
    checkpoint::save(&second, &path, &SaveOptions::new()).unwrap();
    assert_same(&opened.load(&Device::host()).unwrap(), &first);
    assert_same(&pinlane::load(&path, &Device::host()).unwrap(), &second);
    // What is still in a file can be saved too, over that very file.
    let mut more = TensorMap::new();
    more.insert("a", Checkpoint::open(&path).unwrap().tensor("a").unwrap())
        .unwrap();
    more.insert("b", opened.tensor("a").unwrap()).unwrap();
    checkpoint::save(&more, &path, &SaveOptions::new()).unwrap();
    let loaded = pinlane::load(&path, &Device::host()).unwrap();
    assert!(loaded.get("b").unwrap().as_bytes().unwrap() == first.get("a").unwrap().as_bytes().unwrap());
}

#[test]
fn files_are_divided_by_size_and_an_older_checkpoint_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let model = |seed: usize| {
        map((0..5).map(|index| {
            (
                format!("t{index}"),
                tensor(DType::U8, &[100 * (index + 1)], seed + index),
            )
        }))
    };
    let limit = |bytes| SaveOptions::new().max_shard_bytes(bytes);
    let part = |round: &str, number: usize, count: usize| {
        format!("model{round}-{number:05}-of-{count:05}.safetensors")
    };
    let index = "model.safetensors.index.json".to_owned();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    // With a file of someone else's in the folder, an index says each time what is the checkpoint.
    fs::write(folder.path().join("model-fp16.safetensors"), "someone else's").unwrap();
    let check = |seed: usize, options: &SaveOptions, files: &[String]| {
        let saved = checkpoint::save(&model(seed), folder.path(), options).unwrap();
        let paths: Vec<_> = files.iter().map(|name| folder.path().join(name)).collect();
        assert_eq!((saved.files, saved.bytes), (paths, 1500));
        assert_eq!(saved.index, Some(folder.path().join(&index)));
        let mut expected: Vec<_> = files.iter().chain([&index]).cloned().collect();
        expected.extend(["config.json", "model-fp16.safetensors"].map(str::to_owned));
        expected.sort();
        assert_eq!(names_in(folder.path()), expected);
        for path in saved
            .index
            .into_iter()
            .chain([folder.path().join("model.safetensors")])
        {
            assert_same(&pinlane::load(path, &Device::host()).unwrap(), &model(seed));
        }
    };
    let single = ["model.safetensors".to_owned()];
    check(0, &SaveOptions::new(), &single);
    // 100 + 200, 300, 400, and 500, which is larger than the limit.
    let four: Vec<_> = (1..=4).map(|number| part("", number, 4)).collect();
    check(10, &limit(450), &four);
    let again: Vec<_> = (1..=4).map(|number| part("-r2", number, 4)).collect();
    check(20, &limit(450), &again);
    let two: Vec<_> = (1..=2).map(|number| part("-r2", number, 2)).collect();
    check(30, &limit(1000), &two);
    check(40, &limit(1500), &single);
}

#[test]
fn a_save_removes_the_files_of_the_old_checkpoint_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let model = |seed| map([("a".to_owned(), tensor(DType::U8, &[10], seed))]);
    let file = |name: &str| folder.path().join(name);
    let parts = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    for (seed, name) in parts.iter().enumerate() {
        let tensors = map([(format!("t{seed}"), tensor(DType::U8, &[10], seed))]);
        checkpoint::save_file(&tensors, file(name), &SaveOptions::new()).unwrap();
    }
    // One file, whatever lies beside it, of which some look like its parts.
    let path = file("model.safetensors");
    checkpoint::save_file(&model(3), &path, &SaveOptions::new()).unwrap();
    checkpoint::save(&model(4), &path, &SaveOptions::new()).unwrap();
    assert_same(&pinlane::load(&path, &Device::host()).unwrap(), &model(4));
    assert_eq!(names_in(folder.path()), [parts[0], parts[1], "model.safetensors"]);
    assert!(checkpoint::save_file(&model(5), folder.path(), &SaveOptions::new()).is_err());
    // Where the file is not there yet, who opens the folder has to be told that the parts are not of it.
    fs::remove_file(&path).unwrap();
    checkpoint::save(&model(6), &path, &SaveOptions::new()).unwrap();
    assert_same(&pinlane::load(folder.path(), &Device::host()).unwrap(), &model(6));
    assert_same(&pinlane::load(&path, &Device::host()).unwrap(), &model(6));
    assert_eq!(names_in(folder.path()).len(), 4);
}

#[test]
fn a_folder_whose_index_is_of_another_name_is_not_saved_to() {
    let folder = tempfile::tempdir().unwrap();
    let model = map((0..2).map(|index| (format!("t{index}"), tensor(DType::U8, &[10], index))));
    let options = SaveOptions::new().max_shard_bytes(10);
    checkpoint::save(&model, folder.path().join("other.safetensors"), &options).unwrap();
    let before = names_in(folder.path());
    let refused = checkpoint::save(&model, folder.path(), &SaveOptions::new()).unwrap_err();
    assert!(
        refused.to_string().contains("other.safetensors.index.json"),
        "{refused}"
    );
    assert_eq!(names_in(folder.path()), before);
}

#[test]
fn what_the_format_can_not_hold_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let one = || tensor(DType::U8, &[1], 1);
    let mut ambiguous = TensorMap::new();
    ambiguous.insert("a.b", one()).unwrap();
    ambiguous.insert("a", map([("b".to_owned(), one())])).unwrap();
    let twice = checkpoint::save(&ambiguous, &path, &SaveOptions::new()).unwrap_err();
    assert!(
        matches!(&twice, Error::DuplicateName { path } if path == "a.b"),
        "{twice}"
    );
    let complex = Tensor::zeros(DType::C128, &[1]).unwrap();
    for (tree, part) in [
        (map([("c".to_owned(), complex)]), "\"c\""),
        (map([("__metadata__".to_owned(), one())]), "__metadata__"),
    ] {
        let refused = checkpoint::save(&tree, &path, &SaveOptions::new()).unwrap_err();
        assert!(refused.to_string().contains(part), "{refused}");
        assert!(
            matches!(&refused, Error::Checkpoint(error) if matches!(**error, CheckpointError::CannotHold { .. })),
            "{refused}"
        );
    }
    assert!(checkpoint::save(&vec![one()], &path, &SaveOptions::new()).is_err());
    assert!(checkpoint::save(&map([]), folder.path().join("m.index.json"), &SaveOptions::new()).is_err());
    let no_folder = checkpoint::save(&map([]), folder.path().join("no/"), &SaveOptions::new()).unwrap_err();
    assert!(no_folder.to_string().contains("no such folder"), "{no_folder}");
    assert!(!folder.path().join("no").exists());
    let nowhere = checkpoint::save(
        &map([]),
        folder.path().join("no/m.safetensors"),
        &SaveOptions::new(),
    )
    .unwrap_err();
    assert!(matches!(&nowhere, Error::File { .. }), "{nowhere}");
    let text = format!("{nowhere}");
    assert!(
        text.contains("no is not there; make it first") && !text.contains("/.m"),
        "{text}"
    );
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}
