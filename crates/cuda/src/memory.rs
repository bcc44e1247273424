//! Device memory: a cache of freed blocks over [CUDA's allocator](crate::pool).
//!
//! Taking new memory from CUDA takes 50 microseconds and more, a millisecond for a gibibyte, so freed blocks are kept for reuse: one
//! of those is had in half a microsecond. That needs no events and no streams:
//! [`Driver::free`](pinlane_driver::Driver::free) promises that nothing uses the block any more, so any stream may have it next.
//!
//! - Blocks are rounded up, by an eighth at most (small ones to half a kilobyte), so that sizes that are almost alike share them.
//! - Idle blocks stay under a bound; beyond it the one that has been idle longest goes back first.
//! - When the device runs out of memory, all idle blocks go back, and the call tries once more. They do so when asked, too.
//! - The lock is never held over a call of the driver.

use std::collections::{BTreeMap, HashMap};

use pinlane_driver::{
    ErrorKind, Result,
    sync::{Mutex, lock},
};

/// The least block, and the alignment of every block: cuMemAlloc aligns to 512 in practice, 256 by its word.
const SMALLEST: usize = 512;
/// The coarsest rounding: what the driver itself rounds large allocations to.
const COARSEST: usize = 2 << 20;

/// Where blocks come from and go back to.
pub(crate) trait Source {
    /// A new block of `bytes` bytes.
    fn take(&self, bytes: usize) -> Result<u64>;

    /// Gives a block back, without waiting for anything. Nothing uses it.
    fn give_back(&self, block: u64) -> Result<()>;

    /// Returns when what was given back is there for everybody.
    fn settle(&self) -> Result<()>;
}

/// Blocks by the address of their first byte.
#[derive(Debug)]
pub(crate) struct BlockCache {
    /// The most bytes that may lie idle.
    bound: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Sizes of the blocks that are in use.
    used: HashMap<u64, usize>,
    /// Addresses of idle blocks by size and age.
    idle: BTreeMap<(usize, Age), u64>,
    /// Sizes of idle blocks by age.
    ages: BTreeMap<Age, usize>,
    idle_bytes: usize,
    next_age: Age,
}

/// Counts up with each block that becomes idle.
type Age = u64;

impl BlockCache {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            bound,
            state: Mutex::default(),
        }
    }

    /// Bytes that nobody uses, though the driver counts them as allocated.
    pub(crate) fn idle_bytes(&self) -> usize {
        lock(&self.state).idle_bytes
    }

    /// A block of at least `bytes` bytes, which are not zero.
    pub(crate) fn allocate(&self, bytes: usize, source: &impl Source) -> Result<u64> {
        let size = block_size(bytes);
        if let Some(block) = lock(&self.state).reuse(size) {
            return Ok(block);
        }
        let block = match source.take(size) {
            // Also where nothing is idle here: another thread may be giving back what was.
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                self.trim(source)?;
                source.take(size)?
            }
            taken => taken?,
        };
        lock(&self.state).used.insert(block, size);
        Ok(block)
    }

    /// Takes a block back. Returns whether it was one of this cache.
    pub(crate) fn free(&self, block: u64, source: &impl Source) -> Result<bool> {
        let mut state = lock(&self.state);
        let Some(size) = state.used.remove(&block) else {
            return Ok(false);
        };
        state.keep(block, size);
        let surplus = state.shrink_to(self.bound);
        drop(state);
        if !surplus.is_empty() {
            give_back(surplus, source)?;
            source.settle()?;
        }
        Ok(true)
    }

    /// Gives all idle blocks back; returns their bytes.
    pub(crate) fn trim(&self, source: &impl Source) -> Result<usize> {
        let mut state = lock(&self.state);
        let bytes = state.idle_bytes;
        let idle = state.shrink_to(0);
        drop(state);
        give_back(idle, source)?;
        source.settle()?;
        Ok(bytes)
    }
}

/// Gives every one of `blocks` back, and then returns the first error.
fn give_back(blocks: Vec<u64>, source: &impl Source) -> Result<()> {
    let mut first = Ok(());
    for block in blocks {
        first = first.and(source.give_back(block));
    }
    first
}

impl State {
    /// Uses the smallest idle block that holds `size` bytes and is at most an eighth larger; of several, the one that was
    /// freed last.
    fn reuse(&mut self, size: usize) -> Option<u64> {
        let fitting = (size, 0)..=(size.saturating_add(size / 8), Age::MAX);
        let (&(size, _), _) = self.idle.range(fitting).next()?;
        let (&(_, age), _) = self.idle.range((size, 0)..=(size, Age::MAX)).next_back()?;
        let block = self.idle.remove(&(size, age))?;
        self.ages.remove(&age);
        self.idle_bytes -= size;
        self.used.insert(block, size);
        Some(block)
    }

