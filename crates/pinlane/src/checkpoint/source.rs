//! Where the files of a checkpoint are: what a path stands for.

use std::{
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
    /// What is at `path`: a file of tensors, an index, or a folder with one index or with files of tensors.
    pub(super) fn find(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::in_folder(path);
        }
        if name(path).ends_with(".json") {
            return Self::index(path.to_owned());
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
            0 => Ok(Self::Files(files)),
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

/// The last part of a path, as text that is good for comparing and for messages.
pub(super) fn name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
