//! What a checkpoint holds, known without reading any of it but the headers; and choosing parts of it.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use indexmap::{IndexMap, map::Entry as Slot};
use pinlane_driver::sync::Arc;

use super::{
    CheckpointError, IndexFault, Shard, ShardIndex, TensorInfo,
    source::{self, Source},
};
use crate::{DType, FileAccess, Result, Tensor};

/// A checkpoint in safetensors files, or a part of one: its tensors by name, still in their files.
///
/// Opening one reads headers only. The tensors come file by file, in the order of their data.
///
/// ```
/// use pinlane::{DType, Device, Tensor, TensorMap, checkpoint::{self, Checkpoint, SaveOptions}};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// let mut model = TensorMap::new();
/// model.insert("layer.0.weight", Tensor::randn(DType::BF16, &[16, 8], 1)?)?;
/// model.insert("layer.0.bias", Tensor::zeros(DType::F32, &[16])?)?;
/// checkpoint::save(&model, &path, &SaveOptions::default())?;
///
/// let checkpoint = Checkpoint::open(&path)?;
/// let weight = checkpoint.get("layer.0.weight").expect("saved above");
/// assert_eq!((weight.dtype(), weight.shape(), weight.bytes()), (DType::BF16, &[16, 8][..], 256));
///
/// let biases = checkpoint.matching("*.bias")?;
/// let there = biases.load(&Device::open("sim:0")?)?;
/// assert_eq!(there.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Checkpoint {
    shards: Arc<Vec<Shard>>,
    /// What the headers say, shard by shard.
    tensors: IndexMap<String, TensorInfo>,
    /// The shard of each tensor, by its place in `shards`.
    places: Vec<usize>,
}

/// One tensor of a [`Checkpoint`].
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    name: &'a str,
    shard: &'a Shard,
    info: &'a TensorInfo,
}

impl<'a> Entry<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The type of its elements.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.info.dtype
    }

    /// The size of each dimension.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        &self.info.shape
    }

    /// The size of its data in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.info.bytes()
    }

    /// The file that it is in.
    #[must_use]
    pub fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// Which bytes of that file it is.
    #[must_use]
    pub fn file_range(&self) -> Range<u64> {
        self.shard.data_start() + self.info.start..self.shard.data_start() + self.info.end
    }

    /// The tensor, where it lies: it is read when it is moved.
    ///
    /// # Errors
    ///
    /// None that a header leaves possible; those of [`Tensor`]s in general.
    pub fn tensor(&self) -> Result<Tensor> {
        self.shard.tensor(self.info)
    }
}

/// # Opening
impl Checkpoint {
    /// The checkpoint at `path`: one safetensors file, or what was saved as several under that name; an index, and the files
    /// beside it that it names; or a folder. In a folder an index says what belongs to the checkpoint; where there is none,
    /// every `*.safetensors` file does.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) for what is no checkpoint, breaks a rule of the format or contradicts
    /// itself, and [`Error::File`](crate::Error::File) for what the system refuses. Both name the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, FileAccess::default())
    }

    /// The same, read in this way: through the page cache or past it. By default, what is in the page cache is read from
    /// there, and what is not is read past it.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, access: FileAccess) -> Result<Self> {
        match Source::find(path.as_ref())? {
            Source::Files(files) => Self::open_files_with(files, access),
            Source::Index { path, index } => Self::by_index(&path, &index, access),
        }
    }

    /// The tensors of all these files.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_files<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<Self> {
        Self::open_files_with(files, FileAccess::default())
    }

    /// The same, read in this way, as for [`open_with`](Self::open_with).
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_files_with<P: AsRef<Path>>(
        files: impl IntoIterator<Item = P>,
        access: FileAccess,
    ) -> Result<Self> {
        let (mut shards, mut places) = (Vec::new(), Vec::new());
        let mut tensors = IndexMap::new();
        for path in files {
            let (shard, of_shard) = Shard::open(path.as_ref(), access)?;
            places.resize(places.len() + of_shard.len(), shards.len());
            shards.push(shard);
            if tensors.is_empty() {
                tensors = of_shard;
                continue;
            }
            tensors.reserve(of_shard.len());
            for (name, info) in of_shard {
                match tensors.entry(name) {
                    Slot::Vacant(free) => free.insert(info),
                    Slot::Occupied(taken) => {
                        return Err(CheckpointError::InTwoFiles {
                            tensor: taken.key().clone(),
                            first: shards[places[taken.index()]].path().to_owned(),
                            second: path.as_ref().to_owned(),
                        }
                        .into());
                    }
                };
            }
        }
        Ok(Self {
            shards: Arc::new(shards),
            tensors,
            places,
        })
    }

    /// The tensors that an index names, in the files that it names for them; and those files have no others.
    fn by_index(path: &Path, index: &ShardIndex, access: FileAccess) -> Result<Self> {
        let refuse = |fault| CheckpointError::Index {
            path: path.to_owned(),
            fault,
        };
        let mut first_tensors: IndexMap<&str, &str> = IndexMap::new();
        for (tensor, file) in index.files() {
            first_tensors.entry(file).or_insert(tensor);
        }
        first_tensors.sort_keys();
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut files: Vec<PathBuf> = Vec::with_capacity(first_tensors.len());
        for (file, tensor) in first_tensors {
            let found = folder.join(file);
            if !found.exists() {
                let (tensor, file) = (tensor.to_owned(), file.to_owned());
                return Err(refuse(IndexFault::MissingShard { tensor, file }).into());
            }
            files.push(found);
        }
        let opened = Self::open_files_with(files, access)?;
        for (tensor, file) in index.files() {
            let found = opened.get(tensor).map(|entry| source::name(entry.shard.path()));
            if found.as_ref() != Some(file) {
                let (tensor, file) = (tensor.clone(), file.clone());
                return Err(refuse(IndexFault::NotInShard { tensor, file }).into());
            }
        }
        let unnamed = opened
            .entries()
            .find(|entry| !index.files().contains_key(entry.name))
            .map(|entry| IndexFault::NotInIndex {
                tensor: entry.name.to_owned(),
                file: source::name(entry.shard.path()),
            });
        match unnamed {
            None => Ok(opened),
            Some(fault) => Err(refuse(fault).into()),
        }
    }
}

