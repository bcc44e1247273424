//! The guide's own ways to move a tensor, which are torch's, over the raw driver.
//!
//! - `to` without blocking is: take device memory from a cache, enqueue one copy on the current stream, return.
//! - `to` with blocking is the same and then waits for the stream.
//! - `pin_memory` is: take pinned memory from a cache, copy into it, with all cores where it is long, return.
//! - to the host without blocking lands in pinned memory, and returns before anything has landed.
//!
//! One tensor, one call, nothing batched, nothing checked. The ways are unsafe where torch's are: a non-blocking copy
//! from or to pinned memory goes on after the call, and nothing but the caller's care keeps the bytes still. Every step
//! is a span of `pinlane::trace` (to, pin_memory, allocate, copy, fill, wait), as the engine's steps are, so that their tables
//! of operations compare line by line.

mod crew;
mod device_cache;
mod lists;
mod pinned_cache;

use pinlane::trace::span;
use pinlane_driver::{Driver, MemCopy, Stream, sync::Arc};

use crate::error::Result;

use device_cache::DeviceCache;
use pinned_cache::PinnedCache;

pub use crew::PIECE;
pub use device_cache::DeviceBlock;
pub(crate) use pinned_cache::Pages;
pub use pinned_cache::PinnedBlock;

/// A device as torch sees it: one current stream, a cache of device memory, a cache of pinned memory.
#[derive(Debug)]
pub struct Plain {
    stream: Arc<Stream>,
    device: Arc<DeviceCache>,
    pinned: Arc<PinnedCache>,
}

