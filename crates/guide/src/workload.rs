//! The tensors that the experiments move: made up in the sizes of the guide, or those of a checkpoint.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use pinlane::{DType, Tensor};
use safetensors::{SafeTensors, tensor::TensorView};

use crate::{
    error::{Error, Result},
    units,
};

/// Tensors that are moved together, under a name for people.
#[derive(Clone, Debug)]
pub struct Tensors {
    /// What they are: `1000 x 1000 floats`.
    pub label: String,
    /// The tensors, in pageable memory.
    pub tensors: Vec<Tensor>,
}

impl Tensors {
    /// The bytes of each tensor.
    ///
    /// # Errors
    ///
    /// When a tensor is not on the host or not contiguous, which those of a [`Workload`] always are.
    pub fn bytes(&self) -> Result<Vec<&[u8]>> {
        Ok(self
            .tensors
            .iter()
            .map(Tensor::as_bytes)
            .collect::<Result<_, _>>()?)
    }

    pub(crate) fn of_floats(count: usize, length: usize) -> Result<Self> {
        let tensors = (0..count)
            .map(|seed| Tensor::rand(DType::F32, &[length], seed as u64))
            .collect::<Result<_, _>>()?;
        let floats = match length {
            0..10_000 => length.to_string(),
            _ if length.is_multiple_of(1_000_000) => format!("{}M", length / 1_000_000),
            _ if length.is_multiple_of(1 << 20) => format!("{} Mi", length >> 20),
            _ => format!("{}k", length / 1000),
        };
        let label = match count {
            1 => format!("{floats} floats"),
            _ => format!("{count} x {floats} floats"),
        };
        Ok(Self { label, tensors })
    }
}

/// The tensors of a safetensors file, in the file's order.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// Its tensors: at least one has bytes.
    pub all: Tensors,
    /// Where in the file the bytes of each begin.
    pub offsets: Vec<u64>,
}

impl Checkpoint {
    /// The file's name, for people.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The tensors with their bytes, the smallest first.
    fn by_size(&self) -> Result<Vec<(&Tensor, &[u8])>> {
        let mut by_size: Vec<_> = self.all.tensors.iter().zip(self.all.bytes()?).collect();
        by_size.sort_by_key(|(_, bytes)| bytes.len());
        Ok(by_size)
    }

    /// The tensors of the median and of the largest size, under their names.
    fn median_and_largest(&self) -> Result<[Tensors; 2]> {
        let by_size = self.by_size()?;
        let last = by_size.len() - 1;
        Ok([(last / 2, "median"), (last, "largest")].map(|(place, name)| {
            let (tensor, bytes) = by_size[place];
            Tensors {
                label: format!("the {name} tensor, {}", units::bytes(bytes.len() as u64)),
                tensors: vec![tensor.clone()],
            }
        }))
    }
}

/// Where the tensors come from.
#[derive(Clone, Debug)]
pub enum Workload {
    /// Made up in the sizes of the guide.
    MadeUp {
        /// Smaller sizes, for a quick look.
        quick: bool,
    },
    /// Those of a checkpoint.
    Checkpoint(Checkpoint),
}

