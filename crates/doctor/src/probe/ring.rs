//! Whether `io_uring` works: tried, for its version tells nothing where a container forbids it.

use std::io;

use io_uring::opcode;

use crate::IoUring;

/// Has a ring do nothing, once.
pub(super) fn tried() -> IoUring {
    match nothing_done() {
        Ok(result) if result >= 0 => IoUring::Works,
        Ok(result) => IoUring::Refused(io::Error::from_raw_os_error(-result).to_string()),
        Err(error) => IoUring::Refused(error.to_string()),
    }
}

fn nothing_done() -> io::Result<i32> {
    let mut ring = io_uring::IoUring::new(2)?;
    let nothing = opcode::Nop::new().build();
    // SAFETY: the operation refers to no memory.
    unsafe { ring.submission().push(&nothing) }.expect("a new ring has room for one");
    ring.submit_and_wait(1)?;
    Ok(ring.completion().next().map_or(0, |done| done.result()))
}