/// # What is in it
impl Checkpoint {
    /// Every tensor: file by file, in the order of their data.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> + Clone {
        let tensors = self.tensors.iter().zip(&self.places);
        tensors.map(|((name, info), &place)| Entry {
            name,
            shard: &self.shards[place],
            info,
        })
    }

    /// The tensor of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Entry<'_>> {
        let (index, name, info) = self.tensors.get_full(name)?;
        Some(Entry {
            name,
            shard: &self.shards[self.places[index]],
            info,
        })
    }

    /// The name of entry number `index`.
    pub(super) fn name(&self, index: usize) -> Option<&str> {
        Some(self.tensors.get_index(index)?.0)
    }

    /// The shard of each tensor, by its place in [`shards`](Self::shards).
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The bytes of all tensors.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(TensorInfo::bytes).sum()
    }

    /// The files that were opened, whether tensors of them are selected or not.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The metadata of all files; where two differ in a key, the first file's text.
    #[must_use]
    pub fn metadata(&self) -> IndexMap<&str, &str> {
        let mut all = IndexMap::new();
        for (key, text) in self.shards.iter().filter_map(Shard::metadata).flatten() {
            all.entry(key.as_str()).or_insert(text.as_str());
        }
        all
    }
}

/// # Choosing
///
/// What is chosen is a checkpoint again, over the same open files.
impl Checkpoint {
    /// The tensors of these names, in the checkpoint's order.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NoSuchTensor`] for a name that is not there.
    pub fn only<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Result<Self> {
        let mut wanted = vec![false; self.len()];
        for name in names {
            let name = name.as_ref();
            let index = self.tensors.get_index_of(name).ok_or_else(|| no_such(name))?;
            wanted[index] = true;
        }
        let mut wanted = wanted.into_iter();
        Ok(self.filter(|_| wanted.next() == Some(true)))
    }

    /// The tensors whose names match a pattern: `*` for any text, `?` for a character, `[abc]` and `[!abc]` for one of a set.
    /// There may be none.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Pattern`].
    pub fn matching(&self, pattern: &str) -> Result<Self> {
        let compiled = glob::Pattern::new(pattern).map_err(|error| CheckpointError::Pattern {
            pattern: pattern.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(self.filter(|entry| compiled.matches(entry.name)))
    }

    /// The tensors that `wanted` says. It is asked once for each, in order.
    #[must_use]
    pub fn filter(&self, mut wanted: impl FnMut(Entry<'_>) -> bool) -> Self {
        let chosen: Vec<_> = self
            .entries()
            .zip(&self.places)
            .filter(|(entry, _)| wanted(*entry))
            .collect();
        Self {
            shards: Arc::clone(&self.shards),
            places: chosen.iter().map(|&(_, &place)| place).collect(),
            tensors: chosen
                .into_iter()
                .map(|(entry, _)| (entry.name.to_owned(), entry.info.clone()))
                .collect(),
        }
    }

    /// A tensor, where it lies: it is read when it is moved.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NoSuchTensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.get(name).ok_or_else(|| no_such(name))?.tensor()
    }

    /// A part of a tensor: the indices in each of `ranges` for as many dimensions, the first ones, and all of the others. Only
    /// the bytes of that part are read, when it is moved.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NoSuchTensor`] and, for a dimension or a range that is not there, [`CheckpointError::Slice`];
    /// [`Error::DType`](crate::Error::DType) for elements narrower than a byte where the part begins or ends inside one.
    pub fn slice(&self, name: &str, ranges: &[Range<usize>]) -> Result<Tensor> {
        let whole = self.tensor(name)?;
        let mut layout = whole.layout().clone();
        for (dim, range) in ranges.iter().enumerate() {
            layout = layout
                .slice(dim, range.clone(), 1)
                .map_err(|source| CheckpointError::Slice {
                    tensor: name.to_owned(),
                    source,
                })?;
        }
        let span = layout.span();
        whole.dtype().bytes_for(span.start)?;
        whole.dtype().bytes_for(span.end)?;
        whole.view(layout)
    }
}

fn no_such(name: &str) -> CheckpointError {
    CheckpointError::NoSuchTensor {
        tensor: name.to_owned(),
    }
}

impl fmt::Debug for Checkpoint {
    /// The files and how much there is in them: all the names would bury what else is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("files", &self.shards.iter().map(Shard::path).collect::<Vec<_>>())
            .field("tensors", &self.len())
            .field("bytes", &self.bytes())
            .finish()
    }
}
