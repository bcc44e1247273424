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
//!
//! A driver that has the call and then does not support it, on this device or here, gets single copies from there on.

use std::ffi::c_uint;

use pinlane_driver::{
    ErrorKind, MemCopy, Result,
    sync::atomic::{AtomicBool, Ordering},
};

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

/// The driver's batch call for one device.
#[derive(Debug)]
pub(crate) struct Batches {
    /// `None` where it can't be used.
    call: Option<CopyBatch>,
    /// It was not supported when it was called: it is not called again.
    refused: AtomicBool,
}

impl Batches {
    pub(crate) fn new(context: &Context) -> Self {
        let usable = |_: &CopyBatch| devices::knows_host_addresses(context);
        Self {
            call: context.api.copy_batch.filter(usable),
            refused: AtomicBool::new(false),
        }
    }

    /// Enqueues all of `batch`; see [`Driver::copy_batch`](pinlane_driver::Driver::copy_batch).
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn copy(
        &self,
        copies: &Copies,
        context: &Context,
        batch: &[MemCopy],
        stream: usize,
    ) -> Result<()> {
        let legacy = matches!(stream, streams::LEGACY_DEFAULT | streams::LEGACY);
        let is_refused = self.refused.load(Ordering::Relaxed);
        let call = self.call.filter(|_| !legacy && !is_refused && batch.len() > 1);
        // SAFETY: the caller's promise, for each copy of the batch.
        let one = |way: Way, bytes: usize| unsafe { copies.enqueue(context, way, bytes, stream) };
        let all = |call: CopyBatch, pending: &mut Pending| {
            // SAFETY: the same.
            let all = |pending: &mut Pending| unsafe { submit(context, call, pending, stream) };
            self.submit(pending, all, one)
        };
        let mut pending = Pending::default();
        for copy in batch {
            let way = way_of(context, copy)?;
            if copy.bytes == 0 {
                continue;
            }
            match call {
                Some(call) if is_batchable(copies, context, way, copy.bytes)? => {
                    pending.add(way, copy.bytes, |full| all(call, full))?;
                }
                _ => one(way, copy.bytes)?,
            }
        }
        match call {
            Some(call) => pending.flush(|rest| all(call, rest)),
            None => Ok(()),
        }
    }

    /// Enqueues what is pending by `all` or, where that is not supported, each by `one`, from then on.
    fn submit(
        &self,
        pending: &mut Pending,
        all: impl FnOnce(&mut Pending) -> Result<()>,
        mut one: impl FnMut(Way, usize) -> Result<()>,
    ) -> Result<()> {
        if !self.refused.load(Ordering::Relaxed) {
            match all(pending) {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    tracing::warn!(%error, "copying one by one from here on");
                    self.refused.store(true, Ordering::Relaxed);
                }
                submitted => return submitted,
            }
        }
        let mut copies = pending.ways.iter().zip(&pending.sizes);
        copies.try_for_each(|(&way, &bytes)| one(way, bytes))
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
    ways: Vec<Way>,
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
        self.ways.push(way);
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
        self.ways.clear();
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
/// As for [`Batches::copy`], for what is pending.
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
    use std::{
        cell::{Cell, RefCell},
        ptr,
    };

    use pinlane_driver::Error;

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
    fn a_call_that_is_not_supported_is_replaced_by_single_copies_and_not_made_again() {
        let batches = Batches {
            call: None,
            refused: AtomicBool::new(false),
        };
        let refuse = |kind| Err(Error::new(kind, devices::id(0), "no batch"));
        let (calls, singles) = (Cell::new(0), RefCell::new(Vec::new()));
        let submit = |kind| {
            let mut pending = Pending::default();
            let never = |_: &mut Pending| unreachable!("far from full");
            pending.add(copy(1), 8, never).unwrap();
            pending.add(copy(2), 16, never).unwrap();
            let all = |_: &mut Pending| {
                calls.set(calls.get() + 1);
                refuse(kind)
            };
            batches.submit(&mut pending, all, |way, bytes| {
                singles.borrow_mut().push((way, bytes));
                Ok(())
            })
        };
        submit(ErrorKind::OutOfMemory).unwrap_err();
        assert_eq!(singles.borrow().len(), 0, "any other error is the caller's");
        for calls_made in [2, 2] {
            submit(ErrorKind::Unsupported).unwrap();
            assert_eq!(calls.get(), calls_made);
            assert_eq!(singles.take(), [(copy(1), 8), (copy(2), 16)]);
        }
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
