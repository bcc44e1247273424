//! On which NUMA node of the host memory lies: near its device, copies don't cross from one processor to another.

use std::{io, ptr::NonNull};

/// As many nodes as any kernel knows.
const MAX_NODES: usize = 1024;
const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// Asks for the range's pages to be taken from `node`, or, where it has none left, from the nearest that has. Says nothing
/// of pages that are present already.
///
/// A wish: where the kernel or a container refuses, which the error tells, the pages come from wherever the thread that
/// touches them runs. That is slower and never wrong.
pub(super) fn prefer(ptr: NonNull<u8>, bytes: usize, node: u32) -> io::Result<()> {
    let mut nodes = [0 as libc::c_ulong; MAX_NODES / WORD_BITS];
    let bit = node as usize;
    let word = nodes.get_mut(bit / WORD_BITS).ok_or_else(|| {
        let reason = format!("no kernel knows NUMA node {node}");
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    })?;
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
    if refused == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;
    use crate::memory::mapping::Mapping;

    /// Asks for a node rather than for a policy. This and the next are `linux/mempolicy.h`'s, which `libc` lacks.
    const MPOL_F_NODE: libc::c_int = 1;
    /// Asks about an address rather than about the thread.
    const MPOL_F_ADDR: libc::c_int = 2;

    /// What the kernel says of the pages at `ptr`, in its own numbers: their policy, or with `MPOL_F_NODE` the node that the
    /// first lies on; and the nodes of the policy up to the 64th.
    fn policy(ptr: NonNull<u8>, flags: libc::c_int) -> io::Result<(libc::c_int, libc::c_ulong)> {
        let mut answer: libc::c_int = -1;
        let mut nodes = [0 as libc::c_ulong; MAX_NODES / WORD_BITS];
        let asks_for_node = flags & MPOL_F_NODE != 0;
        // SAFETY: places for the answers, the mask as long as told; of the address the kernel only asks whose it is.
        let refused = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut answer,
                if asks_for_node {
                    null_mut()
                } else {
                    nodes.as_mut_ptr()
                },
                if asks_for_node { 0 } else { MAX_NODES },
                ptr.as_ptr(),
                (flags | MPOL_F_ADDR) as libc::c_ulong,
            )
        };
        if refused == 0 {
            Ok((answer, nodes[0]))
        } else {
            Err(io::Error::last_os_error())
        }
    }

    #[test]
    fn memory_for_a_node_prefers_it_and_lies_there() {
        const BYTES: usize = 64 << 10;
        let asked = Mapping::reserve(BYTES)
            .map(|probe| prefer(probe.ptr(), BYTES, 0).and_then(|()| policy(probe.ptr(), 0)))
            .unwrap();
        if let Err(error) = asked {
            println!(
                "skipped: this kernel says nothing of where memory lies, or a container forbids it: {error}"
            );
            return;
        }
        let near = Mapping::touched(BYTES, Some(0)).unwrap();
        assert_eq!(policy(near.ptr(), 0).unwrap(), (libc::MPOL_PREFERRED, 1));
        let (node, _) = policy(near.ptr(), MPOL_F_NODE).unwrap();
        assert_eq!(node, 0);
        let anywhere = Mapping::touched(BYTES, None).unwrap();
        assert_eq!(policy(anywhere.ptr(), 0).unwrap(), (libc::MPOL_DEFAULT, 0));
    }

    #[test]
    fn a_node_that_no_kernel_knows_is_an_error_that_names_it() {
        let mapping = Mapping::reserve(1).unwrap();
        let error = prefer(mapping.ptr(), mapping.bytes(), u32::MAX).unwrap_err();
        assert!(error.to_string().contains(&u32::MAX.to_string()), "{error}");
    }
}
