//! How a checkpoint is loaded, where it is not to be as it lies in its files.

use crate::{
    DType, Result,
    conversion::{Becomes, check_target},
};

/// How a checkpoint is loaded. `Default` is as it lies in its files.
///
/// ```
/// use pinlane::{DType, Device, Tensor, TensorMap};
/// use pinlane::checkpoint::{self, Checkpoint, LoadOptions, SaveOptions};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// let mut model = TensorMap::new();
/// model.insert("weight", Tensor::ones(DType::F32, &[16, 8])?)?;
/// model.insert("steps", Tensor::ones(DType::I64, &[1])?)?;
/// checkpoint::save(&model, &path, &SaveOptions::default())?;
///
/// let narrow = LoadOptions::new().dtype(DType::BF16);
/// let state = Checkpoint::open(&path)?.load_with(&Device::open("sim:0")?, &narrow)?;
/// let dtypes = ["weight", "steps"].map(|name| state.get(name).expect("saved above").dtype());
/// assert_eq!(dtypes, [DType::BF16, DType::I64]); // integers stay what they are
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    dtype: Option<DType>,
}

impl LoadOptions {
    /// As it lies in its files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tensors of floating-point numbers become this dtype, where they are loaded to: on a device by a kernel of its own, on the
    /// host by the threads that read. Others stay what they are.
    ///
    /// The dtype is one of [`F64`](DType::F64), [`F32`](DType::F32), [`F16`](DType::F16), [`BF16`](DType::BF16) and those of 8
    /// bits with a sign. Each element becomes the value nearest to it, by the rule of
    /// [`Conversion`](crate::driver::Conversion), which is the same everywhere. Elements of 4 and 6 bits can't become anything
    /// else: [`DTypeError::NoConversion`](crate::DTypeError::NoConversion).
    ///
    /// A device holds the tensors once, as what they become. Beside them it holds what has just arrived: at most four groups of
    /// 64 MiB, however large the model or its largest tensor. The host holds at most 4 MiB for each thread that reads. A driver
    /// that can't convert refuses before anything moves, with an error of kind
    /// [`Unsupported`](crate::driver::ErrorKind::Unsupported).
    #[must_use]
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// What tensors of `dtype` become, if not what they are.
    pub(super) fn becomes(&self, dtype: DType) -> Result<Option<Becomes>> {
        match self.dtype {
            None => Ok(None),
            Some(to) => Ok(Becomes::of(dtype, to)?),
        }
    }

    /// Refuses a dtype that nothing can become, whatever there is to be loaded.
    pub(super) fn check(&self) -> Result<()> {
        self.dtype.map_or(Ok(()), |dtype| Ok(check_target(dtype)?))
    }
}
