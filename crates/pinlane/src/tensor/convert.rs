//! The same values as elements of another dtype.

use pinlane_driver::{Conversion, DeviceMemory, sync::Arc};

use super::Tensor;
use crate::{
    DType, DTypeError, Error, HostMemory, Placement, Result,
    conversion::Becomes,
    error::Failure,
    file::to_host::read_to_host_as,
    landing::{keeps_layout, span_bytes},
    memory::storage::{DeviceBlock, DeviceBytes, Place, Storage},
    transfer::convert::{Recast, recast_and_wait},
};

/// # Converting
impl Tensor {
    /// The same floating-point numbers as `dtype`, where the tensor is: on a device by a kernel, for which the caller waits. What
    /// is still in a file is read to the host. A tensor that has the dtype already is given as it is.
    ///
    /// What becomes of an element is told by [`Conversion`]: the same on every device and on the host. To convert a whole
    /// checkpoint while it is loaded, see [`LoadOptions`](crate::checkpoint::LoadOptions::dtype).
    ///
    /// ```
    /// use pinlane::{DType, Device, Tensor, Tree};
    ///
    /// let there = Tensor::from_slice(&[1.0_f32, 0.1], &[2])?.to(&Device::open("sim:0")?)?;
    /// let halves = there.to_dtype(DType::F16)?;
    /// assert_eq!(halves.device(), there.device());
    /// let back = halves.to(&Device::host())?;
    /// assert_eq!(back.as_bytes()?, [0x00, 0x3c, 0x66, 0x2e]);
    /// assert!(there.to_dtype(DType::I8).is_err());
    /// # Ok::<(), pinlane::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DTypeError::NoTarget`] and [`DTypeError::NoConversion`] where that would not be the same numbers; a driver's, of kind
    /// [`Unsupported`](crate::driver::ErrorKind::Unsupported) where it can't convert; a file's.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let from = self.dtype;
        if from == dtype {
            return Ok(self.clone());
        }
        let becomes = Becomes::of(from, dtype)?.ok_or(DTypeError::NoConversion { from, to: dtype })?;
        self.check_landed("converting a tensor")?;
        match self.storage.place() {
            Place::File(_) => {
                let memory = HostMemory::Pageable;
                let read = read_to_host_as(&[(0, self)], |_| Ok(Some(becomes)), memory, Placement::Separate);
                Ok(read.map_err(Failure::into_error)?.remove(0))
            }
            Place::Host(_) => self.convert_on_host(becomes),
            Place::Device(place) => self.convert_on_device(place, becomes),
        }
    }

    fn convert_on_host(&self, becomes: Becomes) -> Result<Self> {
        let Becomes { dtype, conversion } = becomes;
        let dense = if keeps_layout(self) {
            self.clone()
        } else {
            self.contiguous()?
        };
        let bytes = &dense.host_bytes("converting a tensor")?[span_bytes(&dense)?];
        let storage =
            HostMemory::Pageable.build_storage(len_after(conversion, bytes.len()), |converted| {
                conversion.convert(bytes, converted);
                Ok(())
            })?;
        Ok(Self::new(dtype, dense.layout.at_start(), storage))
    }

    /// Converts what the elements span, with what lies between them where there are gaps: they keep their strides.
    fn convert_on_device(&self, place: &DeviceBytes, becomes: Becomes) -> Result<Self> {
        let Becomes { dtype, conversion } = becomes;
        let engine = place
            .device
            .require_accelerator("converting a tensor")?
            .running
            .engine();
        let span = span_bytes(self)?;
        let memory = DeviceMemory::new(&engine.driver, len_after(conversion, span.len()))
            .map_err(|source| Error::driver("making room for tensors on the device", source))?;
        let block = Arc::new(DeviceBlock(memory));
        let recast = Recast {
            dst: block.0.ptr(),
            src: place.ptr().offset(span.start),
            bytes: span.len(),
            conversion: Some(conversion),
        };
        // SAFETY: the tensor has landed, and its bytes don't change while it is borrowed; the block is new. Both are kept for
        // ever where the end of the conversion can't be known.
        if let Err(error) = unsafe { recast_and_wait(engine, &[recast]) } {
            if error.leaves_memory_in_use() {
                engine.leaks.add(span.len() as u64);
                self.storage.leak();
                std::mem::forget(block);
            }
            return Err(error);
        }
        let storage = Storage::device(place.device.clone(), block, 0);
        Ok(Self::new(dtype, self.layout.at_start(), storage))
    }
}

/// How many bytes so many become: whole elements.
fn len_after(conversion: Conversion, bytes: usize) -> usize {
    bytes / conversion.from().bytes() * conversion.to().bytes()
}
