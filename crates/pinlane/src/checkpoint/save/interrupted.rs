//! Saves that do not get to their end: refused by the system at each step, killed at each step, out of room. Whoever opens
//! the folder then finds the old checkpoint or the new one.

use std::{
    collections::BTreeSet,
    env, fs, io,
    path::Path,
    process::{Command, ExitStatus},
};

use tempfile::TempDir;

use super::{
    SaveOptions, Saved,
    draft::{Folder, Step},
    save, save_announced,
};
use crate::{
    DType, Device, Error, Result, Tensor, TensorMap,
    checkpoint::{Checkpoint, source},
};

/// The folder that a child process saves to.
const FOLDER: &str = "PINLANE_TEST_SAVE_FOLDER";
/// The bytes of tensors in a file, where that is limited.
const SHARDS: &str = "PINLANE_TEST_SAVE_SHARDS";
/// The step before which the child is killed.
const KILLED_BEFORE: &str = "PINLANE_TEST_SAVE_KILLED_BEFORE";
/// The longest file that the system lets the child write.
const LONGEST_FILE: &str = "PINLANE_TEST_SAVE_LONGEST_FILE";

/// The limit with which a model is saved in three files.
const THREE_FILES: u64 = 150;

/// Six tensors of 50 bytes each; two models of neighbouring rounds have half of the names in common.
fn model(round: u8) -> TensorMap {
    let mut model = TensorMap::new();
    for index in 0..6 {
        let name = format!("t{}", 3 * usize::from(round) + index);
        let tensor = Tensor::full(DType::U8, &[50], i64::from(round)).unwrap();
        model.insert(name, tensor).unwrap();
    }
    model
}

fn options(limit: Option<u64>) -> SaveOptions {
    limit.map_or_else(SaveOptions::new, |bytes| {
        SaveOptions::new().max_shard_bytes(bytes)
    })
}

/// Names and bytes of what whoever opens the folder finds.
fn found(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let loaded = Checkpoint::open(folder)?.load(&Device::host())?;
    Ok(content(&loaded))
}

fn content(model: &TensorMap) -> Vec<(String, Vec<u8>)> {
    let mut content: Vec<_> = model
        .flatten()
        .map(|(name, tensor)| (name, tensor.as_bytes().unwrap().to_vec()))
        .collect();
    content.sort();
    content
}

/// What is in the folder before.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    OneFile,
    FilesAndIndex,
    FilesWithoutIndex,
    /// The target's own name belongs to one of several files that an index names.
    SingleAmongOthersWithIndex,
    SingleAmongOthers,
    /// Files that other programs called so.
    NumberedWithIndex,
    /// Files of which no name says that they belong together.
    OtherNames,
}

impl Before {
    const ALL: [Self; 8] = [
        Self::Nothing,
        Self::OneFile,
        Self::FilesAndIndex,
        Self::FilesWithoutIndex,
        Self::SingleAmongOthersWithIndex,
        Self::SingleAmongOthers,
        Self::NumberedWithIndex,
        Self::OtherNames,
    ];

    /// What the three files are called, where that is not what a save calls them.
    fn renamed(self) -> Option<[&'static str; 3]> {
        match self {
            Self::SingleAmongOthersWithIndex | Self::SingleAmongOthers => Some([
                "model.safetensors",
                "model-2-of-3.safetensors",
                "model-3-of-3.safetensors",
            ]),
            Self::NumberedWithIndex => Some([
                "model-1-of-3.safetensors",
                "model-2-of-3.safetensors",
                "model-3-of-3.safetensors",
            ]),
            Self::OtherNames => Some(["x.safetensors", "y.safetensors", "z.safetensors"]),
            _ => None,
        }
    }

    fn folder(self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let limit = match self {
            Self::Nothing => return folder,
            Self::OneFile => None,
            _ => Some(THREE_FILES),
        };
        let saved = save(&model(0), folder.path(), &options(limit)).unwrap();
        let Some(index) = saved.index else {
            return folder;
        };
        let mut text = fs::read_to_string(&index).unwrap();
        for (old, new) in saved.files.iter().zip(self.renamed().into_iter().flatten()) {
            fs::rename(old, folder.path().join(new)).unwrap();
            text = text.replace(&*source::name(old), new);
        }
        fs::write(&index, text).unwrap();
        if matches!(
            self,
            Self::FilesWithoutIndex | Self::SingleAmongOthers | Self::OtherNames
        ) {
            fs::remove_file(index).unwrap();
        }
        assert_eq!(found(folder.path()).unwrap(), content(&model(0)), "{self:?}");
        folder
    }

    /// Checks that the folder holds the old model or the new one.
    #[track_caller]
    fn assert_old_or_new(self, folder: &Path, when: &str) {
        match (self, found(folder)) {
            // Files that are there in part are refused, not taken for a checkpoint.
            (Self::Nothing, Err(_)) => {}
            (_, Err(error)) => panic!("{self:?}, {when}: {error}"),
            (_, Ok(found)) => {
                let is_old = found == content(&model(0)) && !matches!(self, Self::Nothing);
                assert!(
                    is_old || found == content(&model(1)),
                    "{self:?}, {when}: {found:?}"
                );
            }
        }
    }
}

