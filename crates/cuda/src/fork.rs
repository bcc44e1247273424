//! CUDA does not survive `fork`: a child of a process that uses it must get an error, not a hang or a crash.
//!
//! The C library tells each child at birth, so that a call costs one load to check.

use std::sync::atomic::{AtomicBool, Ordering};

use pinlane_driver::{DeviceId, Error, ErrorKind, Result, sync::OnceLock};

/// Set in a child, by the C library, before its code runs. Plain `std`: the handler runs between `fork` and the child's
/// first step, where nothing but a store is allowed.
static FORKED: AtomicBool = AtomicBool::new(false);

/// From now on, children that are forked from this process know it.
pub(crate) fn watch() {
    static WATCHED: OnceLock<()> = OnceLock::new();
    WATCHED.get_or_init(|| {
        #[cfg(unix)]
        {
            extern "C" fn in_child() {
                FORKED.store(true, Ordering::Relaxed);
            }
            // SAFETY: the handler only stores to a static. Where there is no memory left for the registration (its
            // only error), CUDA itself answers a child with NOT_INITIALIZED.
            let _registered = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        }
    });
}

/// An error in a child of a process that used CUDA.
#[inline]
pub(crate) fn refuse_in_child(device: DeviceId) -> Result<()> {
    if FORKED.load(Ordering::Relaxed) {
        return Err(in_child(device));
    }
    Ok(())
}

#[cold]
fn in_child(device: DeviceId) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        device,
        "a call was made in a process forked from one that uses CUDA, and CUDA does not survive a fork: start worker \
         processes with `spawn` or `forkserver`, or use CUDA only after the fork",
    )
}
