//! Tensors over memory that someone else owns: another library's tensors, to be moved or to be filled.

use std::{any::Any, ptr::NonNull};

use pinlane_driver::{Backend, DeviceMemory, DevicePtr, sync::Arc};

use super::Tensor;
use crate::{
    DType, Device, Layout, Result,
    memory::storage::{DeviceBlock, Storage},
};

/// # Memory of others
impl Tensor {
    /// Elements in memory that someone else owns, such as another library's tensor, without copying them.
    ///
    /// `pinned` says which family of drivers has pinned the memory, if any. `owner` is dropped, on any thread, when no
    /// tensor and no transfer uses the memory any more.
    ///
    /// # Safety
    ///
    /// From `ptr` on, `bytes` initialised bytes can be read while `owner` lives; nobody writes them meanwhile; what is
    /// said to be pinned stays so meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`](crate::Error::Layout) where the layout reaches past the bytes.
    pub unsafe fn from_raw_parts(
        ptr: NonNull<u8>,
        bytes: usize,
        dtype: DType,
        layout: Layout,
        pinned: Option<Backend>,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self> {
        layout.check_within(bytes.saturating_mul(8) / dtype.bits())?;
        // SAFETY: the caller's promise, passed on; never writable through the storage.
        let storage = unsafe { Storage::host(ptr, bytes, pinned, false, owner) };
        Ok(Self::new(dtype, layout, storage))
    }

    /// The same over memory that nobody else reads or writes while a tensor over it is alive: it can be written in place
    /// and [moved into](crate::Tree::copy_into).
    ///
    /// # Safety
    ///
    /// As for [`from_raw_parts`](Self::from_raw_parts), but for the word "reads", and the bytes may be written. Whoever
    /// hands the memory on does so when no tensor and no transfer uses it any more, or when the transfer that fills it has
    /// landed.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`](crate::Error::Layout) where the layout reaches past the bytes.
    pub unsafe fn from_raw_parts_mut(
        ptr: NonNull<u8>,
        bytes: usize,
        dtype: DType,
        layout: Layout,
        pinned: Option<Backend>,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self> {
        layout.check_within(bytes.saturating_mul(8) / dtype.bits())?;
        // SAFETY: the caller's promise, passed on.
        let storage = unsafe { Storage::host(ptr, bytes, pinned, true, owner) };
        Ok(Self::new(dtype, layout, storage))
    }
}

/// Memory on a device that someone else owns, to make tensors over: another library's allocation.
///
/// ```
/// use std::sync::Arc;
/// use pinlane::{DType, Device, ForeignMemory, Layout, Tensor, Tree, driver::DeviceMemory};
///
/// let device = Device::open("sim:0")?;
/// let driver = device.driver().expect("an accelerator has a driver");
/// let theirs = Arc::new(DeviceMemory::new(driver, 1024)?);
/// // SAFETY: the memory lives as long as its owner, and nobody else knows it.
/// let memory = unsafe { ForeignMemory::new(&device, theirs.ptr(), 1024, theirs) }?;
/// // SAFETY: no other tensor is over these bytes.
/// let mut place = unsafe { memory.tensor(256, DType::F32, Layout::contiguous(&[3])?) }?;
/// Tensor::from_slice(&[1.0f32, 2.0, 3.0], &[3])?.copy_into(&mut place)?;
/// assert_eq!(place.to(&Device::host())?.as_slice::<f32>()?, &[1.0, 2.0, 3.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ForeignMemory {
    device: Device,
    block: Arc<DeviceBlock>,
}

impl ForeignMemory {
    /// `bytes` bytes of the memory of `device` from `ptr` on. `owner` is dropped, on any thread, when no tensor and no
    /// transfer uses the memory any more.
    ///
    /// # Safety
    ///
    /// The bytes are memory of the device, which streams of its driver may use, for as long as `owner` lives. What still
    /// works on them is waited for by whoever moves tensors over them: see
    /// [`TransferOptions::after`](crate::TransferOptions::after).
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) for the host.
    pub unsafe fn new(
        device: &Device,
        ptr: DevicePtr,
        bytes: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self> {
        let accelerator = device.require_accelerator("using device memory")?;
        // SAFETY: the caller's promise, passed on.
        let memory = unsafe { DeviceMemory::adopt(&accelerator.running.engine().driver, ptr, bytes, owner) };
        Ok(Self {
            device: device.clone(),
            block: Arc::new(DeviceBlock(memory)),
        })
    }

    /// The elements from `offset` bytes on.
    ///
    /// # Safety
    ///
    /// Nobody writes the bytes while the tensor, or a transfer from it, is alive. Of a tensor that is moved into, nobody
    /// else reads them either before the transfer has landed, or in a stream that it was fenced on.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`](crate::Error::Layout) where the layout reaches past the memory.
    pub unsafe fn tensor(&self, offset: usize, dtype: DType, layout: Layout) -> Result<Tensor> {
        let bytes = self.block.0.bytes().saturating_sub(offset);
        layout.check_within(bytes.saturating_mul(8) / dtype.bits())?;
        let storage = Storage::device(self.device.clone(), Arc::clone(&self.block), offset);
        Ok(Tensor::new(dtype, layout, storage))
    }
}
