//! What the system refuses: files and folders that may not be read or written, and files that end early.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, thread};

use pinlane::{
    DType, Device, Error, FileAccess,
    checkpoint::{self, Checkpoint, SaveOptions},
};

use crate::{assert_same, map, rig, tensor};

/// Runs `work` without root's right to every file, if this is root: in a thread, which alone is concerned.
fn as_nobody(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let nobody = scope.spawn(|| {
            // SAFETY: the call is about this thread's access to files, and takes no memory.
            unsafe { libc::setfsuid(65534) };
            work();
        });
        nobody.join().unwrap();
    });
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn assert_denied(error: &Error, path: &Path) {
    assert!(
        matches!(error, Error::File { path: found, source, .. }
            if found == path && source.kind() == std::io::ErrorKind::PermissionDenied),
        "{error}"
    );
}

#[test]
fn what_may_not_be_read_or_written_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let index = folder.path().join("model.safetensors.index.json");
    let model = map((0..2).map(|index| (format!("t{index}"), tensor(DType::U8, &[10], index))));
    checkpoint::save(&model, &path, &SaveOptions::new()).unwrap();
    let before = fs::read(&path).unwrap();

    set_mode(folder.path(), 0o755);
    set_mode(&path, 0);
    as_nobody(|| assert_denied(&Checkpoint::open(&path).unwrap_err(), &path));
    set_mode(&path, 0o644);

    // A folder in which nothing may be made: what is there stays.
    as_nobody(|| {
        assert_denied(
            &checkpoint::save(&model, &path, &SaveOptions::new()).unwrap_err(),
            &path,
        )
    });
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    fs::write(&index, "{}").unwrap();
    set_mode(&index, 0);
    as_nobody(|| assert_denied(&Checkpoint::open(&index).unwrap_err(), &index));

    // Names may be looked up, and not listed.
    set_mode(folder.path(), 0o711);
    as_nobody(|| assert_denied(&Checkpoint::open(folder.path()).unwrap_err(), folder.path()));
    set_mode(folder.path(), 0o700);
}

#[test]
fn a_file_that_ends_at_any_byte_is_an_error_that_names_a_tensor_beyond_it() {
    let rig = rig::Rig::new(1, &rig::small_engine(2, 2, 64 << 10));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = map([
        ("a".to_owned(), tensor(DType::U8, &[7], 1)),
        ("b".to_owned(), tensor(DType::F32, &[5], 2)),
        ("c".to_owned(), tensor(DType::U8, &[1], 3)),
        ("d".to_owned(), tensor(DType::BF16, &[3, 2], 4)),
    ]);
    checkpoint::save(&model, &path, &SaveOptions::new()).unwrap();
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() {
        fs::write(&path, &whole).unwrap();
        let checkpoint = Checkpoint::open_with(&path, FileAccess::Buffered).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(end as u64).unwrap();
        for device in [rig.device(), &Device::host()] {
            let missing = checkpoint.load(device).unwrap_err();
            let Error::Leaf { path: name, .. } = &missing else {
                panic!("ends at {end}: {missing}");
            };
            let range = checkpoint.get(name).unwrap().file_range();
            assert!(range.end > end as u64, "ends at {end}: {missing}");
        }
        // What is whole is still loaded.
        for entry in checkpoint
            .entries()
            .filter(|entry| entry.file_range().end <= end as u64)
        {
            let part = checkpoint
                .only([entry.name()])
                .unwrap()
                .load(rig.device())
                .unwrap();
            assert_eq!(part.len(), 1);
        }
        assert!(Checkpoint::open(&path).is_err(), "it ends at {end}");
    }
    rig.finish();
}

#[test]
fn a_hundred_thousand_tensors_get_to_a_device_and_back_to_a_file() {
    let rig = rig::Rig::new(1, &rig::small_engine(2, 2, 1 << 20));
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(format!("{name}.safetensors")));
    let model = map((0..100_000).map(|index| {
        let name = format!("blocks.{index}.weight");
        (name, tensor(DType::U8, &[index % 7], index))
    }));
    checkpoint::save(&model, &first, &SaveOptions::new()).unwrap();
    let there = pinlane::load(&first, rig.device()).unwrap();
    checkpoint::save(&there, &second, &SaveOptions::new()).unwrap();
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
    let back = pinlane::load(&second, &Device::host()).unwrap();
    let sorted = back.flatten().map(|(name, _)| {
        let tensor = model.get(&name).unwrap().clone();
        (name, tensor)
    });
    assert_same(&back, &map(sorted));
    assert_eq!(back.len(), 100_000);
    drop(there);
    rig.finish();
}
