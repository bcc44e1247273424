//! A driver that passes every call on to the simulated device, and counts those that break a contract.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pinlane::driver::{ErrorKind, Result, Wrapper, sim::SimDriver};

/// Counts calls with handles or ranges that are not, or no longer, the driver's own: what is released twice, or used
/// after its release, shows here.
#[derive(Debug)]
pub(crate) struct Strict {
    sim: Arc<SimDriver>,
    breaches: AtomicU64,
}

impl Strict {
    pub(crate) fn new(sim: Arc<SimDriver>) -> Self {
        Self {
            sim,
            breaches: AtomicU64::new(0),
        }
    }

    pub(crate) fn breaches(&self) -> u64 {
        self.breaches.load(Ordering::Relaxed)
    }
}

// SAFETY: passes every call on to the simulated device, which finds out what is wrong.
unsafe impl Wrapper for Strict {
    type Inner = SimDriver;

    fn inner(&self) -> &SimDriver {
        &self.sim
    }

    fn call<T>(&self, call: impl FnOnce(&SimDriver) -> Result<T>) -> Result<T> {
        call(&self.sim).inspect_err(|error| {
            if matches!(
                error.kind(),
                ErrorKind::InvalidHandle | ErrorKind::InvalidArgument
            ) {
                eprintln!("breach: {error}");
                self.breaches.fetch_add(1, Ordering::Relaxed);
            }
        })
    }
}