impl Workload {
    /// Reads the tensors of a safetensors file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the file can't be read, [`Error::Checkpoint`] when it is not in that format or has no tensor
    /// with bytes.
    pub fn of_checkpoint(path: &Path) -> Result<Self> {
        let content = fs::read(path).map_err(|source| Error::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let checkpoint = |reason: String| Error::Checkpoint {
            path: path.to_owned(),
            reason,
        };
        let file = SafeTensors::deserialize(&content).map_err(|error| checkpoint(error.to_string()))?;
        let mut views = file.tensors();
        views.sort_by_key(|(_, view)| view.data().as_ptr());
        let tensors = views
            .iter()
            .map(|(name, view)| {
                tensor_of(view).map_err(|error| checkpoint(format!("tensor {name}: {error}")))
            })
            .collect::<Result<Vec<_>>>()?;
        if views.iter().all(|(_, view)| view.data().is_empty()) {
            return Err(checkpoint("it holds no tensor with bytes to move".to_owned()));
        }
        let start = content.as_ptr().addr();
        let offset = |view: &TensorView<'_>| (view.data().as_ptr().addr() - start) as u64;
        let offsets = views.iter().map(|(_, view)| offset(view)).collect();
        let mut checkpoint = Checkpoint {
            path: path.to_owned(),
            all: Tensors {
                label: String::new(),
                tensors,
            },
            offsets,
        };
        checkpoint.all.label = format!("{} tensors of {}", checkpoint.offsets.len(), checkpoint.name());
        Ok(Self::Checkpoint(checkpoint))
    }

    /// One tensor of at most `bytes` bytes: floats, or the largest of the checkpoint, cut off there and taken as bytes.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn one(&self, bytes: usize) -> Result<Tensors> {
        let checkpoint = match self {
            Self::MadeUp { .. } => return Tensors::of_floats(1, bytes / size_of::<f32>()),
            Self::Checkpoint(checkpoint) => checkpoint,
        };
        let by_size = checkpoint.by_size()?;
        let largest = by_size.last().map_or(&[][..], |(_, bytes)| *bytes);
        let taken = &largest[..largest.len().min(bytes)];
        let size = units::bytes(taken.len() as u64);
        let part = if taken.len() < largest.len() {
            format!("the first {size} of the largest tensor")
        } else {
            format!("the largest tensor, {size}")
        };
        Ok(Tensors {
            label: format!("{part} of {}", checkpoint.name()),
            tensors: vec![Tensor::from_slice(taken, &[taken.len()])?],
        })
    }

    /// Single tensors of several sizes, the smallest first.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn singles(&self) -> Result<Vec<Tensors>> {
        match self {
            Self::MadeUp { quick: true } => [100_000, 1 << 20, 4 << 20]
                .into_iter()
                .map(|length| Tensors::of_floats(1, length))
                .collect(),
            Self::MadeUp { quick: false } => [100_000, 1 << 20, 16 << 20]
                .into_iter()
                .map(|length| Tensors::of_floats(1, length))
                .collect(),
            Self::Checkpoint(checkpoint) => Ok(checkpoint.median_and_largest()?.into()),
        }
    }

    /// Sizes in bytes to allocate, each under its name, the smallest first.
    ///
    /// # Errors
    ///
    /// When there is no memory for the tensors whose sizes they are.
    pub fn sizes(&self) -> Result<Vec<(String, usize)>> {
        let made_up: &[usize] = match self {
            Self::MadeUp { quick: true } => &[64 << 10, 1 << 20, 16 << 20],
            Self::MadeUp { quick: false } => &[64 << 10, 1 << 20, 16 << 20, 256 << 20],
            Self::Checkpoint(checkpoint) => {
                return checkpoint
                    .median_and_largest()?
                    .into_iter()
                    .map(|one| {
                        let bytes = one.tensors[0].bytes()?;
                        Ok((format!("{} of {}", one.label, checkpoint.name()), bytes))
                    })
                    .collect();
            }
        };
        let named = |&bytes: &usize| (units::bytes(bytes as u64), bytes);
        Ok(made_up.iter().map(named).collect())
    }

    /// Many small tensors.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn many_small(&self) -> Result<Tensors> {
        match self {
            Self::MadeUp { .. } => Tensors::of_floats(1000, 1000),
            Self::Checkpoint(checkpoint) => Ok(checkpoint.all.clone()),
        }
    }

    /// Fewer, larger tensors.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn fewer_large(&self) -> Result<Tensors> {
        match self {
            Self::MadeUp { quick: true } => Tensors::of_floats(16, 250_000),
            Self::MadeUp { quick: false } => Tensors::of_floats(100, 1_000_000),
            Self::Checkpoint(checkpoint) => Ok(checkpoint.all.clone()),
        }
    }

    /// Tensors for a few batches.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn batches(&self) -> Result<Tensors> {
        match self {
            Self::MadeUp { quick: true } => Tensors::of_floats(8, 1 << 20),
            Self::MadeUp { quick: false } => Tensors::of_floats(8, 4 << 20),
            Self::Checkpoint(checkpoint) => Ok(checkpoint.all.clone()),
        }
    }

    /// The many small and the fewer large ones, or the checkpoint once.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn lists(&self) -> Result<Vec<Tensors>> {
        match self {
            Self::MadeUp { .. } => Ok(vec![self.many_small()?, self.fewer_large()?]),
            Self::Checkpoint(checkpoint) => Ok(vec![checkpoint.all.clone()]),
        }
    }
}

