//! Making tensors in host memory, pageable or pinned.

use crate::{
    DType, Device, Element, Layout, Result, Scalar, Tensor, fill,
    memory::{recycled, storage::Storage},
    random,
    tensor::check_count,
};

/// What errors say was being done.
const PINNING: &str = "pinning host memory";

/// Where on the host a new tensor lies.
///
/// ```
/// use pinlane::{DType, Device, HostMemory, Tensor};
///
/// let device = Device::open("sim:0")?;
/// let pinned = HostMemory::Pinned(&device).randn(DType::F32, &[1000], 7)?;
/// let pageable = Tensor::randn(DType::F32, &[1000], 7)?;
/// assert!(pinned.is_pinned() && !pageable.is_pinned());
/// assert_eq!(pinned.as_slice::<f32>()?, pageable.as_slice::<f32>()?);
/// # Ok::<(), pinlane::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum HostMemory<'a> {
    /// Ordinary memory, which the system may move and swap.
    Pageable,
    /// Page-locked memory out of the pinned budget of this device.
    Pinned(&'a Device),
    /// For results that come from this device, if nobody has asked for either: page-locked while they have room in its budget,
    /// ordinary else.
    ///
    /// They may have half of what the slots leave of the budget, and nothing is given up for them. Memory that such a result
    /// leaves is kept pinned for the next one of about its size, until pinned tensors want the room, or [`Device::trim`]
    /// is called. Results under 16 KiB or over 256 MiB lie in ordinary memory always, since they land there as fast; and so does
    /// the first of over 8 MiB of about its size, which pinning would keep waiting.
    PinnedIfRoom(&'a Device),
}

/// # Kept memory
///
/// Large pageable results are kept when they are dropped, for the next of about their size: touching fresh pages takes longer
/// than copying into them. [`Device::trim`] of the host gives what is kept back to the system.
///
/// Beside that, and whatever the limit, up to 64 MiB are kept for what transfers note about their tensors.
impl HostMemory<'_> {
    /// How many bytes of pageable memory are kept at this moment, for the whole process.
    #[must_use]
    pub fn kept() -> usize {
        recycled::bytes()
    }

    /// The most that is kept, in bytes.
    #[must_use]
    pub fn kept_limit() -> usize {
        recycled::limit()
    }

    /// Changes the most that is kept, in bytes; unless told, 2 GiB, or a sixteenth of the system's memory where that is less.
    pub fn set_kept_limit(bytes: usize) {
        recycled::set_limit(bytes);
    }
}

