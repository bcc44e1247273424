//! Lists that live as long as a transfer, in memory that is kept for those of the next.
//!
//! What a transfer notes about ten thousand tensors is a megabyte or two. The system's allocator may give as much back to the
//! kernel whenever a transfer is over, and then every transfer touches fresh pages: that takes longer than all the rest of its
//! planning. So blocks of lists are kept, by powers of two, and taken again. Short lists are the system allocator's.

use std::{
    alloc::{self, Layout},
    mem::{self, MaybeUninit},
    ptr::NonNull,
};

use allocator_api2::{
    alloc::{AllocError, Allocator, Global},
    boxed::Box,
    vec::Vec,
};
use pinlane_driver::{
    fork,
    sync::{Mutex, OnceLock, lock},
};

/// Shorter blocks are the system allocator's, which keeps such by itself.
const SHORTEST: usize = 4 << 10;
/// Longer ones come from the kernel and go back there, whoever allocates them.
const LONGEST: usize = 32 << 20;
/// The most that is kept for the whole process, in bytes: the lists of a transfer of a hundred thousand tensors.
const MOST: usize = 64 << 20;
/// Blocks begin at a cache line.
const ALIGNMENT: usize = 64;

/// A list of a transfer.
pub(crate) type List<T> = Vec<T, ListMemory>;

/// Room for elements, which does not grow.
pub(crate) type Room<T> = Box<[MaybeUninit<T>], ListMemory>;

/// A list without elements.
pub(crate) fn empty<T>() -> List<T> {
    Vec::new_in(ListMemory)
}

/// What is in a list, which is empty then.
pub(crate) fn take<T>(list: &mut List<T>) -> List<T> {
    mem::replace(list, empty())
}

/// A list with room for so many elements.
pub(crate) fn with_capacity<T>(capacity: usize) -> List<T> {
    Vec::with_capacity_in(capacity, ListMemory)
}

/// A list of so many elements as are given.
pub(crate) fn collect<T>(elements: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>) -> List<T> {
    let elements = elements.into_iter();
    let mut list = with_capacity(elements.len());
    list.extend(elements);
    list
}

/// Room for so many elements.
pub(crate) fn room<T>(elements: usize) -> Room<T> {
    Box::new_uninit_slice_in(elements, ListMemory)
}

/// Gives all that is kept back to the system's allocator; returns the bytes.
pub(crate) fn trim() -> usize {
    let blocks = mem::take(&mut *lock(blocks()));
    let bytes = blocks.bytes;
    drop(blocks);
    bytes
}

/// The allocator of lists.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ListMemory;

/// What is allocated for blocks of `layout`, where they may be kept.
fn kept_as(layout: Layout) -> Option<Layout> {
    let keeps = (SHORTEST..=LONGEST).contains(&layout.size()) && layout.align() <= ALIGNMENT;
    keeps.then(|| block_of(layout.size().next_power_of_two()))
}

/// A block of so many bytes, a power of two.
fn block_of(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, ALIGNMENT).expect("no more than LONGEST")
}

// SAFETY: a block is as long as its layout says, or longer, and aligned; it stays where it is until it is given back, and is
// nobody else's meanwhile: it is either allocated for its owner or taken out of those that are kept. Copies of the allocator are
// one: it has no state of its own.
unsafe impl Allocator for ListMemory {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let Some(block) = kept_as(layout) else {
            return Global.allocate(layout);
        };
        // A fork may have found the lock held, by a thread that the child does not have.
        let known = if fork::is_child() {
            None
        } else {
            lock(blocks()).take(block.size())
        };
        // SAFETY: the size is not zero.
        let found = known.or_else(|| NonNull::new(unsafe { alloc::alloc(block) }));
        found
            .map(|found| NonNull::slice_from_raw_parts(found, block.size()))
            .ok_or(AllocError)
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        let Some(block) = kept_as(layout) else {
            // SAFETY: the caller's promise; `allocate` has left it to the same.
            return unsafe { Global.deallocate(ptr, layout) };
        };
        if !fork::is_child() && lock(blocks()).keep(ptr, block.size()) {
            return;
        }
        // SAFETY: the caller's promise; `allocate` has asked for such a block, now or when it was somebody else's.
        unsafe { alloc::dealloc(ptr.as_ptr(), block) };
    }
}

