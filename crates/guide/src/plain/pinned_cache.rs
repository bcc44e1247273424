//! Pinned host memory kept for reuse, as torch's caching host allocator keeps it: blocks of powers of two that are
//! never given back while the cache lives.
//!
//! The device reads and writes a block later than the calls that enqueue it. Each block carries an event that is
//! recorded behind every such call; a block that was dropped is lent again only when its event has fired.

use std::{
    alloc::{self, Layout},
    collections::{HashMap, VecDeque},
    ptr::NonNull,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pinlane_driver::{Driver, Event, PinnedRange, Result, Stream, Timing, sync::Arc};

/// The smallest block, and the alignment of all: a page.
const PAGE: usize = 4096;

/// Page-aligned host memory, zeroed.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to this value alone, whichever thread holds it.
unsafe impl Send for Pages {}
// SAFETY: no method reads or writes the memory.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn new(bytes: usize) -> Self {
        let layout =
            Layout::from_size_align(bytes.max(1), PAGE).expect("a block's size fits an address space");
        // SAFETY: the layout's size is at least one.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| alloc::handle_alloc_error(layout));
        Self { start, layout }
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout, and nobody else frees it.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Pages that are pinned for as long as they live. Unpinned first, then freed: fields drop in this order.
#[derive(Debug)]
struct Block {
    range: PinnedRange,
    last_use: Event,
    pages: Pages,
}

#[derive(Debug)]
pub(super) struct PinnedCache {
    driver: Arc<dyn Driver>,
    free: Mutex<HashMap<usize, VecDeque<Block>>>,
    reserved: AtomicU64,
}

impl PinnedCache {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Arc<Self> {
        Arc::new(Self {
            driver: Arc::clone(driver),
            free: Mutex::default(),
            reserved: AtomicU64::new(0),
        })
    }

    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<PinnedBlock> {
        let rounded = bytes.max(PAGE).next_power_of_two();
        let block = match self.take_idle(rounded)? {
            Some(block) => block,
            None => self.allocate_fresh(rounded)?,
        };
        Ok(PinnedBlock {
            block: Some(block),
            bytes,
            cache: Arc::clone(self),
        })
    }

    /// The cached block of that size that was dropped first, if the device is done with it.
    fn take_idle(&self, rounded: usize) -> Result<Option<Block>> {
        let mut free = self.free();
        let Some(blocks) = free.get_mut(&rounded) else {
            return Ok(None);
        };
        match blocks.front() {
            Some(oldest) if oldest.last_use.query()? => Ok(blocks.pop_front()),
            _ => Ok(None),
        }
    }

    fn allocate_fresh(&self, rounded: usize) -> Result<Block> {
        let last_use = Event::new(&self.driver, Timing::Disabled)?;
        let pages = Pages::new(rounded);
        // SAFETY: the pages live as long as the range, in one `Block`, and overlap nobody else's. A block is dropped
        // only with the cache, which first waits for its last use.
        let range = unsafe { PinnedRange::new(&self.driver, pages.start(), pages.bytes())? };
        self.reserved.fetch_add(rounded as u64, Ordering::Relaxed);
        Ok(Block {
            range,
            last_use,
            pages,
        })
    }

    /// The pinned bytes of all blocks, lent and cached: they only grow.
    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    fn free(&self) -> MutexGuard<'_, HashMap<usize, VecDeque<Block>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PinnedCache {
    fn drop(&mut self) {
        for block in std::mem::take(&mut *self.free()).into_values().flatten() {
            match block.last_use.synchronize() {
                Err(error) if error.kind().leaves_memory_in_use() => std::mem::forget(block),
                _ => drop(block),
            }
        }
    }
}

/// Pinned memory on loan from the cache: what `torch.Tensor.pin_memory` returns.
///
/// Nothing stops anyone from reading it while the device still writes, or from writing while the device still reads:
/// that is the guide's way, and what its experiments on wrong bytes are about.
#[derive(Debug)]
pub struct PinnedBlock {
    block: Option<Block>,
    bytes: usize,
    cache: Arc<PinnedCache>,
}

impl PinnedBlock {
    fn block(&self) -> &Block {
        self.block.as_ref().expect("the block is taken only by drop")
    }

    /// The first byte's address, valid for reads and writes of [`bytes`](Self::bytes).
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.block().pages.start().as_ptr()
    }

    /// The size asked for, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The size that is really locked, in bytes.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.block().range.bytes()
    }

    /// The content.
    ///
    /// # Safety
    ///
    /// Nobody, the device included, writes to the block while the slice lives.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the pages are initialised (zeroed when made), at least `bytes` long, and live as long as `self`; no
        // one writes to them by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.bytes) }
    }

    /// Writes `bytes` over the whole block, whether or not the device still reads it. Begins with the last byte, which
    /// a device reads last.
    ///
    /// # Safety
    ///
    /// No slice of the block lives, and no other thread of the host touches it. A device that still reads it gets some
    /// of the old and some of the new bytes: the caller expects that.
    ///
    /// # Panics
    ///
    /// When `bytes` is not as long as the block.
    pub unsafe fn overwrite(&self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.bytes, "the bytes must fill the block");
        for (offset, byte) in bytes.iter().enumerate().rev() {
            // SAFETY: within the block, by the assertion above. Volatile, because a device may be reading.
            unsafe { self.as_ptr().add(offset).write_volatile(*byte) };
        }
    }

    /// Whether the block holds other bytes than `expected` at this moment, whether or not the device still writes it.
    /// Begins with the last byte, which a device writes last.
    ///
    /// # Panics
    ///
    /// When `expected` is not as long as the block.
    #[must_use]
    pub fn differs_now(&self, expected: &[u8]) -> bool {
        assert_eq!(
            expected.len(),
            self.bytes,
            "the expected bytes must be as many as the block's"
        );
        expected.iter().enumerate().rev().any(|(offset, byte)| {
            // SAFETY: within the block, by the assertion above. Volatile, because a device may be writing.
            let now = unsafe { self.as_ptr().add(offset).read_volatile() };
            now != *byte
        })
    }

    /// The block is in use until what is enqueued on `stream` so far is done.
    pub(super) fn used_by(&self, stream: &Stream) -> Result<()> {
        self.block().last_use.record(stream)
    }
}

impl Drop for PinnedBlock {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.cache
                .free()
                .entry(block.pages.bytes())
                .or_default()
                .push_back(block);
        }
    }
}