fn tensor_of(view: &TensorView<'_>) -> Result<Tensor> {
    let dtype: DType = view.dtype().to_string().parse().map_err(pinlane::Error::from)?;
    Ok(Tensor::from_bytes(view.data().to_vec(), dtype, view.shape())?)
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MadeUp { .. } => f.write_str("made-up tensors in the sizes of the guide"),
            Self::Checkpoint(checkpoint) => f.write_str(&checkpoint.all.label),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::{Dtype, serialize_to_file};

    use super::*;

    #[test]
    fn labels_read_as_people_write_them() {
        let label = |count, length| Tensors::of_floats(count, length).unwrap().label;
        assert_eq!(label(1000, 1000), "1000 x 1000 floats");
        assert_eq!(label(1, 100_000), "100k floats");
        assert_eq!(label(2, 1_000_000), "2 x 1M floats");
        assert_eq!(label(1, 1 << 20), "1 Mi floats");
    }

    #[test]
    fn a_checkpoint_gives_its_tensors_in_file_order_whatever_their_dtype() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let (long, short) = (vec![1_u8; 24], vec![2_u8; 3]);
        let views = HashMap::from([
            ("long", TensorView::new(Dtype::BF16, vec![3, 4], &long).unwrap()),
            ("short", TensorView::new(Dtype::U8, vec![3], &short).unwrap()),
            ("empty", TensorView::new(Dtype::F32, vec![0, 7], &[]).unwrap()),
        ]);
        serialize_to_file(views, None, &path).unwrap();
        let workload = Workload::of_checkpoint(&path).unwrap();
        let list = workload.many_small().unwrap();
        assert_eq!(list.label, "3 tensors of model.safetensors");
        let mut bytes = list.bytes().unwrap();
        bytes.sort_by_key(|bytes| bytes.len());
        assert_eq!(bytes, [&[][..], &short, &long]);
        assert_eq!(workload.singles().unwrap().len(), 2);
        let Workload::Checkpoint(checkpoint) = &workload else {
            panic!("it was read from a checkpoint")
        };
        let file = fs::read(&path).unwrap();
        for (offset, bytes) in checkpoint.offsets.iter().zip(list.bytes().unwrap()) {
            assert_eq!(&file[*offset as usize..][..bytes.len()], bytes);
        }
        for (most, label) in [
            (20, "the first 20 B of the largest tensor of model.safetensors"),
            (30, "the largest tensor, 24 B of model.safetensors"),
        ] {
            let one = workload.one(most).unwrap();
            assert_eq!(
                (one.label.as_str(), one.bytes().unwrap()),
                (label, vec![&long[..most.min(24)]])
            );
        }
        assert_eq!(workload.lists().unwrap().len(), 1);
    }

    #[test]
    fn a_checkpoint_without_a_byte_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let views = HashMap::from([("empty", TensorView::new(Dtype::F32, vec![0, 7], &[]).unwrap())]);
        serialize_to_file(views, None, file.path()).unwrap();
        let error = Workload::of_checkpoint(file.path()).unwrap_err();
        assert!(error.to_string().contains("no tensor with bytes"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_checkpoint_is_named_in_the_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"nothing of the kind").unwrap();
        let error = Workload::of_checkpoint(file.path()).unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }));
        assert!(error.to_string().contains(&file.path().display().to_string()));
        let missing = Workload::of_checkpoint(Path::new("no/such/file"));
        assert!(matches!(missing, Err(Error::File { action: "read", .. })));
    }
}