/// Blocks that nobody uses.
#[derive(Debug, Default)]
struct Blocks {
    /// For each power of two from [`SHORTEST`] on.
    by_size: [std::vec::Vec<NonNull<u8>>; SIZES],
    bytes: usize,
}

/// How many sizes of blocks there are.
const SIZES: usize = size_of_block(LONGEST) + 1;

/// The place of a power of two among the sizes of blocks.
const fn size_of_block(bytes: usize) -> usize {
    (bytes.trailing_zeros() - SHORTEST.trailing_zeros()) as usize
}

// SAFETY: a block is memory that belongs to no thread.
unsafe impl Send for Blocks {}

fn blocks() -> &'static Mutex<Blocks> {
    static BLOCKS: OnceLock<Mutex<Blocks>> = OnceLock::new();
    BLOCKS.get_or_init(Mutex::default)
}

impl Blocks {
    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let block = self.by_size[size_of_block(bytes)].pop()?;
        self.bytes -= bytes;
        Some(block)
    }

    /// Keeps a block, if there is room; says whether.
    fn keep(&mut self, block: NonNull<u8>, bytes: usize) -> bool {
        let fits = self.bytes + bytes <= MOST;
        if fits {
            self.by_size[size_of_block(bytes)].push(block);
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for (size, blocks) in self.by_size.iter_mut().enumerate() {
            for block in blocks.drain(..) {
                // SAFETY: allocated with this layout by `allocate`, and nobody's since.
                unsafe { alloc::dealloc(block.as_ptr(), block_of(SHORTEST << size)) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allocates a block of so many bytes, and says where it lies.
    fn allocated(blocks: &mut Blocks, bytes: usize) -> NonNull<u8> {
        blocks.take(bytes).unwrap_or_else(|| {
            // SAFETY: the size is not zero.
            NonNull::new(unsafe { alloc::alloc(block_of(bytes)) }).unwrap()
        })
    }

    #[test]
    fn a_block_is_taken_again_for_lists_of_its_size_only() {
        let mut blocks = Blocks::default();
        let block = allocated(&mut blocks, 8 << 10);
        assert!(blocks.keep(block, 8 << 10));
        assert_eq!((blocks.bytes, blocks.take(16 << 10)), (8 << 10, None));
        assert_eq!((blocks.take(8 << 10), blocks.bytes), (Some(block), 0));
        assert_eq!(blocks.take(8 << 10), None);
        assert!(blocks.keep(block, 8 << 10));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut blocks = Blocks::default();
        let mut kept = 0;
        loop {
            let block = allocated(&mut Blocks::default(), LONGEST);
            if !blocks.keep(block, LONGEST) {
                // SAFETY: allocated above, and not kept.
                unsafe { alloc::dealloc(block.as_ptr(), block_of(LONGEST)) };
                break;
            }
            kept += LONGEST;
        }
        assert_eq!((kept, blocks.bytes), (MOST, MOST));
    }

    #[test]
    fn lists_hold_what_is_pushed_whatever_their_length() {
        for elements in [0, 1, 500, 600, 70_000, 9_000_000_usize] {
            let mut grown = empty();
            (0..elements).for_each(|element| grown.push(element));
            assert!(grown.iter().copied().eq(0..elements));
            assert_eq!(grown, collect(0..elements));
            let taken = take(&mut grown);
            assert_eq!((taken.len(), grown.len()), (elements, 0));
        }
    }

    #[test]
    fn elements_without_size_and_with_wide_alignment_have_their_place() {
        #[derive(Clone, Debug, PartialEq)]
        #[repr(align(4096))]
        struct Page(u8);
        let pages = collect([0, 1, 2, 3, 4].map(Page));
        assert!(pages.iter().all(|page| std::ptr::from_ref(page).is_aligned()));
        assert_eq!(pages[3], Page(3));
        assert_eq!(collect((0..10_000).map(|_| ())).len(), 10_000);
    }

    #[test]
    fn many_threads_never_share_a_block() {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..200 {
                        let mark = |element: usize| element ^ (thread << 20) ^ (round << 24);
                        let list = collect((0..2000).map(mark));
                        std::thread::yield_now();
                        assert!(list.iter().copied().eq((0..2000).map(mark)));
                    }
                });
            }
        });
    }
}
