//! On which NUMA node of the host memory lies: near its device, copies don't cross from one processor to another.

use std::{io, ptr::NonNull};

/// As many nodes as any kernel knows.
const MAX_NODES: usize = 1024;
const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// Asks for the range's pages to be taken from `node`, or, where it has none left, from the nearest that has. Says nothing
/// of pages that are present already.
///
/// A wish: where the kernel or a container refuses, the pages come from wherever the thread that touches them runs, which
/// is slower and never wrong.
pub(super) fn prefer(ptr: NonNull<u8>, bytes: usize, node: u32) {
    let mut nodes = [0 as libc::c_ulong; MAX_NODES / WORD_BITS];
    let bit = node as usize;
    let Some(word) = nodes.get_mut(bit / WORD_BITS) else {
        tracing::debug!(node, "no kernel knows this NUMA node");
        return;
    };
    *word |= 1 << (bit % WORD_BITS);
    // SAFETY: the policy of whole pages changes nothing that a program can read from them; the mask is as long as told (the
    // kernel counts one bit less than it is told).
    let refused = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            ptr.as_ptr(),
            bytes,
            libc::MPOL_PREFERRED as libc::c_ulong,
            nodes.as_ptr(),
            MAX_NODES + 1,
            0 as libc::c_ulong,
        )
    };
    if refused != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(node, bytes, %error, "pinned memory may lie far from its device");
    }
}
