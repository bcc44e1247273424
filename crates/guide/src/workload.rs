//! The tensors that the experiments move: made up in the sizes of the guide, or those of a checkpoint.

use std::{fmt, fs, path::Path};

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

/// Where the tensors come from.
#[derive(Clone, Debug)]
pub enum Workload {
    /// Made up in the sizes of the guide.
    MadeUp {
        /// Smaller sizes, for a quick look.
        quick: bool,
    },
    /// Those of a checkpoint: at least one.
    Checkpoint(Tensors),
}

impl Workload {
    /// Reads the tensors of a safetensors file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the file can't be read, [`Error::Checkpoint`] when it is not in that format or holds no
    /// tensor.
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
        if tensors.is_empty() {
            return Err(checkpoint("it holds no tensor".to_owned()));
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok(Self::Checkpoint(Tensors {
            label: format!("{} tensors of {name}", tensors.len()),
            tensors,
        }))
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
            Self::Checkpoint(all) => {
                let mut by_size = all.tensors.iter().zip(all.bytes()?).collect::<Vec<_>>();
                by_size.sort_by_key(|(_, bytes)| bytes.len());
                let last = by_size.len() - 1;
                Ok([(last / 2, "median"), (last, "largest")]
                    .map(|(place, name)| {
                        let (tensor, bytes) = by_size[place];
                        Tensors {
                            label: format!("the {name} tensor, {}", units::bytes(bytes.len() as u64)),
                            tensors: vec![tensor.clone()],
                        }
                    })
                    .into())
            }
        }
    }

    /// Many small tensors.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn many_small(&self) -> Result<Tensors> {
        match self {
            Self::MadeUp { .. } => Tensors::of_floats(1000, 1000),
            Self::Checkpoint(all) => Ok(all.clone()),
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
            Self::Checkpoint(all) => Ok(all.clone()),
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
            Self::Checkpoint(all) => Ok(all.clone()),
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
            Self::Checkpoint(all) => Ok(vec![all.clone()]),
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
            Self::Checkpoint(all) => f.write_str(&all.label),
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
        assert_eq!(workload.lists().unwrap().len(), 1);
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
