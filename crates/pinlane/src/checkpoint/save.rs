//! Saving: a tree of named tensors to one file, or to several and an index, so that whoever reads finds the old checkpoint or
//! the new one, whole, whatever happens in between.
//!
//! A file gets its name when all of it is on the disk. What makes several files one checkpoint is the index, so these are
//! the steps of a save, each of which leaves one whole checkpoint behind for those who read the folder or the index:
//!
//! 1. *Written*: all new files are there under hidden names, synced. Until here nothing that is there was touched.
//! 2. *Held*: where one file is about to be followed by several, an index is put beside it that names it alone, so that the
//!    several are not taken for parts of it.
//! 3. *Named*: the new files get their names, which no file of the old checkpoint has. One file that follows one file takes
//!    its name instead, and that is all.
//! 4. *Switched*: the new index takes the place of the old. Before, the checkpoint is the old one; from here on, the new one.
//! 5. *Cleared*: the files of the old checkpoint are removed, and, where the new one is one file, the index.
//!
//! A save that is killed leaves hidden files, or files that no index names. The next save to the same path removes the
//! latter.

mod draft;
mod form;
#[cfg(test)]
mod interrupted;
mod names;
mod write;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use self::{
    draft::{Draft, Folder, Step},
    form::Form,
    names::Target,
};
use super::{Checkpoint, CheckpointError, Entry, ShardIndex, source};
use crate::{Error, Result, Tensor, Tree};

/// How a checkpoint is saved. `Default` is one file without metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaveOptions {
    max_shard_bytes: Option<u64>,
    metadata: Option<IndexMap<String, String>>,
}

impl SaveOptions {
    /// One file, no metadata.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// At most so many bytes of tensors in a file; a tensor that is larger gets a file of its own. Where one file does not do,
    /// there are several and an index.
    #[must_use]
    pub fn max_shard_bytes(mut self, bytes: u64) -> Self {
        self.max_shard_bytes = Some(bytes);
        self
    }

    /// A text for the header's `__metadata__`, of every file. `format` = `pt` is what torch's users write there.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.metadata
            .get_or_insert_default()
            .insert(key.into(), text.into());
        self
    }
}

/// What a save has made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// The files of tensors.
    pub files: Vec<PathBuf>,
    /// The index, where there is more than one.
    pub index: Option<PathBuf>,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// Saves a tree of named tensors, which may be anywhere, to `path`: a file, best called `*.safetensors`, or a folder that is
/// there, which gets a `model.safetensors` (what is not there becomes a file, unless it ends with a slash, which is an error). With [`SaveOptions::max_shard_bytes`] there may be several files instead, called
/// `name-00001-of-00002.safetensors` and so on, and the index `name.safetensors.index.json`.
///
/// The files are those that the reference implementation writes, byte for byte. An old checkpoint at `path` is replaced as a
/// whole: a reader finds it or the new one, even if the save fails, the disk is full or the process is killed. If several
/// files replace several, the new ones are called `name-r2-00001-of-...`, and the old ones are removed at the end. Two saves
/// to the same path at the same time are not for this function.
///
/// What is on a device is written out of slots, so the host holds no more of it than those.
///
/// ```
/// use pinlane::{DType, Tensor, TensorMap, checkpoint::{self, SaveOptions}};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// let mut model = TensorMap::new();
/// for layer in 0..4 {
///     model.insert(format!("layers.{layer}.weight"), Tensor::zeros(DType::F32, &[256])?)?;
/// }
/// let options = SaveOptions::new().max_shard_bytes(2048).metadata("format", "pt");
/// let saved = checkpoint::save(&model, &path, &options)?;
/// assert_eq!(saved.files.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`CheckpointError::CannotHold`] for tensors that the format can't hold, [`Error::DuplicateName`] for nested maps whose
/// paths are the same, [`Error::Leaf`] for what fails on the way to the host, [`Error::File`] for what the system refuses.
/// Whatever happens, what was at `path` is there or has been replaced as a whole.
pub fn save<T: Tree>(tree: &T, path: impl AsRef<Path>, options: &SaveOptions) -> Result<Saved> {
    save_announced(tree, path.as_ref(), options, &mut |_| Ok(()))
}