    fn keep(&mut self, block: u64, size: usize) {
        let age = self.next_age;
        self.next_age += 1;
        self.idle.insert((size, age), block);
        self.ages.insert(age, size);
        self.idle_bytes += size;
    }

    /// Takes out the oldest idle blocks until no more than `bound` bytes are idle.
    fn shrink_to(&mut self, bound: usize) -> Vec<u64> {
        let mut surplus = Vec::new();
        while self.idle_bytes > bound
            && let Some((age, size)) = self.ages.pop_first()
        {
            self.idle_bytes -= size;
            surplus.extend(self.idle.remove(&(size, age)));
        }
        surplus
    }
}

/// Rounds up to a multiple of an eighth of the power of two below, within the bounds of what is of use: at most an eighth
/// more, from a few kilobytes on.
fn block_size(bytes: usize) -> usize {
    let eighth = 1_usize << bytes.max(1).ilog2().saturating_sub(3);
    let step = eighth.clamp(SMALLEST, COARSEST);
    bytes.max(1).checked_next_multiple_of(step).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use pinlane_driver::{Backend, DeviceId, Error};

    use super::*;

    /// A device of so many bytes, which hands out addresses that it has never handed out before.
    struct Fake {
        free: RefCell<usize>,
        taken: RefCell<Vec<(u64, usize)>>,
        next: RefCell<u64>,
    }

    impl Fake {
        fn new(bytes: usize) -> Self {
            Self {
                free: RefCell::new(bytes),
                taken: RefCell::default(),
                next: RefCell::new(1 << 20),
            }
        }

        fn blocks(&self) -> usize {
            self.taken.borrow().len()
        }
    }

    impl Source for Fake {
        fn take(&self, bytes: usize) -> Result<u64> {
            if bytes > *self.free.borrow() {
                let device = DeviceId {
                    backend: Backend::Cuda,
                    ordinal: 0,
                };
                return Err(Error::new(ErrorKind::OutOfMemory, device, "the fake is full"));
            }
            *self.free.borrow_mut() -= bytes;
            let block = *self.next.borrow();
            *self.next.borrow_mut() += bytes as u64;
            self.taken.borrow_mut().push((block, bytes));
            Ok(block)
        }

        fn give_back(&self, block: u64) -> Result<()> {
            let mut taken = self.taken.borrow_mut();
            let at = taken
                .iter()
                .position(|(at, _)| *at == block)
                .expect("a block of the fake");
            *self.free.borrow_mut() += taken.swap_remove(at).1;
            Ok(())
        }

        fn settle(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_freed_block_is_used_again() {
        let (fake, cache) = (Fake::new(1 << 30), BlockCache::new(1 << 30));
        let first = cache.allocate(1000, &fake).unwrap();
        assert!(cache.free(first, &fake).unwrap());
        assert_eq!(cache.idle_bytes(), 1024);
        assert_eq!(cache.allocate(1024, &fake).unwrap(), first);
        assert_eq!((cache.idle_bytes(), fake.blocks()), (0, 1));
    }

    #[test]
    fn a_block_that_is_in_use_is_never_handed_out_twice() {
        let (fake, cache) = (Fake::new(1 << 30), BlockCache::new(1 << 30));
        let mut blocks: Vec<u64> = (0..100).map(|_| cache.allocate(4096, &fake).unwrap()).collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 100);
    }

    #[test]
    fn a_much_larger_block_is_not_wasted_on_a_small_request() {
        let (fake, cache) = (Fake::new(1 << 30), BlockCache::new(1 << 30));
        let large = cache.allocate(64 << 20, &fake).unwrap();
        cache.free(large, &fake).unwrap();
        assert_ne!(cache.allocate(1 << 20, &fake).unwrap(), large);
        assert_eq!(cache.allocate(60 << 20, &fake).unwrap(), large);
    }

    #[test]
    fn idle_memory_stays_under_its_bound_and_the_oldest_goes_first() {
        let (fake, cache) = (Fake::new(1 << 30), BlockCache::new(2 << 20));
        let blocks: Vec<u64> = (0..3).map(|_| cache.allocate(1 << 20, &fake).unwrap()).collect();
        for block in &blocks {
            cache.free(*block, &fake).unwrap();
            assert!(cache.idle_bytes() <= 2 << 20);
        }
        let left: Vec<u64> = fake.taken.borrow().iter().map(|(block, _)| *block).collect();
        assert!(
            !left.contains(&blocks[0]) && left.contains(&blocks[2]),
            "{left:?}"
        );
    }

    #[test]
    fn a_block_larger_than_the_bound_goes_straight_back() {
        let (fake, cache) = (Fake::new(1 << 30), BlockCache::new(1 << 20));
        let large = cache.allocate(64 << 20, &fake).unwrap();
        assert!(cache.free(large, &fake).unwrap());
        assert_eq!((cache.idle_bytes(), fake.blocks()), (0, 0));
    }

    #[test]
    fn idle_blocks_make_room_when_the_device_is_full() {
        let (fake, cache) = (Fake::new(64 << 20), BlockCache::new(64 << 20));
        let first = cache.allocate(40 << 20, &fake).unwrap();
        cache.free(first, &fake).unwrap();
        cache.allocate(60 << 20, &fake).unwrap();
        let full = cache.allocate(60 << 20, &fake).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::OutOfMemory);
        cache.allocate(1 << 20, &fake).unwrap();
    }

    #[test]
    fn a_device_that_another_thread_has_just_made_room_on_is_tried_once_more() {
        /// Full at the first call, as while another thread gives memory back.
        struct Busy(Fake, RefCell<usize>);
        impl Source for Busy {
            fn take(&self, bytes: usize) -> Result<u64> {
                *self.1.borrow_mut() += 1;
                let bytes = if *self.1.borrow() == 1 { usize::MAX } else { bytes };
                self.0.take(bytes)
            }
            fn give_back(&self, block: u64) -> Result<()> {
                self.0.give_back(block)
            }
            fn settle(&self) -> Result<()> {
                self.0.settle()
            }
        }
        let (busy, cache) = (
            Busy(Fake::new(1 << 20), RefCell::new(0)),
            BlockCache::new(1 << 20),
        );
        cache.allocate(4096, &busy).unwrap();
        assert_eq!(*busy.1.borrow(), 2);
    }

    #[test]
    fn trimming_gives_back_what_is_idle_and_nothing_else() {
        let (fake, cache) = (Fake::new(1 << 30), BlockCache::new(1 << 30));
        let blocks: Vec<u64> = (0..3).map(|_| cache.allocate(1 << 20, &fake).unwrap()).collect();
        assert_eq!(cache.trim(&fake).unwrap(), 0);
        cache.free(blocks[0], &fake).unwrap();
        cache.free(blocks[2], &fake).unwrap();
        assert_eq!(cache.trim(&fake).unwrap(), 2 << 20);
        assert_eq!((cache.idle_bytes(), cache.trim(&fake).unwrap()), (0, 0));
        assert_eq!(*fake.taken.borrow(), [(blocks[1], 1 << 20)]);
        assert!(cache.free(blocks[1], &fake).unwrap());
    }

    #[test]
    fn a_block_that_is_not_ours_is_refused() {
        let (fake, cache) = (Fake::new(1 << 30), BlockCache::new(1 << 30));
        let block = cache.allocate(512, &fake).unwrap();
        assert!(!cache.free(block + 512, &fake).unwrap());
        assert!(cache.free(block, &fake).unwrap());
        assert!(!cache.free(block, &fake).unwrap(), "freed twice");
    }

    #[test]
    fn sizes_are_rounded_by_an_eighth_at_most() {
        assert_eq!(block_size(1), 512);
        assert_eq!(block_size(4096), 4096);
        assert_eq!(block_size((1 << 30) + 1), (1 << 30) + COARSEST);
        for bytes in (5000..20_000_000).step_by(77_777) {
            let size = block_size(bytes);
            assert!(
                size >= bytes && size - bytes <= bytes / 8 && size.is_multiple_of(SMALLEST),
                "{bytes}: {size}"
            );
        }
        assert!(block_size(usize::MAX) >= usize::MAX - COARSEST);
    }

    #[test]
    fn every_block_goes_back_even_when_one_can_not() {
        struct Stubborn(RefCell<usize>);
        impl Source for Stubborn {
            fn take(&self, _: usize) -> Result<u64> {
                unreachable!("nothing is taken")
            }
            fn give_back(&self, block: u64) -> Result<()> {
                *self.0.borrow_mut() += 1;
                let device = DeviceId {
                    backend: Backend::Cuda,
                    ordinal: 0,
                };
                Err(Error::new(
                    ErrorKind::DeviceLost,
                    device,
                    format!("block {block}"),
                ))
            }
            fn settle(&self) -> Result<()> {
                unreachable!("nothing is trimmed")
            }
        }
        let stubborn = Stubborn(RefCell::new(0));
        let error = give_back(vec![1, 2, 3], &stubborn).unwrap_err();
        assert!(error.to_string().contains("block 1"), "{error}");
        assert_eq!(*stubborn.0.borrow(), 3);
    }
}
