//! The tensor: a dtype, a layout, and shared bytes on the host, a device or in a file.

mod access;
mod convert;
mod foreign;
mod views;

use std::path::Path;

use pinlane_driver::DevicePtr;

pub use foreign::ForeignMemory;

use crate::{
    DType, Device, Element, Error, FileSource, HostMemory, Layout, Result, Scalar,
    memory::{
        shared::Shared,
        storage::{Place, Storage},
    },
};

/// An n-dimensional array of one dtype, on the host, on a device, or still in a file.
///
/// A tensor's bytes are shared by its clones and views and never change while they are: what a transfer reads stays as
/// it is until it has landed. [`as_mut_slice`](Self::as_mut_slice) writes in place where nobody shares the bytes.
///
/// Moving is in the trait [`Tree`](crate::Tree), which tensors share with maps and lists of them.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    layout: Layout,
    storage: Shared<Storage>,
}

/// # Making tensors in pageable memory
///
/// [`HostMemory`] makes the same in pinned memory.
impl Tensor {
    /// The elements of `elements`, where they are, without copying them.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where `shape` has not as many elements; [`Error::Layout`] where its size overflows.
    pub fn from_vec<T: Element>(elements: Vec<T>, shape: &[usize]) -> Result<Self> {
        let layout = Layout::contiguous(shape)?;
        check_count(&layout, elements.len())?;
        Ok(Self::new(T::DTYPE, layout, Storage::from_vec(elements)))
    }

    /// A copy of `elements`.
    ///
    /// # Errors
    ///
    /// As for [`from_vec`](Self::from_vec); [`Error::HostMemory`].
    pub fn from_slice<T: Element>(elements: &[T], shape: &[usize]) -> Result<Self> {
        HostMemory::Pageable.copy_of(elements, shape)
    }

    /// Elements of `dtype` in their own byte order (little-endian), where they are.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where `shape` has not as many bytes; [`Error::Layout`] where its size overflows.
    pub fn from_bytes(bytes: Vec<u8>, dtype: DType, shape: &[usize]) -> Result<Self> {
        let layout = Layout::contiguous(shape)?;
        let needed = dtype.bytes_for(layout.elements())?;
        if needed != bytes.len() {
            return Err(Error::Unsupported {
                doing: "making a tensor from bytes",
                reason: format!(
                    "{dtype} of shape {shape:?} takes {needed} bytes, and {} were given",
                    bytes.len()
                ),
            });
        }
        Ok(Self::new(dtype, layout, Storage::from_vec(bytes)))
    }

    /// All zeros.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`] where the size overflows; [`Error::HostMemory`].
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self> {
        HostMemory::Pageable.zeros(dtype, shape)
    }

    /// All ones.
    ///
    /// # Errors
    ///
    /// As for [`HostMemory::ones`].
    pub fn ones(dtype: DType, shape: &[usize]) -> Result<Self> {
        HostMemory::Pageable.ones(dtype, shape)
    }

    /// All `value`, converted to the dtype.
    ///
    /// # Errors
    ///
    /// As for [`HostMemory::full`].
    pub fn full(dtype: DType, shape: &[usize], value: impl Into<Scalar>) -> Result<Self> {
        HostMemory::Pageable.full(dtype, shape, value)
    }

    /// `start`, `start + step` and so on, as long as they are before `end`.
    ///
    /// # Errors
    ///
    /// As for [`HostMemory::arange`].
    pub fn arange(
        dtype: DType,
        start: impl Into<Scalar>,
        end: impl Into<Scalar>,
        step: impl Into<Scalar>,
    ) -> Result<Self> {
        HostMemory::Pageable.arange(dtype, start, end, step)
    }

    /// Uniform in 0..1, the same for the same seed.
    ///
    /// # Errors
    ///
    /// As for [`HostMemory::rand`].
    pub fn rand(dtype: DType, shape: &[usize], seed: u64) -> Result<Self> {
        HostMemory::Pageable.rand(dtype, shape, seed)
    }

    /// Normal with mean 0 and deviation 1, the same for the same seed.
    ///
    /// # Errors
    ///
    /// As for [`HostMemory::randn`].
    pub fn randn(dtype: DType, shape: &[usize], seed: u64) -> Result<Self> {
        HostMemory::Pageable.randn(dtype, shape, seed)
    }

    /// The bytes of a file from `offset` on, read when the tensor is moved. Tensors that share a file share its
    /// descriptor where they are taken from one [`FileSource`].
    ///
    /// # Errors
    ///
    /// [`Error::File`] where the file can't be opened, is a directory, or is shorter than `offset` and the tensor together.
    pub fn from_file(path: impl AsRef<Path>, offset: u64, dtype: DType, shape: &[usize]) -> Result<Self> {
        FileSource::open(path)?.tensor(offset, dtype, shape)
    }

    pub(crate) fn new(dtype: DType, layout: Layout, storage: Storage) -> Self {
        Self::over(dtype, layout, Shared::new(storage))
    }

    /// Over a storage that others may have a share of, or a block of memory in common with.
    pub(crate) fn over(dtype: DType, layout: Layout, storage: Shared<Storage>) -> Self {
        Self {
            dtype,
            layout,
            storage,
        }
    }
}

/// # What it is
impl Tensor {
    /// The type of its elements.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each dimension.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Shape, strides and offset, in elements.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.layout.elements()
    }

    /// The bytes of its elements, packed.
    ///
    /// # Errors
    ///
    /// [`Error::DType`] for elements narrower than a byte that do not fill whole bytes.
    pub fn bytes(&self) -> Result<usize> {
        Ok(self.dtype.bytes_for(self.elements())?)
    }

    /// Where its bytes are. A tensor still in a file is on the host.
    #[must_use]
    pub fn device(&self) -> Device {
        match self.storage.place() {
            Place::Device(device) => device.device.clone(),
            Place::Host(_) | Place::File(_) => Device::host(),
        }
    }

    /// Whether it lies in pinned host memory.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        matches!(self.storage.place(), Place::Host(host) if host.pinned().is_some())
    }

    /// The address of its first element on its device, for work that pinlane does not do; `None` on the host, and for
    /// the result of a transfer that has not landed.
    ///
    /// Whoever enqueues work on it keeps the tensor until that work is done.
    #[must_use]
    pub fn device_ptr(&self) -> Option<DevicePtr> {
        let offset = self.dtype.bytes_for(self.layout.offset()).ok()?;
        match self.storage.place() {
            Place::Device(device) if self.storage.has_landed() => Some(device.ptr().offset(offset)),
            _ => None,
        }
    }

    pub(crate) fn storage(&self) -> &Shared<Storage> {
        &self.storage
    }

    pub(crate) fn storage_mut(&mut self) -> &mut Shared<Storage> {
        &mut self.storage
    }
}

pub(crate) fn check_count(layout: &Layout, elements: usize) -> Result<()> {
    if layout.elements() == elements {
        return Ok(());
    }
    Err(Error::Unsupported {
        doing: "making a tensor",
        reason: format!(
            "shape {:?} has {} elements, and {elements} were given",
            layout.shape(),
            layout.elements()
        ),
    })
}
