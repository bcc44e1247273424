//! Where the files of a checkpoint are: what a path stands for.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::{CheckpointError, ShardIndex};
use crate::{Error, Result};

/// The end of a tensor file's name.
pub(super) const SUFFIX: &str = ".safetensors";

/// The end of an index's name.
pub(super) const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// The files of a checkpoint.
pub(super) enum Source {
    /// All tensors of all these files.
    Files(Vec<PathBuf>),
    /// What an index says, of the files beside it.
    Index { path: PathBuf, index: ShardIndex },
}

impl Source {
    /// What is at `path`: a file of tensors, an index, or a folder with one index or with files of tensors. A file that was
    /// saved as several is found by its index.
    pub(super) fn find(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::in_folder(path);
        }
        if name(path).ends_with(".json") {
            return Self::index(path.to_owned());
        }
        let index = path.with_file_name(index_name(&name(path)));
        if !path.exists() && index.exists() {
            return Self::index(index);
        }
        Ok(Self::Files(vec![path.to_owned()]))
    }

    fn index(path: PathBuf) -> Result<Self> {
        let index = ShardIndex::read(&path)?;
        Ok(Self::Index { path, index })
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        let (mut files, mut indexes) = (Vec::new(), Vec::new());
        let failed = |source: io::Error| Error::File {
            doing: "listing the folder".to_owned(),
            path: folder.to_owned(),
            source,
        };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = name(&path);
            // A hidden file is a save that has not ended, or never will.
            if name.starts_with('.') {
                continue;
            }
            if name.ends_with(INDEX_SUFFIX) {
                indexes.push(path);
            } else if name.ends_with(SUFFIX) {
                files.push(path);
            }
        }
        files.sort();
        indexes.sort();
        let refuse = |reason: String| CheckpointError::NotFound {
            path: folder.to_owned(),
            reason,
        };
        match indexes.len() {
            0 if files.is_empty() => Err(refuse(format!("the folder has no *{SUFFIX} file")).into()),
            0 => match missing_part(&files) {
                None => Ok(Self::Files(files)),
                Some(part) => Err(refuse(format!("there is no index, and {part} is missing")).into()),
            },
            1 => Self::index(indexes.remove(0)),
            _ => Err(refuse(format!(
                "the folder has several indexes ({}); name the one that is meant",
                indexes
                    .iter()
                    .map(|path| name(path))
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
            .into()),
        }
    }
}

/// What the index of a checkpoint is called whose one file would be called `file`.
pub(super) fn index_name(file: &str) -> String {
    format!("{}{INDEX_SUFFIX}", file.strip_suffix(SUFFIX).unwrap_or(file))
}

/// The last part of a path, as text that is good for comparing and for messages.
pub(super) fn name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// A name such as `model-00001-of-00003.safetensors`, of one of several files of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part<'a> {
    pub(super) stem: &'a str,
    /// The digits of how many there are.
    total: &'a str,
    /// The digits of which one it is.
    number: &'a str,
}

impl<'a> Part<'a> {
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let (rest, total) = name.strip_suffix(SUFFIX)?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let is_count = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        (is_count(number) && is_count(total)).then_some(Self { stem, total, number })
    }
}

/// A file that should be there too, by the names of those that are: half a checkpoint is none.
fn missing_part(files: &[PathBuf]) -> Option<String> {
    let names: Vec<String> = files.iter().map(|path| name(path)).collect();
    let known: HashSet<&str> = names.iter().map(String::as_str).collect();
    let sets: BTreeSet<_> = names
        .iter()
        .filter_map(|name| Part::of(name))
        .map(|part| (part.stem, part.total, part.number.len()))
        .collect();
    sets.into_iter().find_map(|(stem, total, width)| {
        let count = total.parse::<usize>().ok()?;
        (1..=count)
            .map(|number| format!("{stem}-{number:0width$}-of-{total}{SUFFIX}"))
            .find(|name| !known.contains(name.as_str()))
    })
}