/// Every method fails with [`Error::Layout`](crate::Error::Layout) where the size overflows and with
/// [`Error::HostMemory`](crate::Error::HostMemory) or [`Error::PinnedBudget`](crate::Error::PinnedBudget) where there
/// is no room.
impl HostMemory<'_> {
    /// A copy of `elements`.
    ///
    /// # Errors
    ///
    /// Also where `shape` has not as many elements.
    pub fn copy_of<T: Element>(self, elements: &[T], shape: &[usize]) -> Result<Tensor> {
        check_count(&Layout::contiguous(shape)?, elements.len())?;
        self.build(T::DTYPE, shape, |bytes| {
            bytes.copy_from_slice(T::as_bytes(elements));
            Ok(())
        })
    }

    /// Elements of no particular value, for whoever overwrites them: zeros, or what the memory's last user left there.
    ///
    /// # Errors
    ///
    /// As for all.
    pub fn empty(self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        match self {
            Self::Pageable => {
                let layout = Layout::contiguous(shape)?;
                let bytes = dtype.bytes_for(layout.elements())?;
                Ok(Tensor::new(dtype, layout, Storage::initialised(bytes)?))
            }
            Self::Pinned(_) => self.build(dtype, shape, |_| Ok(())),
            Self::PinnedIfRoom(device) => {
                let layout = Layout::contiguous(shape)?;
                let bytes = dtype.bytes_for(layout.elements())?;
                let storage = match pinned_if_room(device, bytes)? {
                    Some(storage) => storage,
                    None => Storage::initialised(bytes)?,
                };
                Ok(Tensor::new(dtype, layout, storage))
            }
        }
    }

    /// All zeros.
    ///
    /// # Errors
    ///
    /// As for all.
    pub fn zeros(self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        self.build(dtype, shape, |bytes| {
            // Pageable memory comes zeroed, mostly without being touched.
            if !matches!(self, Self::Pageable) {
                bytes.fill(0);
            }
            Ok(())
        })
    }

    /// All ones.
    ///
    /// # Errors
    ///
    /// Also [`Error::Fill`](crate::Error::Fill) where the dtype has no one here.
    pub fn ones(self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        self.build(dtype, shape, |bytes| Ok(fill::full(dtype, bytes, 1)?))
    }

    /// All `value`, converted to the dtype.
    ///
    /// # Errors
    ///
    /// Also [`Error::Fill`](crate::Error::Fill) where the dtype can't hold it.
    pub fn full(self, dtype: DType, shape: &[usize], value: impl Into<Scalar>) -> Result<Tensor> {
        self.build(dtype, shape, |bytes| Ok(fill::full(dtype, bytes, value)?))
    }

    /// `start`, `start + step` and so on, as long as they are before `end`.
    ///
    /// # Errors
    ///
    /// Also [`Error::Fill`](crate::Error::Fill) where the dtype can't hold them, or `step` leads nowhere.
    pub fn arange(
        self,
        dtype: DType,
        start: impl Into<Scalar>,
        end: impl Into<Scalar>,
        step: impl Into<Scalar>,
    ) -> Result<Tensor> {
        let numbers = fill::Arange::new(start, end, step)?;
        self.build(dtype, &[numbers.elements()], |bytes| {
            Ok(numbers.fill(dtype, bytes)?)
        })
    }

    /// Uniform in 0..1, the same for the same seed.
    ///
    /// # Errors
    ///
    /// Also [`Error::DType`](crate::Error::DType) where the dtype is no float of 16 bits or more.
    pub fn rand(self, dtype: DType, shape: &[usize], seed: u64) -> Result<Tensor> {
        self.build(dtype, shape, |bytes| Ok(random::uniform(dtype, bytes, seed)?))
    }

    /// Normal with mean 0 and deviation 1, the same for the same seed.
    ///
    /// # Errors
    ///
    /// Also [`Error::DType`](crate::Error::DType) where the dtype is no float of 16 bits or more.
    pub fn randn(self, dtype: DType, shape: &[usize], seed: u64) -> Result<Tensor> {
        self.build(dtype, shape, |bytes| Ok(random::normal(dtype, bytes, seed)?))
    }

    /// A contiguous tensor whose bytes `write` writes. They are initialised, and zero if pageable.
    pub(crate) fn build(
        self,
        dtype: DType,
        shape: &[usize],
        write: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Tensor> {
        let layout = Layout::contiguous(shape)?;
        let bytes = dtype.bytes_for(layout.elements())?;
        let storage = self.build_storage(bytes, write)?;
        Ok(Tensor::new(dtype, layout, storage))
    }

    /// The same without a shape.
    pub(crate) fn build_storage(
        self,
        bytes: usize,
        write: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Storage> {
        let mut storage = match self {
            Self::Pageable => Storage::zeroed(bytes)?,
            Self::Pinned(device) => {
                let engine = device.require_accelerator(PINNING)?.running.engine();
                let lease = engine.pool.lease(bytes)?;
                Storage::pinned(lease, bytes, engine.driver.properties().id.backend)
            }
            Self::PinnedIfRoom(device) => match pinned_if_room(device, bytes)? {
                Some(storage) => storage,
                None => Storage::zeroed(bytes)?,
            },
        };
        if let Some(fresh) = storage.bytes_mut() {
            write(fresh)?;
        }
        Ok(storage)
    }
}

/// Pinned memory for a result; `None` where it should lie in pageable memory.
fn pinned_if_room(device: &Device, bytes: usize) -> Result<Option<Storage>> {
    let engine = device.require_accelerator(PINNING)?.running.engine();
    let lease = engine.pool.lease_for_result(bytes);
    Ok(lease.map(|lease| Storage::pinned(lease, bytes, engine.driver.properties().id.backend)))
}