/// [`save`], where `announce` hears of each step before it is taken and may stop the save there.
fn save_announced<T: Tree>(
    tree: &T,
    path: &Path,
    options: &SaveOptions,
    announce: &mut dyn FnMut(Step<'_>) -> Result<()>,
) -> Result<Saved> {
    let target = Target::at(path)?;
    let forms = form::divide(named(tree, path)?, options, path)?;
    let names = target.files(forms.len());
    let is_sharded = forms.len() > 1;
    let bytes = forms.iter().map(Form::data_bytes).sum();
    let mut folder = Folder::new(target.folder(), announce);

    let drafts = names.iter().map(|name| folder.create(name));
    let drafts = drafts.collect::<Result<Vec<_>>>()?;
    write::write(&forms, &drafts)?;
    for (name, draft) in names.iter().zip(&drafts) {
        folder.finish(name, draft)?;
    }

    let has_index = Old::find(&target)?.hold(is_sharded, &target, &mut folder)?;
    let index = if is_sharded || has_index {
        let files = forms.iter().zip(&names);
        let files = files.flat_map(|(form, file)| form.names().map(move |tensor| (tensor, file.as_str())));
        Some(write_index(&form::index(files, bytes), &target, &mut folder)?)
    } else {
        None
    };

    for (draft, name) in drafts.into_iter().zip(&names) {
        folder.publish(name, draft, !is_sharded)?;
    }
    folder.sync()?;

    if let Some(index) = index {
        folder.publish(target.index(), index, true)?;
        folder.sync()?;
    }

    clear(&names, &target, &mut folder)?;
    if has_index && !is_sharded {
        folder.remove(target.index())?;
        folder.sync()?;
    }
    Ok(Saved {
        files: names.iter().map(|name| target.folder().join(name)).collect(),
        index: is_sharded.then(|| target.folder().join(target.index())),
        bytes,
    })
}

/// The checkpoint that is at the target.
enum Old {
    Nothing,
    /// Files without an index.
    Loose(Checkpoint),
    /// An index, and the files that it names: perhaps the single one alone, which is how a save looks that was killed before
    /// its last step.
    Indexed {
        only_single: bool,
    },
}

impl Old {
    fn find(target: &Target) -> Result<Self> {
        let index = target.folder().join(target.index());
        if index.exists() {
            let only_single = ShardIndex::read(&index)
                .is_ok_and(|index| index.files().values().all(|file| file == target.single()));
            return Ok(Self::Indexed { only_single });
        }
        let files = target.others(&[])?;
        if files.is_empty() {
            return Ok(Self::Nothing);
        }
        // What can't be read is no checkpoint that readers have to find until the new one is there.
        let files = files.iter().map(|file| target.folder().join(file));
        Ok(Checkpoint::open_files(files).map_or(Self::Nothing, Self::Loose))
    }

    /// Sees to it that readers find the old checkpoint, and nothing of the new one, while files get their names. Says whether
    /// that is because of an index.
    fn hold(&self, is_sharded: bool, target: &Target, folder: &mut Folder<'_>) -> Result<bool> {
        match self {
            Self::Nothing => Ok(false),
            Self::Loose(old) => {
                let file = |entry: Entry<'_>| source::name(entry.shard().path());
                if !is_sharded && old.entries().all(|entry| file(entry) == target.single()) {
                    return Ok(false);
                }
                let files: Vec<_> = old.entries().map(|entry| (entry.name(), file(entry))).collect();
                let files = files.iter().map(|(tensor, file)| (*tensor, file.as_str()));
                let index = write_index(&form::index(files, old.bytes()), target, folder)?;
                folder.publish(target.index(), index, true)?;
                folder.sync()?;
                Ok(true)
            }
            Self::Indexed { only_single: true } if !is_sharded => {
                clear(&[target.single().to_owned()], target, folder)?;
                folder.remove(target.index())?;
                folder.sync()?;
                Ok(false)
            }
            Self::Indexed { .. } => Ok(true),
        }
    }
}

/// The tensors with their names.
fn named<T: Tree>(tree: &T, path: &Path) -> Result<IndexMap<String, Tensor>> {
    let mut tensors = Vec::new();
    tree.visit(&mut |tensor| tensors.push(tensor.clone()));
    if !tree.has_names() && !tensors.is_empty() {
        return Err(CheckpointError::CannotHold {
            path: path.to_owned(),
            reason:
                "the tensors have no names; use a TensorMap, or implement `Tree::has_names` and `Tree::path`"
                    .to_owned(),
        }
        .into());
    }
    let mut named = IndexMap::with_capacity(tensors.len());
    for (index, tensor) in tensors.into_iter().enumerate() {
        let name = tree.path(index);
        if named.contains_key(&name) {
            return Err(Error::DuplicateName { path: name });
        }
        named.insert(name, tensor);
    }
    Ok(named)
}

/// Writes an index under a hidden name, down to the disk.
fn write_index(json: &[u8], target: &Target, folder: &mut Folder<'_>) -> Result<Draft> {
    let draft = folder.create(target.index())?;
    draft.write_at(json, 0)?;
    folder.finish(target.index(), &draft)?;
    Ok(draft)
}

/// Removes the target's files, or what were such, that are not among `names`.
fn clear(names: &[String], target: &Target, folder: &mut Folder<'_>) -> Result<()> {
    let others = target.others(names)?;
    for name in &others {
        folder.remove(name)?;
    }
    if others.is_empty() { Ok(()) } else { folder.sync() }
}
