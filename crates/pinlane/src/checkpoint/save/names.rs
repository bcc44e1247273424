//! What the files of a saved checkpoint are called.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Error, Result,
    checkpoint::{
        CheckpointError,
        source::{self, INDEX_SUFFIX, Part, SUFFIX},
    },
};

/// The file in a folder that was given.
const IN_FOLDER: &str = "model.safetensors";

/// Where a checkpoint is saved: the names of all files that it may have.
pub(super) struct Target {
    folder: PathBuf,
    single: String,
    index: String,
    /// What the names of its parts begin with.
    stem: String,
    /// Whether the folder was named, not a file in it.
    is_folder: bool,
}

impl Target {
    /// The checkpoint at `path`, a file or a folder that is there. What ends with a slash is a folder.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let refuse = |reason: &str| CheckpointError::CannotHold {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let is_folder = path.is_dir();
        let (folder, single) = if is_folder {
            (path, IN_FOLDER)
        } else if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(refuse("there is no such folder; make it first, or name a file").into());
        } else {
            let name = path
                .file_name()
                .ok_or_else(|| refuse("the path has no file name"))?;
            let name = name
                .to_str()
                .ok_or_else(|| refuse("the file's name is no UTF-8"))?;
            if name.ends_with(".json") {
                return Err(refuse("the name is that of an index; name the file of tensors").into());
            }
            (path.parent().unwrap_or(Path::new("")), name)
        };
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        if !folder.is_dir() {
            return Err(Error::File {
                doing: "saving to".to_owned(),
                path: path.to_owned(),
                source: io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("the folder {} is not there; make it first", folder.display()),
                ),
            });
        }
        let index = source::index_name(single);
        for name in [single, &index] {
            let path = folder.join(name);
            if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
                return Err(CheckpointError::CannotHold {
                    reason: "what is there is no regular file, and would be replaced; name another"
                        .to_owned(),
                    path,
                }
                .into());
            }
        }
        let stem = single.strip_suffix(SUFFIX).unwrap_or(single);
        Ok(Self {
            folder: folder.to_owned(),
            single: single.to_owned(),
            index,
            stem: stem.to_owned(),
            is_folder,
        })
    }

    /// Whether the folder was named, and all in it that can be opened so is what the save replaces.
    pub(super) fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// The folder of all files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file, where one does.
    pub(super) fn single(&self) -> &str {
        &self.single
    }

    /// The index, where one does not.
    pub(super) fn index(&self) -> &str {
        &self.index
    }

    /// Names for so many parts, which no file has. Where there are parts already, the new ones are of a later round: what is
    /// left of a save that did not end can be told by that.
    pub(super) fn parts(&self, count: usize, has_parts: bool) -> Vec<String> {
        let mut round = if has_parts { 2_u32 } else { 1 };
        loop {
            let stem = match round {
                1 => self.stem.clone(),
                _ => format!("{}-r{round}", self.stem),
            };
            let names: Vec<_> = (1..=count)
                .map(|number| format!("{stem}-{number:05}-of-{count:05}{SUFFIX}"))
                .collect();
            let is_free = |name: &String| fs::symlink_metadata(self.folder.join(name)).is_err();
            if names.iter().all(is_free) {
                return names;
            }
            round += 1;
        }
    }

    /// The files of tensors in the folder that are not hidden, and the target's own, whatever it is called; sorted.
    pub(super) fn visible(&self) -> Result<Vec<String>> {
        let mut names = self.names()?;
        names.retain(|name| *name == self.single || (name.ends_with(SUFFIX) && !name.starts_with('.')));
        Ok(names)
    }

    /// The hidden files that a save to this target made and did not name, or has not yet.
    pub(super) fn drafts(&self) -> Result<Vec<String>> {
        let is_own = |name: &String| {
            let rest = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp"));
            let made = rest.and_then(|rest| rest.rsplit_once('.'));
            made.is_some_and(|(name, _)| name == self.index || self.may_own(name))
        };
        let mut names = self.names()?;
        names.retain(is_own);
        Ok(names)
    }

    /// The index of another checkpoint in the folder, if there is one.
    pub(super) fn other_index(&self) -> Result<Option<String>> {
        let is_other =
            |name: &String| *name != self.index && name.ends_with(INDEX_SUFFIX) && !name.starts_with('.');
        Ok(self.names()?.into_iter().find(is_other))
    }

    /// What is in the folder; sorted.
    fn names(&self) -> Result<Vec<String>> {
        let failed = |source| Error::File {
            doing: "listing the folder".to_owned(),
            path: self.folder.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            names.push(source::name(&entry.map_err(failed)?.path()));
        }
        names.sort();
        Ok(names)
    }

    /// Whether a file of that name could be one of this checkpoint, of whatever save and by whatever program: the one file, or
    /// `model-1-of-2.safetensors`.
    pub(super) fn may_own(&self, name: &str) -> bool {
        let round = || {
            let (rest, total) = name.strip_suffix(SUFFIX)?.rsplit_once("-of-")?;
            let (stem, number) = rest.rsplit_once('-')?;
            (is_number(number) && is_number(total)).then_some(stem.strip_prefix(&self.stem)?)
        };
        name == self.single || round().is_some_and(|round| round.is_empty() || is_round(round))
    }

    /// Whether a file of that name is a part of a later round than the first, which only a save to this target calls so.
    pub(super) fn is_later_part(&self, name: &str) -> bool {
        Part::of(name).is_some_and(|part| part.stem.strip_prefix(&self.stem).is_some_and(is_round))
    }
}

/// Whether the end of a stem is that of a later round: `-r2`.
fn is_round(text: &str) -> bool {
    text.strip_prefix("-r").is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_knows_its_own_files_from_others() {
        let target = Target::at(Path::new("model.safetensors")).unwrap();
        for name in [
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "model-r2-00001-of-00002.safetensors",
            "model-r13-123456-of-200000.safetensors",
            "model-1-of-2.safetensors",
        ] {
            assert!(target.may_own(name), "{name}");
            assert_eq!(target.is_later_part(name), name.contains("-r"), "{name}");
        }
        for name in [
            "model.safetensors.index.json",
            "model-fp16-00001-of-00002.safetensors",
            "model-r-00001-of-00002.safetensors",
            "model-00001-of-00002.bin",
            "model-one-of-2.safetensors",
            "mode-00001-of-00002.safetensors",
            "other.safetensors",
            ".model.safetensors.abc.tmp",
        ] {
            assert!(!target.may_own(name) && !target.is_later_part(name), "{name}");
        }
    }
}
