//! Device memory that is given back on drop, or that belongs to someone else.

use std::{any::Any, fmt};

use crate::{DevicePtr, Driver, Result, sync::Arc};

/// One allocation of device memory.
///
/// Whoever enqueues work on it keeps it alive until that work is done: dropping it earlier gives memory back that the
/// device still uses. The engine's transfers do so by owning it; code that uses streams directly must synchronise.
///
/// ```
/// use pinlane_driver::{DeviceMemory, sim::{DeviceConfig, Machine}};
///
/// let device = Machine::new(DeviceConfig::default()).device(0)?;
/// let before = device.memory_info()?.free;
/// let memory = DeviceMemory::new(&device, 1 << 20)?;
/// assert_eq!(memory.ptr().0 % 256, 0);
/// assert_eq!(device.memory_info()?.free, before - (1 << 20));
/// drop(memory);
/// assert_eq!(device.memory_info()?.free, before);
/// # Ok::<(), pinlane_driver::Error>(())
/// ```
pub struct DeviceMemory {
    driver: Arc<dyn Driver>,
    ptr: DevicePtr,
    bytes: usize,
    /// Of memory that someone else gives back: what keeps it until then.
    owner: Option<Arc<dyn Any + Send + Sync>>,
}

impl DeviceMemory {
    /// Allocates `bytes`; see [`Driver::allocate`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) and whatever else the driver says.
    pub fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Self> {
        let ptr = driver.allocate(bytes)?;
        Ok(Self {
            driver: Arc::clone(driver),
            ptr,
            bytes,
            owner: None,
        })
    }

    /// Uses memory that someone else owns, such as another library's allocation, without ever giving it back. `owner` is
    /// dropped instead, on any thread.
    ///
    /// # Safety
    ///
    /// From `ptr` on, `bytes` bytes are memory of `driver`'s device, which streams of `driver` may use, for as long as
    /// `owner` lives.
    #[must_use]
    pub unsafe fn adopt(
        driver: &Arc<dyn Driver>,
        ptr: DevicePtr,
        bytes: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            driver: Arc::clone(driver),
            ptr,
            bytes,
            owner: Some(owner),
        }
    }

    /// The first byte's address.
    #[must_use]
    pub fn ptr(&self) -> DevicePtr {
        self.ptr
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The driver that the memory belongs to.
    #[must_use]
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }
}

impl fmt::Debug for DeviceMemory {
    /// Where it is: a driver's insides would bury it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceMemory")
            .field("device", &format_args!("{}", self.driver.properties().id))
            .field("ptr", &self.ptr)
            .field("bytes", &self.bytes)
            .finish()
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.owner.is_none() {
            // SAFETY: `ptr` came from `allocate` with these bytes; the type's contract is that no work still uses it.
            let _gone = unsafe { self.driver.free(self.ptr, self.bytes) };
        }
    }
}
