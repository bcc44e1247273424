//! Many copies in one call of the driver.
//!
//! `cuMemcpyBatchAsync` (CUDA 12.8 and later) takes what is pinned or on the device. These go as single copies instead:
//!
//! - pageable ends, whose bytes it may read or write after it has returned;
//! - peers;
//! - everything on the legacy default stream, which it refuses;
//! - to the device, and what is long: single copies are faster there (on an H200, 16384 copies of 16 KiB: 4.0 GB/s in batches
//!   and 5.8 one by one to the device, 19.9 and 7.5 to the host);
//! - everything where the device knows registered host memory by another address than the host does (WSL).
//!
//! A call takes no more than [`MOST`] copies: larger ones were seen to crash. Copies of nothing are left out.

use std::ffi::c_uint;

use pinlane_driver::{MemCopy, Result};

use crate::{
    context::Context,
    copies::{Copies, Way, way_of},
    devices,
    library::{CopyAttributes, CopyBatch},
    pinned::known_to_cuda,
    streams,
};

/// The most copies of one call; a crash was reported near 52,000.
const MOST: usize = 4096;

/// The longest copy that a batch makes cheaper: beyond, the link's time hides the call's.
const LONGEST: usize = 256 << 10;

/// The source is read in the stream's order: not before what stands ahead of the batch is done. The other orders let
/// the device read it at once.
const ORDER_STREAM: c_uint = 1;

/// The driver's batch call for this device, where it can be used.
pub(crate) fn usable(context: &Context) -> Option<CopyBatch> {
    context
        .api
        .copy_batch
        .filter(|_| devices::knows_host_addresses(context))
}

/// Enqueues all of `copies`; see [`Driver::copy_batch`](pinlane_driver::Driver::copy_batch).
///
/// # Safety
///
/// As there.
pub(crate) unsafe fn copy_batch(
    copies: &Copies,
    context: &Context,
    call: Option<CopyBatch>,
    batch: &[MemCopy],
    stream: usize,
) -> Result<()> {
    let legacy = matches!(stream, streams::LEGACY_DEFAULT | streams::LEGACY);
    let call = call.filter(|_| !legacy && batch.len() > 1);
    let mut pending = Pending::default();
    for copy in batch {
        let way = way_of(context, copy)?;
        if copy.bytes == 0 {
            continue;
        }
        match call {
            Some(call) if is_batchable(copies, context, way, copy.bytes)? => {
                // SAFETY: the caller's promise, for each copy of the batch.
                pending.add(way, copy.bytes, |full| unsafe {
                    submit(context, call, full, stream)
                })?;
            }
            // SAFETY: the caller's promise.
            _ => unsafe { copies.enqueue(context, way, copy.bytes, stream)? },
        }
    }
    match call {
        // SAFETY: the caller's promise, for each copy of the batch.
        Some(call) => pending.flush(|rest| unsafe { submit(context, call, rest, stream) }),
        None => Ok(()),
    }
}

/// Whether the batch call may take the copy.
fn is_batchable(copies: &Copies, context: &Context, way: Way, bytes: usize) -> Result<bool> {
    let host = match way {
        Way::OnDevice { .. } => return Ok(true),
        Way::FromPeer { .. } | Way::ToPeer { .. } | Way::ToDevice { .. } => return Ok(false),
        Way::ToHost { .. } if bytes > LONGEST => return Ok(false),
        Way::ToHost { dst, .. } => dst.cast_const(),
    };
    if copies.pinned.cover(host, bytes) {
        return Ok(true);
    }
    let _current = context.enter()?;
    Ok(known_to_cuda(context, host, bytes))
}

/// Copies that wait for one call: their arguments.
#[derive(Debug, Default)]
struct Pending {
    dsts: Vec<u64>,
    srcs: Vec<u64>,
    sizes: Vec<usize>,
}

impl Pending {
    /// Adds a copy that is batchable, and submits what is there when that makes it full.
    fn add(&mut self, way: Way, bytes: usize, submit: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (dst, src) = match way {
            // Unified addressing: a host address names its memory to the device too.
            Way::ToDevice { dst, src } => (dst, src.addr() as u64),
            Way::ToHost { dst, src } => (dst.addr() as u64, src),
            Way::OnDevice { dst, src } | Way::FromPeer { dst, src, .. } | Way::ToPeer { dst, src, .. } => {
                (dst, src)
            }
        };
        self.dsts.push(dst);
        self.srcs.push(src);
        self.sizes.push(bytes);
        if self.sizes.len() == MOST {
            return self.flush(submit);
        }
        Ok(())
    }

    /// Submits what is there, if anything is, and is empty again.
    fn flush(&mut self, submit: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.sizes.is_empty() {
            return Ok(());
        }
        let submitted = submit(self);
        self.dsts.clear();
        self.srcs.clear();
        self.sizes.clear();
        submitted
    }
}

/// Enqueues what is pending in one call.
///
/// # Safety
///
/// As for [`copy_batch`], for what is pending.
unsafe fn submit(context: &Context, call: CopyBatch, pending: &mut Pending, stream: usize) -> Result<()> {
    let _current = context.enter_stream(stream)?;
    let count = pending.sizes.len();
    let mut attributes = CopyAttributes {
        source_access_order: ORDER_STREAM,
        ..CopyAttributes::default()
    };
    // One set of attributes, which holds from the first copy on.
    let (mut first, mut failed) = (0, usize::MAX);
    // SAFETY: three arrays of `count`, one set of attributes, a valid place for the answer; the ranges are valid and
    // apart by the caller's promise. The arrays are read before the call returns.
    let status = unsafe {
        call(
            pending.dsts.as_mut_ptr(),
            pending.srcs.as_mut_ptr(),
            pending.sizes.as_mut_ptr(),
            count,
            &raw mut attributes,
            &raw mut first,
            1,
            &raw mut failed,
            stream,
        )
    };
    context.check(status, || match failed {
        usize::MAX => format!("copying a batch of {count}"),
        at => format!("copying number {at} of a batch of {count}"),
    })
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    fn copy(number: u64) -> Way {
        Way::ToDevice {
            dst: number,
            src: ptr::without_provenance(0x1000),
        }
    }

    #[test]
    fn no_call_takes_more_copies_than_the_cap() {
        let (mut pending, mut calls) = (Pending::default(), Vec::new());
        for number in 0..10_000 {
            let submit = |full: &mut Pending| {
                calls.push(full.dsts.clone());
                Ok(())
            };
            pending.add(copy(number), 8, submit).unwrap();
        }
        pending
            .flush(|rest| {
                calls.push(rest.dsts.clone());
                Ok(())
            })
            .unwrap();
        let lengths: Vec<usize> = calls.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MOST, MOST, 10_000 - 2 * MOST]);
        assert_eq!(calls.concat(), (0..10_000).collect::<Vec<u64>>());
    }

    #[test]
    fn an_empty_batch_makes_no_call() {
        let mut pending = Pending::default();
        pending.flush(|_| unreachable!("nothing is pending")).unwrap();
    }

    #[test]
    fn host_addresses_stand_where_the_direction_wants_them() {
        let mut pending = Pending::default();
        let never = |_: &mut Pending| unreachable!("far from full");
        pending.add(copy(7), 8, never).unwrap();
        let back = Way::ToHost {
            dst: ptr::without_provenance_mut(0x2000),
            src: 9,
        };
        pending.add(back, 16, never).unwrap();
        assert_eq!(
            (pending.dsts, pending.srcs, pending.sizes),
            (vec![7, 0x2000], vec![0x1000, 9], vec![8, 16])
        );
    }
}
