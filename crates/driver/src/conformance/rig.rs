//! What a case works with: host memory, and streams that are drained before what they use is freed.
//!
//! The one rule of every case: host and device memory is made *before* the [`Queue`]s that use it. Locals are dropped
//! in the opposite order, and a queue synchronises when it is dropped, so a case that fails half-way frees nothing
//! that the device still uses.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ops::Deref,
    ptr::NonNull,
    slice,
};

use super::{Outcome, Stop, Subject, bytes, if_supported};
use crate::{DeviceId, DeviceMemory, DevicePtr, Driver, MemCopy, PinnedRange, Stream, sync::Arc};

/// The largest page that a host pins by.
const PAGE: usize = 64 << 10;

/// Page-aligned host memory, pinned or pageable. Whole pages, so that pinned ranges never share one.
#[derive(Debug)]
pub(super) struct Host {
    pinned: Option<PinnedRange>,
    start: NonNull<u8>,
    bytes: usize,
    layout: Layout,
}

// SAFETY: the memory belongs to this value; nothing in it is bound to a thread.
unsafe impl Send for Host {}
// SAFETY: a shared reference only reads, and cases read only what is not in flight.
unsafe impl Sync for Host {}

impl Host {
    pub(super) fn pageable(bytes: usize) -> Self {
        let size = bytes.max(1).next_multiple_of(PAGE);
        let layout = Layout::from_size_align(size, PAGE).expect("cases ask for little memory");
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        let start = start.unwrap_or_else(|| handle_alloc_error(layout));
        Self {
            pinned: None,
            start,
            bytes,
            layout,
        }
    }

    pub(super) fn pinned(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Self, Stop> {
        let mut host = Self::pageable(bytes);
        // SAFETY: the memory is mapped while `host` lives, is nobody else's, and `unpin` or drop ends the pin first.
        host.pinned = Some(unsafe { PinnedRange::new(driver, host.start, host.layout.size())? });
        Ok(host)
    }

    /// Ends the pin. The caller has synchronised with all that used it.
    pub(super) fn unpin(&mut self) {
        self.pinned = None;
    }

    pub(super) fn ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The address `offset` bytes in.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.bytes);
        // SAFETY: within the allocation.
        unsafe { self.ptr().add(offset) }
    }

    /// Fills the memory with the pattern `seed`. Nothing in flight may read or write it.
    pub(super) fn fill(&mut self, seed: u64) {
        let bytes = bytes::pattern(seed, self.bytes);
        // SAFETY: as long as the memory, which no one else has (`&mut`).
        unsafe { self.ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// The bytes. Nothing in flight may write them.
    pub(super) fn read(&self) -> &[u8] {
        // SAFETY: initialised by `alloc_zeroed`; the caller has synchronised with whatever wrote to it.
        unsafe { slice::from_raw_parts(self.ptr(), self.bytes) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.pinned = None;
        // SAFETY: allocated in `pageable` with this layout; by the rule above no enqueued work uses it any more.
        unsafe { dealloc(self.ptr(), self.layout) };
    }
}

/// A stream that is synchronised with before it is given back.
#[derive(Debug)]
pub(super) struct Queue(Stream);

impl Queue {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Result<Self, Stop> {
        Ok(Self(Stream::new(driver)?))
    }

    /// Enqueues a copy of this case's own memory.
    pub(super) fn copy(&self, copy: MemCopy) -> Result<(), Stop> {
        // SAFETY: by the rule of this module both ends outlive the queue, which drains before it goes.
        unsafe { self.0.copy(copy) }.map_err(Stop::from)
    }

    /// Enqueues a copy from another device, or skips the case where the driver has none.
    pub(super) fn copy_from_peer(
        &self,
        dst: DevicePtr,
        peer: DeviceId,
        src: DevicePtr,
        bytes: usize,
    ) -> Result<(), Stop> {
        // SAFETY: as for `copy`.
        if_supported(unsafe { self.0.copy(MemCopy::from_peer(dst, peer, src, bytes)) })
    }

    /// Enqueues copies of this case's own memory.
    pub(super) fn copy_batch(&self, copies: &[MemCopy]) -> crate::Result<()> {
        // SAFETY: as for `copy`; cases make batches whose ranges do not overlap.
        unsafe { self.driver().copy_batch(copies, self.raw()) }
    }

    /// Enqueues a fill of this case's own memory.
    pub(super) fn memset(&self, dst: DevicePtr, value: u8, bytes: usize) -> Result<(), Stop> {
        // SAFETY: as for `copy`.
        unsafe { self.driver().memset(dst, value, bytes, self.raw()) }.map_err(Stop::from)
    }

    /// Keeps the stream's device busy for a moment, where the driver can: an order that does not hold shows then.
    pub(super) fn dawdle(&self) -> Result<(), Stop> {
        match self
            .driver()
            .busy(std::time::Duration::from_millis(3), self.raw())
        {
            Err(error) if error.kind() != crate::ErrorKind::Unsupported => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What the device memory holds after all that is enqueued, through pageable memory of `bytes` bytes.
    pub(super) fn fetch(&self, src: DevicePtr, bytes: usize) -> Result<Vec<u8>, Stop> {
        let mut host = vec![0; bytes];
        self.copy(MemCopy::to_host(host.as_mut_ptr(), src, bytes))?;
        Ok(host)
    }

    /// Puts bytes into device memory, after all that is enqueued. The source is free when this returns.
    pub(super) fn put(&self, dst: DevicePtr, host: &[u8]) -> Result<(), Stop> {
        self.copy(MemCopy::to_device(dst, host.as_ptr(), host.len()))
    }

    /// Fails unless the device memory holds the pattern `seed`.
    pub(super) fn ensure_pattern(&self, memory: &DeviceMemory, seed: u64, what: &str) -> Outcome {
        bytes::ensure_pattern(&self.fetch(memory.ptr(), memory.bytes())?, seed, what)
    }
}

impl Deref for Queue {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.0
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // A failure here either was the case's subject or has already ended it.
        let _drained = self.0.synchronize();
    }
}

/// Drains a queue that others use too, before the memory that was made earlier goes.
#[derive(Debug)]
pub(super) struct Drain<'a>(pub(super) &'a Queue);

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        // As for a queue's own drop.
        let _drained = self.0.synchronize();
    }
}

impl Subject {
    pub(super) fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// The second device, or a reason to skip the case.
    pub(super) fn peer(&self) -> Result<&Arc<dyn Driver>, Stop> {
        let peer = self.peer.as_ref();
        peer.ok_or_else(|| Stop::Skipped("the case needs a second device".to_owned()))
    }

    pub(super) fn memory(&self, bytes: usize) -> Result<DeviceMemory, Stop> {
        Ok(DeviceMemory::new(&self.driver, bytes)?)
    }

    pub(super) fn pinned(&self, bytes: usize) -> Result<Host, Stop> {
        Host::pinned(&self.driver, bytes)
    }

    pub(super) fn queue(&self) -> Result<Queue, Stop> {
        Queue::new(&self.driver)
    }
}
