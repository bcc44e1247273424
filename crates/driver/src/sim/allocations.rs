//! A device's memory: blocks of host memory that the simulator owns.
//!
//! A device address is the host address of the byte that stands for it, so that arithmetic on it just works.
//!
//! An allocation is *live* from [`insert`](Allocations::insert) to [`free`](Allocations::free). One that is freed
//! while enqueued work still uses it (the caller's breach, or a lost device) is *dying*: unknown to new work, but its
//! block stays mapped and is used for nothing else until that work is done, so that an engine never writes to memory
//! that has become someone else's.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    collections::BTreeMap,
    ptr::NonNull,
};

use super::state::error;
use crate::{Error, ErrorKind};

/// Device addresses are multiples of this.
const ALIGNMENT: usize = 256;

/// Freed blocks are kept for the next allocation of their size, up to this many bytes: fresh pages are slow.
const RECYCLED_BYTES: usize = 1 << 30;

/// What fresh device memory is filled with where a device poisons.
pub const POISON: u8 = 0xA5;

/// A piece of host memory that serves as device memory, or as a bounce buffer.
#[derive(Debug)]
pub(super) struct Block {
    raw: NonNull<u8>,
    layout: Layout,
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: a block owns its memory, and hands out nothing but its address.
unsafe impl Send for Block {}
// SAFETY: as above; no method reads or writes the memory through a shared reference.
unsafe impl Sync for Block {}

impl Block {
    /// The size of the block that serves `bytes` bytes.
    pub(super) fn size_for(bytes: usize) -> Option<usize> {
        bytes.max(1).checked_next_multiple_of(ALIGNMENT)
    }

    /// `size` zeroed bytes, or nothing where the host has not that much.
    pub(super) fn new(size: usize) -> Option<Self> {
        // Aligned by hand: the system allocator touches every page of a zeroed block with a large alignment.
        let layout = Layout::from_size_align(size.checked_add(ALIGNMENT)?, 16).ok()?;
        // SAFETY: the layout has at least `ALIGNMENT` bytes, so it is not empty.
        let raw = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let padding = raw.addr().get().next_multiple_of(ALIGNMENT) - raw.addr().get();
        // SAFETY: less than `ALIGNMENT` bytes on, and the block has `ALIGNMENT` bytes to spare.
        let base = unsafe { raw.add(padding) };
        Some(Self {
            raw,
            layout,
            base,
            size,
        })
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(super) fn address(&self) -> u64 {
        // Exposed: a caller hands the address back as an integer.
        self.base.as_ptr().expose_provenance() as u64
    }

    /// Fills the block with [`POISON`].
    pub(super) fn poison(&mut self) {
        // SAFETY: the block is `size` bytes long, and `&mut self` says that it serves no one yet.
        unsafe { self.base.as_ptr().write_bytes(POISON, self.size) };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.raw.as_ptr(), self.layout) };
    }
}

#[derive(Debug)]
struct Allocation {
    block: Block,
    bytes: usize,
    /// Enqueued pieces of work that read or write it.
    users: u32,
    live: bool,
}

/// Why an address range can't be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RangeError {
    /// No live allocation holds the first byte.
    Unknown,
    /// The range runs past the end of the allocation, which has `bytes` bytes from `base` on.
    TooLong { base: u64, bytes: usize },
}

/// Why memory can't be given back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FreeError {
    /// Not the address of a live allocation.
    Unknown,
    /// Its size is another one.
    WrongSize { bytes: usize },
}

impl FreeError {
    /// The error of a call that frees `bytes` bytes at `address` of a device.
    pub(super) fn on(&self, device: usize, address: u64, bytes: usize) -> Error {
        let (kind, why) = match self {
            Self::Unknown => (
                ErrorKind::InvalidHandle,
                "no live allocation starts there".to_owned(),
            ),
            Self::WrongSize { bytes } => (
                ErrorKind::InvalidArgument,
                format!("the allocation there has {bytes}; free it as it was allocated"),
            ),
        };
        error(
            device,
            kind,
            format!("freeing {bytes} bytes at {address:#x}: {why}"),
        )
    }
}

/// What became of a block that was given back.
#[derive(Debug)]
pub(super) enum Freed {
    /// Kept for the next allocation of its size.
    Recycled,
    /// Too much: the caller drops it, outside of the machine's lock.
    Surplus(#[expect(dead_code, reason = "held only to be dropped")] Block),
    /// Enqueued work still uses it.
    InUse,
}

/// The memory of one device.
#[derive(Debug)]
pub(super) struct Allocations {
    capacity: u64,
    used: u64,
    peak: u64,
    live: usize,
    by_address: BTreeMap<u64, Allocation>,
    recycled: BTreeMap<usize, Vec<Block>>,
    recycled_bytes: usize,
}

impl Allocations {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            used: 0,
            peak: 0,
            live: 0,
            by_address: BTreeMap::new(),
            recycled: BTreeMap::new(),
            recycled_bytes: 0,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.capacity - self.used
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Takes `bytes` off the free memory, if there is that much. To be followed by [`insert`](Self::insert) or
    /// [`give_up`](Self::give_up).
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        let fits = bytes as u64 <= self.free_bytes();
        if fits {
            self.used += bytes as u64;
            self.peak = self.peak.max(self.used);
        }
        fits
    }

    /// Undoes [`reserve`](Self::reserve).
    pub(super) fn give_up(&mut self, bytes: usize) {
        self.used -= bytes as u64;
    }

    /// A block of exactly `size` bytes that was in use before.
    pub(super) fn recycle(&mut self, size: usize) -> Option<Block> {
        let block = self.recycled.get_mut(&size)?.pop()?;
        self.recycled_bytes -= size;
        Some(block)
    }

