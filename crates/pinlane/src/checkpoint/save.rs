//! Saving: a tree of named tensors to one file, or to several and an index, so that whoever reads finds the old checkpoint or
//! the new one, whole, whatever happens in between.
//!
//! A file gets its name when all of it is on the disk. What makes several files one checkpoint is the index, so these are
//! the steps of a save, each of which leaves one whole checkpoint behind for those who read the folder or the index:
//!
//! 1. *Written*: all new files are there under hidden names, synced. Until here nothing that is there was touched.
//! 2. *Held*: where the old checkpoint has no index, and is not one file that one file follows, it gets one, so that new files
//!    are not taken for parts of it.
//! 3. *Named*: the new files get their names, which no file of the old checkpoint has. One file that follows one file takes
//!    its name instead, and that is all.
//! 4. *Switched*: the new index takes the place of the old. Before, the checkpoint is the old one; from here on, the new one.
//! 5. *Cleared*: the files of the old checkpoint are removed ([`old`] says which), and, where the new one is one file under the
//!    target's own name and nothing is left that could be taken for a part of it, the index.
//!
//! A save that is killed leaves hidden files, or files that no index names. The next save to the same path removes the former,
//! which nobody has locked, and the latter where their names have a round.

mod draft;
mod form;
#[cfg(test)]
mod interrupted;
mod names;
mod old;
mod write;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use self::{
    draft::{Draft, Folder, Step},
    form::Form,
    names::Target,
    old::Old,
};
use super::CheckpointError;
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
    /// The index, where there is more than one, or other files of tensors lie beside the one.
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
/// files replace several, the new ones are called `name-r2-00001-of-...`, and the old ones are removed at the end. Files that are
/// not the old checkpoint's stay; where they lie beside the new one, an index says what belongs to it. Two saves to the same path
/// at the same time are not for this function. [`save_file`] writes one file and touches no other.
///
/// New files have the permissions of those that they replace. A symbolic link at `path` is replaced too, not what it points to;
/// what is neither a file nor a folder, such as a pipe, is refused.
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
    let old = Old::find(&target)?;
    let names = match &forms[..] {
        [form] if old.lets_go_of_single(&target, form.names()) => vec![target.single().to_owned()],
        _ => target.parts(forms.len(), old.has_parts(&target)),
    };
    let is_single = names[0] == target.single();
    let keeps_index = !is_single || old.needs_index();
    let bytes = forms.iter().map(Form::data_bytes).sum();
    let mut folder = Folder::new(target.folder(), old.replaced(&target), announce);
    for name in target.drafts()? {
        folder.remove_abandoned(&name)?;
    }
    let drafts = write_drafts(&forms, &names, &mut folder)?;

    let is_one_by_one = !keeps_index && old.is_single(&target) && !(old.is_nothing() && old.has_index());
    if is_one_by_one {
        if old.has_index() {
            old.clear(&names, &mut folder)?;
            folder.remove(target.index())?;
            folder.sync()?;
        }
    } else {
        old.hold(&target, &mut folder)?;
    }
    let index = if keeps_index || !is_one_by_one {
        let files = forms.iter().zip(&names);
        let files = files.flat_map(|(form, file)| form.names().map(move |tensor| (tensor, file.as_str())));
        Some(write_index(&form::index(files, bytes), &target, &mut folder)?)
    } else {
        None
    };

    for (draft, name) in drafts.into_iter().zip(&names) {
        folder.publish(name, draft, is_single)?;
    }
    folder.sync()?;

    if let Some(index) = index {
        folder.publish(target.index(), index, true)?;
        folder.sync()?;
        old.clear(&names, &mut folder)?;
        if !keeps_index {
            folder.remove(target.index())?;
            folder.sync()?;
        }
    } else {
        old.clear(&names, &mut folder)?;
    }
    Ok(Saved {
        files: names.iter().map(|name| target.folder().join(name)).collect(),
        index: keeps_index.then(|| target.folder().join(target.index())),
        bytes,
    })
}

/// Saves a tree of named tensors to the one file `path`, as [`save`] does, and touches no other: no index of that file's name,
/// and no files that it was saved as before.
///
/// # Errors
///
/// As for [`save`]; [`CheckpointError::CannotHold`] for a folder, and for tensors of more bytes than
/// [`SaveOptions::max_shard_bytes`].
pub fn save_file<T: Tree>(tree: &T, path: impl AsRef<Path>, options: &SaveOptions) -> Result<Saved> {
    let path = path.as_ref();
    let refuse = |reason: &str| CheckpointError::CannotHold {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let target = Target::at(path)?;
    if target.is_folder() {
        return Err(refuse("it is a folder; name a file in it").into());
    }
    let forms = form::divide(named(tree, path)?, options, path)?;
    if forms.len() > 1 {
        return Err(refuse(
            "the tensors do not fit one file of max_shard_bytes; use `save`, which makes several",
        )
        .into());
    }
    let names = [target.single().to_owned()];
    let announce = &mut |_: Step<'_>| Ok(());
    let mut folder = Folder::new(target.folder(), [target.single()], announce);
    for draft in write_drafts(&forms, &names, &mut folder)? {
        folder.publish(target.single(), draft, true)?;
    }
    folder.sync()?;
    Ok(Saved {
        files: vec![target.folder().join(target.single())],
        index: None,
        bytes: forms.iter().map(Form::data_bytes).sum(),
    })
}

/// All new files under hidden names, down to the disk.
fn write_drafts(forms: &[Form], names: &[String], folder: &mut Folder<'_>) -> Result<Vec<Draft>> {
    let drafts = names.iter().map(|name| folder.create(name));
    let drafts = drafts.collect::<Result<Vec<_>>>()?;
    write::write(forms, &drafts)?;
    for (name, draft) in names.iter().zip(&drafts) {
        folder.finish(name, draft)?;
    }
    Ok(drafts)
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
