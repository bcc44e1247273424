//! Neither a driver's library nor the threads that move bytes survive `fork`: a child of a process that uses devices must
//! get an error, not a hang or a crash.
//!
//! Whoever starts such threads, or loads such a library, [watches](watch) first. The C library then tells each child at
//! birth, so that a call costs one load to check. In a child,
//!
//! - nothing takes a lock that another thread may have held at the fork, or waits for a thread;
//! - what was to be done on a device is [refused](refuse_in_child);
//! - nothing of a device is given back: it is the parent's.

use crate::{
    DeviceId, Error, ErrorKind, Result,
    sync::{OnceLock, ProcessFlag, atomic::Ordering},
};

/// Set in a child, by the C library, before its code runs: between `fork` and the child's first step nothing but a store
/// is allowed.
static FORKED: ProcessFlag = ProcessFlag::new(false);

/// From now on, children that are forked from this process know it.
pub fn watch() {
    static WATCHED: OnceLock<()> = OnceLock::new();
    WATCHED.get_or_init(|| {
        #[cfg(unix)]
        {
            extern "C" fn in_child() {
                FORKED.store(true, Ordering::Relaxed);
            }
            // SAFETY: the handler only stores to a static. Its only error is that there is no memory left for the
            // registration: children then go unwarned, as they would without this module.
            let _registered = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        }
    });
}

/// Whether this process was forked from one that used devices, and did not become another program since.
#[inline]
#[must_use]
pub fn is_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// An error in a child of a process that used devices.
///
/// # Errors
///
/// [`ErrorKind::Forked`].
#[inline]
pub fn refuse_in_child(device: DeviceId) -> Result<()> {
    if is_child() {
        return Err(in_child(device));
    }
    Ok(())
}

#[cold]
fn in_child(device: DeviceId) -> Error {
    Error::new(
        ErrorKind::Forked,
        device,
        "a call was made in a process forked from one that uses devices, and neither the driver nor the threads that move \
         bytes survive a fork: start worker processes with `exec` (in Python `spawn` or `forkserver`), or use devices only \
         after the fork",
    )
}