    /// Bytes of blocks that are kept for the next allocation.
    pub(super) fn recycled_bytes(&self) -> usize {
        self.recycled_bytes
    }

    /// Gives up what is kept: the caller drops it, outside of the machine's lock.
    pub(super) fn trim(&mut self) -> BTreeMap<usize, Vec<Block>> {
        self.recycled_bytes = 0;
        std::mem::take(&mut self.recycled)
    }

    /// Makes a block the home of `bytes` reserved bytes, and says their address.
    pub(super) fn insert(&mut self, block: Block, bytes: usize) -> u64 {
        let address = block.address();
        self.live += 1;
        self.by_address.insert(
            address,
            Allocation {
                block,
                bytes,
                users: 0,
                live: true,
            },
        );
        address
    }

    /// Ends an allocation.
    pub(super) fn free(&mut self, address: u64, bytes: usize) -> Result<Freed, FreeError> {
        let allocation = self.by_address.get_mut(&address).filter(|found| found.live);
        let allocation = allocation.ok_or(FreeError::Unknown)?;
        if allocation.bytes != bytes {
            return Err(FreeError::WrongSize {
                bytes: allocation.bytes,
            });
        }
        allocation.live = false;
        self.live -= 1;
        self.used -= bytes as u64;
        if allocation.users > 0 {
            return Ok(Freed::InUse);
        }
        Ok(self.retire(address))
    }

    /// The pointer to `bytes` bytes at `address`, if they lie within one live allocation.
    pub(super) fn resolve(&self, address: u64, bytes: usize) -> Result<*mut u8, RangeError> {
        let (base, allocation) = self.holding(address).ok_or(RangeError::Unknown)?;
        if !allocation.live {
            return Err(RangeError::Unknown);
        }
        let offset = (address - base) as usize;
        if offset > allocation.bytes || bytes > allocation.bytes - offset {
            return Err(RangeError::TooLong {
                base,
                bytes: allocation.bytes,
            });
        }
        // SAFETY: the offset lies within the allocation, and so within its block.
        Ok(unsafe { allocation.block.base().add(offset) })
    }

    /// Marks the allocation that holds `address` as used by one more piece of enqueued work.
    pub(super) fn hold(&mut self, address: u64) {
        if let Some((_, allocation)) = self.by_address.range_mut(..=address).next_back() {
            allocation.users += 1;
        }
    }

    /// Undoes [`hold`](Self::hold); gives a dying allocation's block back when it was the last.
    pub(super) fn release(&mut self, address: u64) {
        let Some((&base, allocation)) = self.by_address.range_mut(..=address).next_back() else {
            return;
        };
        allocation.users -= 1;
        if allocation.users == 0 && !allocation.live {
            self.retire(base);
        }
    }

    fn holding(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (&base, allocation) = self.by_address.range(..=address).next_back()?;
        // An empty allocation holds its own address.
        (address - base < allocation.bytes.max(1) as u64 || address == base + allocation.bytes as u64)
            .then_some((base, allocation))
    }

    fn retire(&mut self, address: u64) -> Freed {
        let allocation = self.by_address.remove(&address);
        let block = allocation.expect("the caller just saw it").block;
        if self.recycled_bytes + block.size > RECYCLED_BYTES {
            return Freed::Surplus(block);
        }
        self.recycled_bytes += block.size;
        self.recycled.entry(block.size).or_default().push(block);
        Freed::Recycled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocate(memory: &mut Allocations, bytes: usize) -> u64 {
        assert!(memory.reserve(bytes));
        let size = Block::size_for(bytes).unwrap();
        let block = memory.recycle(size).or_else(|| Block::new(size)).unwrap();
        memory.insert(block, bytes)
    }

    #[test]
    fn a_range_must_lie_within_one_live_allocation() {
        let mut memory = Allocations::new(1 << 20);
        let base = allocate(&mut memory, 1000);
        assert_eq!(base % 256, 0);
        assert!(memory.resolve(base + 1, 999).is_ok());
        assert_eq!(
            memory.resolve(base + 1, 1000),
            Err(RangeError::TooLong { base, bytes: 1000 })
        );
        assert_eq!(memory.resolve(base - 1, 1), Err(RangeError::Unknown));
        assert_eq!(
            memory.free(base, 999).unwrap_err(),
            FreeError::WrongSize { bytes: 1000 }
        );
        assert!(matches!(memory.free(base, 1000), Ok(Freed::Recycled)));
        assert_eq!(memory.resolve(base, 1), Err(RangeError::Unknown));
        assert_eq!(memory.free(base, 1000).unwrap_err(), FreeError::Unknown);
    }

    #[test]
    fn memory_freed_in_use_is_not_handed_out_before_its_work_is_done() {
        let mut memory = Allocations::new(1 << 20);
        let base = allocate(&mut memory, 512);
        memory.hold(base + 100);
        assert!(matches!(memory.free(base, 512), Ok(Freed::InUse)));
        assert_eq!((memory.used(), memory.live()), (0, 0));
        assert_ne!(allocate(&mut memory, 512), base);
        memory.release(base + 100);
        assert_eq!(allocate(&mut memory, 512), base);
    }

    #[test]
    fn reserving_stops_at_the_capacity() {
        let mut memory = Allocations::new(1000);
        assert!(memory.reserve(600));
        assert!(!memory.reserve(401));
        assert!(memory.reserve(400));
        memory.give_up(1000);
        assert_eq!((memory.used(), memory.peak()), (0, 1000));
    }
}