/// The names in a folder that are not hidden.
fn visible(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// How many names in a folder are hidden.
fn hidden(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count() - visible(folder).len()
}

/// Checks that a save works, that the old checkpoint's files are gone, and that no others are.
fn assert_saves_again(folder: &Path, when: &str) {
    for limit in [None, Some(THREE_FILES)] {
        let before = visible(folder);
        let opened = Checkpoint::open(folder).map_or_else(
            |_| BTreeSet::new(),
            |old| {
                old.shards()
                    .iter()
                    .map(|shard| source::name(shard.path()))
                    .collect()
            },
        );
        let saved = save(&model(2), folder, &options(limit)).unwrap();
        assert_eq!(found(folder).unwrap(), content(&model(2)), "{when}");
        let paths = saved.files.iter().chain(&saved.index);
        let mut expected: BTreeSet<_> = paths.map(|path| source::name(path)).collect();
        // Whose names are not of this checkpoint stay, and so do those that are not known to be of the old one.
        expected.extend(before.into_iter().filter(|name| {
            name.len() == "x.safetensors".len()
                || !(opened.contains(name)
                    || name.starts_with("model-r2")
                    || name.starts_with("model.safetensors"))
        }));
        assert_eq!(
            visible(folder),
            expected,
            "{when}, then saved to files of {limit:?}"
        );
    }
}

/// Saves the new model, and stops before step number `stop` as `how` says.
fn save_until(folder: &Path, limit: Option<u64>, stop: usize, how: impl Fn() -> Result<()>) -> Result<Saved> {
    let mut step = 0;
    save_announced(&model(1), folder, &options(limit), &mut |_| {
        step += 1;
        if step > stop { how() } else { Ok(()) }
    })
}

#[test]
fn a_save_that_fails_at_any_step_leaves_the_old_checkpoint_or_the_new() {
    let refused = || {
        Err(Error::File {
            doing: "doing the next step of a save to".to_owned(),
            path: "the folder".into(),
            source: io::ErrorKind::StorageFull.into(),
        })
    };
    for before in Before::ALL {
        for limit in [None, Some(THREE_FILES)] {
            for stop in 0.. {
                let folder = before.folder();
                let saved = save_until(folder.path(), limit, stop, refused);
                let when = format!("to files of {limit:?}, stopped after {stop} steps");
                before.assert_old_or_new(folder.path(), &when);
                assert_eq!(hidden(folder.path()), 0, "{before:?}, {when}");
                if saved.is_ok() {
                    assert_eq!(found(folder.path()).unwrap(), content(&model(1)));
                    assert_saves_again(folder.path(), &when);
                    assert!(stop > 3, "a save takes steps");
                    break;
                }
                assert_saves_again(folder.path(), &when);
            }
        }
    }
}

/// This test's program again, to run the child below with these variables.
fn child(folder: &Path, limit: Option<u64>, variable: &str, value: u64) -> ExitStatus {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "checkpoint::save::interrupted::the_child_saves_where_it_is_told_to",
        ])
        .env(FOLDER, folder)
        .env(variable, value.to_string());
    if let Some(bytes) = limit {
        command.env(SHARDS, bytes.to_string());
    }
    command.output().unwrap().status
}

/// Not a test of its own: the process that the tests below start, and that may not get to its end.
#[test]
fn the_child_saves_where_it_is_told_to() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let number = |variable| Some(env::var(variable).ok()?.parse::<u64>().unwrap());
    if let Some(bytes) = number(LONGEST_FILE) {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: bytes,
        };
        // SAFETY: both calls are about this process, and take no memory but the limit that is read.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
        }
    }
    let stop = number(KILLED_BEFORE).map_or(usize::MAX, |stop| stop as usize);
    // Nothing is cleaned up after this, as after a kill.
    save_until(Path::new(&folder), number(SHARDS), stop, || std::process::abort()).unwrap();
}

#[test]
fn a_save_that_is_killed_at_any_step_leaves_the_old_checkpoint_or_the_new() {
    for before in Before::ALL {
        for limit in [None, Some(THREE_FILES)] {
            for stop in 0.. {
                let folder = before.folder();
                let status = child(folder.path(), limit, KILLED_BEFORE, stop);
                let when = format!("to files of {limit:?}, killed after {stop} steps");
                before.assert_old_or_new(folder.path(), &when);
                if status.success() {
                    assert_eq!(found(folder.path()).unwrap(), content(&model(1)));
                    assert!(stop > 3, "a save takes steps");
                    break;
                }
                assert_saves_again(folder.path(), &when);
            }
        }
    }
}

#[test]
fn a_disk_that_takes_no_more_leaves_the_old_checkpoint_and_nothing_else() {
    for (limit, longest) in [
        (None, 100),
        (None, 600),
        (Some(THREE_FILES), 100),
        (Some(THREE_FILES), 200),
    ] {
        let folder = Before::OneFile.folder();
        let status = child(folder.path(), limit, LONGEST_FILE, longest);
        assert!(!status.success(), "files of {limit:?} fit into {longest} bytes");
        assert_eq!(found(folder.path()).unwrap(), content(&model(0)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_hidden_file_that_is_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut announce = |_: Step<'_>| Ok(());
    let mut other = Folder::new(folder.path(), [], &mut announce);
    let in_use = other.create("model.safetensors").unwrap();
    save(&model(1), folder.path(), &SaveOptions::new()).unwrap();
    assert_eq!(hidden(folder.path()), 1);
    drop(in_use);
    for name in [".model.safetensors.abcdef.tmp", ".other.safetensors.abcdef.tmp"] {
        fs::write(folder.path().join(name), "left").unwrap();
    }
    save(&model(1), folder.path(), &SaveOptions::new()).unwrap();
    assert_eq!(hidden(folder.path()), 1, "only that of another name");
}