impl Plain {
    /// Starts with a stream and empty caches.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn new(driver: &Arc<dyn Driver>) -> Result<Self> {
        let stream = Arc::new(Stream::new(driver)?);
        Ok(Self {
            device: DeviceCache::new(Arc::clone(&stream)),
            pinned: PinnedCache::new(driver),
            stream,
        })
    }

    /// The current stream, on which everything runs.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// `source.to(device)`: returns when the bytes have landed.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn to(&self, source: &[u8]) -> Result<DeviceBlock> {
        let _span = span("to").moving(source.len() as u64, "plain");
        // SAFETY: the borrow keeps the source alive and unchanged until the wait below is over.
        let block = unsafe { self.enqueue_to_device(source)? };
        self.synchronize()?;
        Ok(block)
    }

    /// `source.to(device, non_blocking=True)`.
    ///
    /// # Safety
    ///
    /// Where `source` lies in pinned memory, it stays alive and unchanged until [`synchronize`](Self::synchronize) has
    /// returned. (Pageable memory is free to change when this returns.)
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub unsafe fn to_non_blocking(&self, source: &[u8]) -> Result<DeviceBlock> {
        let _span = span("to").moving(source.len() as u64, "plain");
        // SAFETY: the caller keeps the same promise.
        unsafe { self.enqueue_to_device(source) }
    }

    /// `source.to(device, non_blocking=True)` of a tensor in pinned memory. The block may be dropped at once: it is not
    /// lent again before the copy is done. Whoever [overwrites](PinnedBlock::overwrite) it before
    /// [`synchronize`](Self::synchronize) has returned changes what lands.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pinned_to_non_blocking(&self, source: &PinnedBlock) -> Result<DeviceBlock> {
        let _span = span("to").moving(source.bytes() as u64, "plain");
        self.enqueue_pinned(source)
    }

    /// `source.to(device)` of a tensor in pinned memory.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pinned_to(&self, source: &PinnedBlock) -> Result<DeviceBlock> {
        let _span = span("to").moving(source.bytes() as u64, "plain");
        let block = self.enqueue_pinned(source)?;
        self.synchronize()?;
        Ok(block)
    }

    /// `source.pin_memory()`: blocks until the bytes are in pinned memory. From any thread.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pin_memory(&self, source: &[u8]) -> Result<PinnedBlock> {
        let _span = span("pin_memory").moving(source.len() as u64, "plain");
        let block = self.pinned_empty(source.len())?;
        let _span = span("fill").moving(source.len() as u64, "plain");
        // SAFETY: the block is ours alone, idle, and as long as the source.
        unsafe { crew::copy(source.as_ptr(), block.as_ptr(), source.len()) };
        Ok(block)
    }

    /// `torch.empty(.., pin_memory=True)`: the content is whatever the block's last user left.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn pinned_empty(&self, bytes: usize) -> Result<PinnedBlock> {
        let _span = span("allocate").moving(bytes as u64, "plain");
        Ok(self.pinned.allocate(bytes)?)
    }

    /// `block.cpu()`: fresh pageable memory, filled when this returns.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn to_host(&self, block: &DeviceBlock) -> Result<Vec<u8>> {
        let mut host = vec![0; block.bytes()];
        // SAFETY: both ranges have that many bytes and outlive the wait below.
        unsafe {
            self.stream
                .copy(MemCopy::to_host(host.as_mut_ptr(), block.ptr(), host.len()))?
        };
        self.synchronize()?;
        Ok(host)
    }

    /// `block.to("cpu", non_blocking=True)`: pinned memory that is filled at some later time.
    ///
    /// Reading it (see [`PinnedBlock::differs_now`]) before [`synchronize`](Self::synchronize) has returned gives
    /// garbage.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn to_host_non_blocking(&self, block: &DeviceBlock) -> Result<PinnedBlock> {
        let _span = span("to").moving(block.bytes() as u64, "plain");
        let host = self.pinned_empty(block.bytes())?;
        let _span = span("copy").moving(block.bytes() as u64, "plain");
        // SAFETY: both ranges have that many bytes; neither is reused before this copy is done (one by the order of the
        // stream, the other by its event).
        unsafe {
            self.stream
                .copy(MemCopy::to_host(host.as_ptr(), block.ptr(), block.bytes()))?
        };
        host.used_by(&self.stream)?;
        Ok(host)
    }

    /// `torch.cuda.synchronize()`: blocks until everything enqueued so far is done.
    ///
    /// # Errors
    ///
    /// What failed on the stream since the last call.
    pub fn synchronize(&self) -> Result<()> {
        let _span = span("wait");
        Ok(self.stream.synchronize()?)
    }

    /// Whether `block` holds exactly `expected`. Overwrites it afterwards, so that a later way that lands in the same
    /// memory can't find the right bytes there by chance.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn holds(&self, block: &DeviceBlock, expected: &[u8]) -> Result<bool> {
        let holds = self.to_host(block)? == expected;
        // SAFETY: the block's own bytes; it is reused only behind this write on its stream.
        unsafe {
            let driver = self.stream.driver();
            driver.memset(block.ptr(), 0xa5, block.bytes(), self.stream.raw())?;
        }
        Ok(holds)
    }

    /// The bytes of pinned memory that the cache has ever needed and still holds.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned.reserved_bytes()
    }

    /// `torch.empty(.., device=device)`. The block belongs to the current stream: work on another one must come after
    /// what is enqueued there so far, and be over when the block is dropped.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn device_empty(&self, bytes: usize) -> Result<DeviceBlock> {
        let _span = span("allocate").moving(bytes as u64, "plain");
        Ok(self.device.allocate(bytes)?)
    }

    /// # Safety
    ///
    /// As for [`to_non_blocking`](Self::to_non_blocking).
    unsafe fn enqueue_to_device(&self, source: &[u8]) -> Result<DeviceBlock> {
        let block = self.device_empty(source.len())?;
        let _span = span("copy").moving(source.len() as u64, "plain");
        // SAFETY: both ranges have that many bytes; the source is kept by the caller, and the block is reused only
        // behind this copy on its stream.
        unsafe {
            self.stream
                .copy(MemCopy::to_device(block.ptr(), source.as_ptr(), source.len()))?
        };
        Ok(block)
    }

    fn enqueue_pinned(&self, source: &PinnedBlock) -> Result<DeviceBlock> {
        let block = self.device_empty(source.bytes())?;
        let _span = span("copy").moving(source.bytes() as u64, "plain");
        // SAFETY: both ranges have that many bytes. The device block is reused only behind this copy on its stream, and
        // the pinned block only when the event recorded below has fired. Its content changes meanwhile only by
        // `PinnedBlock::overwrite`, whose caller expects what comes of it.
        unsafe {
            self.stream
                .copy(MemCopy::to_device(block.ptr(), source.as_ptr(), source.bytes()))?
        };
        source.used_by(&self.stream)?;
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::sim::{DeviceConfig, Machine};

    use crate::simulated;

    use super::*;

    fn plain() -> Plain {
        Plain::new(&simulated::driver(0).unwrap()).unwrap()
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place % 251) as u8).collect()
    }

    #[test]
    fn every_way_lands_the_bytes_of_its_source() {
        let (plain, source) = (plain(), bytes(100_001));
        let sources = [&source[..7], &source[..], &[]];
        let pinned = plain.pin_each(&sources).unwrap();
        let landed = [
            plain.to_each(&sources).unwrap(),
            plain.to_each_non_blocking(&sources).unwrap(),
            plain.pin_then_to_each(&sources).unwrap(),
            plain.pin_then_to_each_non_blocking(&sources).unwrap(),
            plain.shuttle_each(&sources).unwrap(),
            plain.pinned_to_each(&pinned).unwrap(),
            plain.pinned_to_each_non_blocking(&pinned).unwrap(),
        ];
        for blocks in &landed {
            for (block, source) in blocks.iter().zip(sources) {
                assert!(plain.holds(block, source).unwrap());
            }
        }
    }

    #[test]
    fn a_block_that_was_checked_no_longer_holds_the_bytes() {
        let (plain, source) = (plain(), bytes(1000));
        let block = plain.to(&source).unwrap();
        assert!(plain.holds(&block, &source).unwrap());
        assert!(!plain.holds(&block, &source).unwrap());
    }

    #[test]
    fn a_pinned_block_in_flight_is_not_lent_again() {
        let sim = Machine::new(DeviceConfig::default()).sim(0).unwrap();
        let driver: Arc<dyn Driver> = Arc::clone(&sim) as _;
        let (plain, source) = (Plain::new(&driver).unwrap(), bytes(1 << 20));
        let stall = sim.stall_stream(plain.stream().raw()).unwrap();
        let first = plain.pin_memory(&source).unwrap();
        let address = first.as_ptr();
        let landed = plain.pinned_to_non_blocking(&first).unwrap();
        drop(first);
        let second = plain.pinned_empty(source.len()).unwrap();
        assert_ne!(
            second.as_ptr(),
            address,
            "the copy that is held up still reads the first block"
        );
        drop(stall);
        plain.synchronize().unwrap();
        let third = plain.pinned_empty(source.len()).unwrap();
        assert_eq!(third.as_ptr(), address);
        assert!(plain.holds(&landed, &source).unwrap());
    }

    #[test]
    fn pinned_memory_comes_in_powers_of_two_and_is_never_given_back() {
        let plain = plain();
        let block = plain.pinned_empty((1 << 20) + 1).unwrap();
        assert_eq!((block.bytes(), block.reserved_bytes()), ((1 << 20) + 1, 2 << 20));
        drop(block);
        assert_eq!(plain.pinned_bytes(), 2 << 20);
    }

    #[test]
    fn a_full_device_gets_its_cached_blocks_back_before_the_next_allocation() {
        let plain = plain();
        let all = usize::try_from(plain.stream().driver().properties().memory_bytes).unwrap();
        drop(plain.device_empty(all / 4 * 3).unwrap());
        assert!(plain.device_empty(all / 2).is_ok());
    }

    #[test]
    fn a_copy_to_the_host_is_right_after_the_synchronisation() {
        let (plain, source) = (plain(), bytes(300_000));
        let block = plain.to(&source).unwrap();
        let host = plain.to_host_non_blocking(&block).unwrap();
        plain.synchronize().unwrap();
        assert!(!host.differs_now(&source));
        assert_eq!(plain.to_host(&block).unwrap(), source);
    }
}
