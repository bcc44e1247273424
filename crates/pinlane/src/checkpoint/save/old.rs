//! The checkpoint that a save replaces: which files it is, which of them go with it, and what else lies beside them.
//!
//! Files are somebody's. Those that go are the ones that the old index named, or that the folder or the file was opened as, as
//! far as they have names of this checkpoint; the file whose place the new one takes; and what a save that was killed left
//! behind under a name with a round (`model-r2-...`), which nobody else gives. All others stay.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::{draft::Folder, form, names::Target, write_index};
use crate::{
    Result,
    checkpoint::{Checkpoint, CheckpointError, Entry, ShardIndex, source},
};

/// What is at the target before the save.
pub(super) struct Old {
    /// The file of each tensor that readers find. None where there is no checkpoint, or one that can't be read.
    tensors: IndexMap<String, String>,
    bytes: u64,
    /// Whether an index says so.
    has_index: bool,
    /// Files that go with it.
    goes: Vec<String>,
    /// Other files of tensors in the folder.
    stays: Vec<String>,
    /// Whether someone who opens the folder would take what stays for parts of the new checkpoint.
    needs_index: bool,
}

impl Old {
    pub(super) fn find(target: &Target) -> Result<Self> {
        let visible = target.visible()?;
        let index = target.folder().join(target.index());
        let has_index = index.exists();
        if target.is_folder()
            && !has_index
            && let Some(other) = target.other_index()?
        {
            return Err(CheckpointError::CannotHold {
                path: target.folder().to_owned(),
                reason: format!(
                    "the folder has the index {other} of another checkpoint, which whoever opens the folder would go on to find; \
                     name a file, or remove that checkpoint first"
                ),
            }
            .into());
        }
        let has_single = visible.iter().any(|name| name == target.single());
        // What can't be read is no checkpoint that readers have to find until the new one is there.
        let (tensors, bytes) = if has_index {
            let read = ShardIndex::read(&index).map(|index| index.files().clone());
            (read.unwrap_or_default(), 0)
        } else {
            let opened = if target.is_folder() {
                Checkpoint::open(target.folder()).ok()
            } else {
                has_single
                    .then(|| Checkpoint::open_files([target.folder().join(target.single())]).ok())
                    .flatten()
            };
            let file = |entry: Entry<'_>| (entry.name().to_owned(), source::name(entry.shard().path()));
            opened.map_or_else(Default::default, |old| {
                (old.entries().map(file).collect(), old.bytes())
            })
        };
        let old: HashSet<&String> = tensors.values().collect();
        let is_old = |name: &String| old.contains(name);
        let (goes, stays): (Vec<_>, Vec<_>) = visible.into_iter().partition(|name| {
            name == target.single() || target.is_later_part(name) || (target.may_own(name) && is_old(name))
        });
        let needs_index = if has_index || target.is_folder() {
            !stays.is_empty()
        } else {
            // What else is in the folder of a file is none of its business, unless it looks like parts of that file.
            !has_single && stays.iter().any(|name| target.may_own(name))
        };
        Ok(Self {
            tensors,
            bytes,
            has_index,
            goes,
            stays,
            needs_index,
        })
    }

    /// The files that are replaced, as far as they are there: the target's own first.
    pub(super) fn replaced<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a str> {
        let old = self.tensors.values().map(String::as_str);
        [target.single()].into_iter().chain(old).chain([target.index()])
    }

    /// Whether an index has to say what the new checkpoint is, even if that is one file.
    pub(super) fn needs_index(&self) -> bool {
        self.needs_index
    }

    /// Whether an index says what the old checkpoint is.
    pub(super) fn has_index(&self) -> bool {
        self.has_index
    }

    /// Whether the old checkpoint is the target's one file, or there is none.
    pub(super) fn is_single(&self, target: &Target) -> bool {
        self.tensors.values().all(|file| file == target.single())
    }

    /// Whether there is no old checkpoint.
    pub(super) fn is_nothing(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Whether one new file of these tensors may have the target's own name before the index that names it is there: the old
    /// checkpoint must not lose a file by it, nor its index be wrong.
    pub(super) fn lets_go_of_single<'a>(
        &self,
        target: &Target,
        mut tensors: impl ExactSizeIterator<Item = &'a str>,
    ) -> bool {
        let has_single = || self.tensors.values().any(|file| file == target.single());
        let is_only_file = self.is_single(target) && !self.needs_index;
        let mut same_names = || {
            self.has_index
                && self.is_single(target)
                && tensors.len() == self.tensors.len()
                && tensors.all(|name| self.tensors.contains_key(name))
        };
        is_only_file || !has_single() || same_names()
    }

    /// Sees to it that readers of the folder find the old checkpoint, and nothing of the new one, while files get their names:
    /// an index names it, from here on.
    pub(super) fn hold(&self, target: &Target, folder: &mut Folder<'_>) -> Result<()> {
        if self.has_index || self.is_nothing() {
            return Ok(());
        }
        let files = self
            .tensors
            .iter()
            .map(|(name, file)| (name.as_str(), file.as_str()));
        let index = write_index(&form::index(files, self.bytes), target, folder)?;
        folder.publish(target.index(), index, true)?;
        folder.sync()
    }

    /// Removes the files that go, but for those `kept`.
    pub(super) fn clear(&self, kept: &[String], folder: &mut Folder<'_>) -> Result<()> {
        let going: Vec<_> = self.goes.iter().filter(|name| !kept.contains(name)).collect();
        for name in &going {
            folder.remove(name)?;
        }
        if going.is_empty() { Ok(()) } else { folder.sync() }
    }

    /// Whether any file here is one of several that the target was saved as.
    pub(super) fn has_parts(&self, target: &Target) -> bool {
        let all = self.goes.iter().chain(&self.stays);
        all.into_iter()
            .any(|name| name != target.single() && target.may_own(name))
    }
}
