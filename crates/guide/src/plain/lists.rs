//! The guide's ways for a list of tensors: one call for each, and one synchronisation at the end or one for each.

use crate::error::Result;

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
}
