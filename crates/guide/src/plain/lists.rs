//! The guide's ways for a list of tensors: one call for each, and one synchronisation at the end or one for each.

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use pinlane_driver::MemCopy;

use crate::error::{Error, Result};

use super::{DeviceBlock, PinnedBlock, Plain};

impl Plain {
    /// `[t.to(device) for t in sources]`
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn to_each(&self, sources: &[&[u8]]) -> Result<Vec<DeviceBlock>> {
        sources.iter().map(|source| self.to(source)).collect()
    }

    /// `[t.to(device, non_blocking=True) for t in sources]`, then one synchronisation.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn to_each_non_blocking(&self, sources: &[&[u8]]) -> Result<Vec<DeviceBlock>> {
        let blocks = sources
            .iter()
            // SAFETY: the borrow keeps the sources alive and unchanged until the wait below is over, which comes
            // whether or not every copy could be enqueued.
            .map(|source| unsafe { self.to_non_blocking(source) })
            .collect();
        self.synchronize()?;
        blocks
    }

    /// `[t.pin_memory().to(device) for t in sources]`
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pin_then_to_each(&self, sources: &[&[u8]]) -> Result<Vec<DeviceBlock>> {
        sources
            .iter()
            .map(|source| self.pinned_to(&self.pin_memory(source)?))
            .collect()
    }

    /// `[t.pin_memory().to(device, non_blocking=True) for t in sources]`, then one synchronisation.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pin_then_to_each_non_blocking(&self, sources: &[&[u8]]) -> Result<Vec<DeviceBlock>> {
        let blocks = sources
            .iter()
            .map(|source| self.pinned_to_non_blocking(&self.pin_memory(source)?))
            .collect();
        self.synchronize()?;
        blocks
    }

    /// `[t.pin_memory() for t in sources]`
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pin_each(&self, sources: &[&[u8]]) -> Result<Vec<PinnedBlock>> {
        sources.iter().map(|source| self.pin_memory(source)).collect()
    }

    /// `[t.to(device) for t in pinned]`
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pinned_to_each(&self, sources: &[PinnedBlock]) -> Result<Vec<DeviceBlock>> {
        sources.iter().map(|source| self.pinned_to(source)).collect()
    }

    /// `[t.to(device, non_blocking=True) for t in pinned]`, then one synchronisation.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pinned_to_each_non_blocking(&self, sources: &[PinnedBlock]) -> Result<Vec<DeviceBlock>> {
        let blocks = sources
            .iter()
            .map(|source| self.pinned_to_non_blocking(source))
            .collect();
        self.synchronize()?;
        blocks
    }

    /// `TensorDict.to(device, non_blocking_pin=True, num_threads=threads)`: threads pin, this one enqueues the copies, then
    /// one synchronisation.
    ///
    /// # Errors
    ///
    /// What the driver says, and [`Error::ThreadPanicked`].
    pub fn pin_in_threads_then_to_each(&self, sources: &[&[u8]], threads: usize) -> Result<Vec<DeviceBlock>> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (sender, pinned) = mpsc::channel();
            let pinning: Vec<_> = (0..threads)
                .map(|_| {
                    let (sender, next) = (sender.clone(), &next);
                    scope.spawn(move || {
                        while let Some((place, source)) = {
                            let place = next.fetch_add(1, Ordering::Relaxed);
                            sources.get(place).map(|source| (place, source))
                        } {
                            // The copying thread has given up when nobody receives; its error is the one that counts.
                            if sender.send((place, self.pin_memory(source))).is_err() {
                                break;
                            }
                        }
                    })
                })
                .collect();
            drop(sender);
            let mut landed = pinned
                .into_iter()
                .map(|(place, block)| Ok((place, self.pinned_to_non_blocking(&block?)?)))
                .collect::<Result<Vec<_>>>();
            for thread in pinning {
                thread.join().map_err(|_| Error::ThreadPanicked("pinning"))?;
            }
            self.synchronize()?;
            if let Ok(landed) = &mut landed {
                landed.sort_by_key(|(place, _)| *place);
            }
            Ok(landed?.into_iter().map(|(_, block)| block).collect())
        })
    }

    /// Each tensor through one pinned buffer of the cache's, which is free again only when its copy is done; one thread does it.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn shuttle_each(&self, sources: &[&[u8]]) -> Result<Vec<DeviceBlock>> {
        let largest = sources.iter().map(|source| source.len()).max().unwrap_or(0);
        let buffer = self.pinned_empty(largest)?;
        let shuttle = |source: &&[u8]| {
            let landed = self.device_empty(source.len())?;
            // SAFETY: the buffer holds the largest, nobody else has it, and the copy of the tensor before is done. The buffer and
            // the device block outlive the copy, which is done when the stream is synchronised.
            unsafe {
                let to = buffer.as_ptr();
                to.copy_from_nonoverlapping(source.as_ptr(), source.len());
                self.stream()
                    .copy(MemCopy::to_device(landed.ptr(), to, source.len()))?;
            }
            self.synchronize()?;
            Ok(landed)
        };
        sources.iter().map(shuttle).collect()
    }

    /// `[t.cpu() for t in blocks]`: fresh pageable memory each.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn to_host_each(&self, blocks: &[DeviceBlock]) -> Result<Vec<Vec<u8>>> {
        blocks.iter().map(|block| self.to_host(block)).collect()
    }

    /// `[t.to("cpu", non_blocking=True) for t in blocks]`, then one synchronisation: pinned memory.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn to_host_each_non_blocking(&self, blocks: &[DeviceBlock]) -> Result<Vec<PinnedBlock>> {
        let hosts = blocks
            .iter()
            .map(|block| self.to_host_non_blocking(block))
            .collect();
        self.synchronize()?;
        hosts
    }
}
