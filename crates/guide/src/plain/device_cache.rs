//! Device memory kept for reuse, as torch's caching allocator keeps it.
//!
//! A block that is dropped goes back to the cache at once, even while enqueued work still uses it: the next user's work
//! stands behind that work on the same stream. So a cache belongs to one stream, and every use of its blocks is on it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pinlane_driver::{DeviceMemory, DevicePtr, Error, ErrorKind, Result, Stream, sync::Arc};

/// Sizes are rounded up to this many bytes, so that nearly equal ones share blocks.
const GRANULE: usize = 512;

#[derive(Debug)]
pub(super) struct DeviceCache {
    stream: Arc<Stream>,
    free: Mutex<HashMap<usize, Vec<DeviceMemory>>>,
}

impl DeviceCache {
    pub(super) fn new(stream: Arc<Stream>) -> Arc<Self> {
        Arc::new(Self {
            stream,
            free: Mutex::default(),
        })
    }

    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<DeviceBlock> {
        let rounded = bytes.max(1).next_multiple_of(GRANULE);
        let cached = self.free().get_mut(&rounded).and_then(Vec::pop);
        let memory = match cached {
            Some(memory) => memory,
            None => self.allocate_fresh(rounded)?,
        };
        Ok(DeviceBlock {
            memory: Some(memory),
            bytes,
            cache: Arc::clone(self),
        })
    }

    /// Asks the driver, and once more without the cached blocks when the device is full.
    fn allocate_fresh(&self, rounded: usize) -> Result<DeviceMemory> {
        let driver = self.stream.driver();
        match DeviceMemory::new(driver, rounded) {
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                self.trim()?;
                DeviceMemory::new(driver, rounded)
            }
            result => result,
        }
    }

    /// Gives every cached block back to the device, when the work that may still use them is done.
    pub(super) fn trim(&self) -> Result<()> {
        let blocks = std::mem::take(&mut *self.free());
        let done = self.stream.synchronize();
        if done
            .as_ref()
            .err()
            .map(Error::kind)
            .is_some_and(ErrorKind::leaves_memory_in_use)
        {
            std::mem::forget(blocks);
        }
        done
    }

    fn free(&self) -> MutexGuard<'_, HashMap<usize, Vec<DeviceMemory>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DeviceCache {
    fn drop(&mut self) {
        // An error here is that of work nobody waited for; `trim` has kept or freed the blocks as it must.
        let _unwaited = self.trim();
    }
}

/// Device memory on loan from the cache.
#[derive(Debug)]
pub struct DeviceBlock {
    memory: Option<DeviceMemory>,
    bytes: usize,
    cache: Arc<DeviceCache>,
}

impl DeviceBlock {
    /// The first byte's address.
    #[must_use]
    pub fn ptr(&self) -> DevicePtr {
        self.memory
            .as_ref()
            .expect("the memory is taken only by drop")
            .ptr()
    }

    /// The size asked for, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceBlock {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.cache.free().entry(memory.bytes()).or_default().push(memory);
        }
    }
}
