//! What the files of a saved checkpoint are called.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Error, Result,
    checkpoint::{
        CheckpointError,
        source::{self, Part, SUFFIX},
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
}

impl Target {
    /// The checkpoint at `path`, a file or a folder that is there. What ends with a slash is a folder.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let refuse = |reason: &str| CheckpointError::CannotHold {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let (folder, single) = if path.is_dir() {
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
        let stem = single.strip_suffix(SUFFIX).unwrap_or(single);
        Ok(Self {
            folder: folder.to_owned(),
            single: single.to_owned(),
            index: source::index_name(single),
            stem: stem.to_owned(),
        })
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

    /// Names for so many files. Where it is one, that is the [`single`](Self::single) one; else no file has them.
    pub(super) fn files(&self, count: usize) -> Vec<String> {
        if count == 1 {
            return vec![self.single.clone()];
        }
        let mut round = 1_u32;
        loop {
            let stem = match round {
                1 => self.stem.clone(),
                _ => format!("{}-r{round}", self.stem),
            };
            let names: Vec<_> = (1..=count)
                .map(|number| format!("{stem}-{number:05}-of-{count:05}{SUFFIX}"))
                .collect();
            if !names.iter().any(|name| self.folder.join(name).exists()) {
                return names;
            }
            round += 1;
        }
    }

    /// The files in the folder, other than `names`, that are of this checkpoint or were: the one file, and parts.
    pub(super) fn others(&self, names: &[String]) -> Result<Vec<String>> {
        let failed = |source| Error::File {
            doing: "listing the folder".to_owned(),
            path: self.folder.clone(),
            source,
        };
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = source::name(&entry.map_err(failed)?.path());
            if self.has(&name) && !names.contains(&name) {
                others.push(name);
            }
        }
        others.sort();
        Ok(others)
    }

    /// Whether a file of that name is one of this checkpoint, of whatever save.
    fn has(&self, name: &str) -> bool {
        let is_ours = |part: Part<'_>| {
            part.stem
                .strip_prefix(&self.stem)
                .is_some_and(|round| round.is_empty() || is_round(round))
        };
        name == self.single || Part::of(name).is_some_and(is_ours)
    }
}

/// Whether the end of a stem is that of a later round: `-r2`.
fn is_round(text: &str) -> bool {
    text.strip_prefix("-r")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_knows_its_own_files_from_others() {
        let target = Target::at(Path::new("no/such/folder/model.safetensors")).unwrap();
        for name in [
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "model-r2-00001-of-00002.safetensors",
            "model-r13-123456-of-200000.safetensors",
        ] {
            assert!(target.has(name), "{name}");
        }
        for name in [
            "model.safetensors.index.json",
            "model-fp16-00001-of-00002.safetensors",
            "model-r-00001-of-00002.safetensors",
            "model-00001-of-00002.bin",
            "model-1-of-2.safetensors",
            "mode-00001-of-00002.safetensors",
            "other.safetensors",
            ".model.safetensors.abc.tmp",
        ] {
            assert!(!target.has(name), "{name}");
        }
    }
}
