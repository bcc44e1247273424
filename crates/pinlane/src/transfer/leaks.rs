//! The count of what was given up on because a lost device may still use it.

use pinlane_driver::sync::atomic::{AtomicU64, Ordering};

/// Bytes of transfers whose memory is never let go.
#[derive(Debug, Default)]
pub(crate) struct Leaks(AtomicU64);

impl Leaks {
    /// Counts a transfer of `bytes` and says so: leaking is right here, but nobody should miss it.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        tracing::warn!(
            bytes,
            "the device is lost: the memory of a transfer is leaked, because it may still be in use"
        );
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
