//! The processor time that this process has used, in all of its threads.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// User and system time so far.
pub(crate) fn time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The processor time that `work` takes, and what it gives.
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let before = time();
    let given = work();
    (time().saturating_sub(before), given)
}
