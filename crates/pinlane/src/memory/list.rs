//! Lists of what a transfer notes about its tensors, in memory that is kept for those of the next.
//!
//! For ten thousand tensors that is a megabyte or two. The system's allocator may give as much back to the kernel
//! whenever a transfer is over; then each transfer touches fresh pages, which takes longer than all the rest of its
//! planning. So blocks of lists are kept and taken again. They are powers of two, of which a list leaves some empty.
//! Short lists are the system allocator's.

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
use pinlane_driver::sync::{OnceLock, ProcessMutex, try_lock_table};

/// Shorter blocks are the system allocator's, which keeps such by itself.
const SHORTEST: usize = 4 << 10;
/// Longer ones come from the kernel and go back there, whoever allocates them.
const LONGEST: usize = 32 << 20;
/// The most that is kept for the whole process, in bytes. The lists of a hundred thousand tensors are 30 MB.
const MOST_KEPT: usize = 64 << 20;
/// Blocks begin at a cache line, so that what is as long as one lies in one.
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
    let gone = try_lock_table(kept()).map(|mut kept| mem::take(&mut *kept));
    gone.map_or(0, |gone| gone.bytes)
}

/// The allocator of lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListMemory;

/// The block that is allocated for `layout`, where it is one to keep: the same for every size from the one that is asked for
/// up to the block's own.
fn block_for(layout: Layout) -> Option<Layout> {
    let is_kept = (SHORTEST..=LONGEST).contains(&layout.size()) && layout.align() <= ALIGNMENT;
    is_kept.then(|| block_of(layout.size().next_power_of_two()))
}

/// A block of so many bytes, a power of two.
fn block_of(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, ALIGNMENT).expect("no more than LONGEST")
}

// Whoever gives a block back may name any size from what was asked for up to the block's: `block_for` has the same for all.
//
// SAFETY: a block is as long as its layout says, or longer, and aligned; it stays where it is until it is given back, and is
// nobody else's meanwhile: it was allocated for its owner or taken out of those that are kept. Copies of the allocator are one.
unsafe impl Allocator for ListMemory {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        match block_for(layout) {
            Some(block) => allocate_block(kept(), block),
            None => Global.allocate(layout),
        }
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        match block_for(layout) {
            // SAFETY: the caller's promise; it was allocated with this layout, for this list or for one before.
            Some(block) => unsafe { give_back(kept(), ptr, block) },
            // SAFETY: the caller's promise; `allocate` has left it to the same.
            None => unsafe { Global.deallocate(ptr, layout) },
        }
    }
}

/// One that is kept, or a new one. Nobody waits for the lock: in a forked child its holder may be gone for ever.
fn allocate_block(kept: &ProcessMutex<Blocks>, block: Layout) -> Result<NonNull<[u8]>, AllocError> {
    let known = try_lock_table(kept).and_then(|mut kept| kept.take(block.size()));
    // SAFETY: the size is not zero.
    let ptr = known.or_else(|| NonNull::new(unsafe { alloc::alloc(block) }));
    ptr.map(|ptr| NonNull::slice_from_raw_parts(ptr, block.size()))
        .ok_or(AllocError)
}

/// Keeps a block, or gives it back to the system's allocator.
///
/// # Safety
///
/// It was allocated with this layout, and is nobody's any more.
unsafe fn give_back(kept: &ProcessMutex<Blocks>, ptr: NonNull<u8>, block: Layout) {
    match try_lock_table(kept) {
        Some(mut kept) => {
            let beyond = kept.keep(ptr, block.size());
            // Freeing takes its time.
            drop(kept);
            drop(beyond);
        }
        // SAFETY: the caller's promise.
        None => unsafe { alloc::dealloc(ptr.as_ptr(), block) },
    }
}

/// Blocks that nobody uses.
#[derive(Debug, Default)]
struct Blocks {
    /// For each power of two from [`SHORTEST`] on.
    of_class: [std::vec::Vec<NonNull<u8>>; CLASSES],
    bytes: usize,
}

/// How many powers of two there are.
const CLASSES: usize = class_of(LONGEST) + 1;

/// The place of a power of two among them.
const fn class_of(bytes: usize) -> usize {
    (bytes.trailing_zeros() - SHORTEST.trailing_zeros()) as usize
}

// SAFETY: a block is memory that belongs to no thread.
unsafe impl Send for Blocks {}

fn kept() -> &'static ProcessMutex<Blocks> {
    static KEPT: OnceLock<ProcessMutex<Blocks>> = OnceLock::new();
    KEPT.get_or_init(ProcessMutex::default)
}

impl Blocks {
    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let block = self.of_class[class_of(bytes)].pop()?;
        self.bytes -= bytes;
        Some(block)
    }

    fn put(&mut self, block: NonNull<u8>, bytes: usize) {
        self.of_class[class_of(bytes)].push(block);
        self.bytes += bytes;
    }

    /// Keeps a block; gives those that there is no room for any more, the longest first.
    fn keep(&mut self, block: NonNull<u8>, bytes: usize) -> Self {
        let mut beyond = Self::default();
        let mut longest = LONGEST;
        while self.bytes + bytes > MOST_KEPT {
            match self.take(longest) {
                Some(block) => beyond.put(block, longest),
                None => longest /= 2,
            }
        }
        self.put(block, bytes);
        beyond
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for (class, blocks) in self.of_class.iter_mut().enumerate() {
            for block in blocks.drain(..) {
                // SAFETY: allocated with this layout by `allocate`, and nobody's since.
                unsafe { alloc::dealloc(block.as_ptr(), block_of(SHORTEST << class)) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::sync::{lock_table, thread};

    use super::*;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 8).unwrap()
    }

    /// A new block of so many bytes.
    fn block(bytes: usize) -> NonNull<u8> {
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { alloc::alloc(block_of(bytes)) }).unwrap()
    }

    #[test]
    fn sizes_up_to_a_block_have_the_same_block_and_others_are_the_systems() {
        for (bytes, expected) in [
            (0, None),
            (SHORTEST - 1, None),
            (SHORTEST, Some(SHORTEST)),
            (SHORTEST + 1, Some(2 * SHORTEST)),
            (2 * SHORTEST, Some(2 * SHORTEST)),
            (LONGEST / 2 + 1, Some(LONGEST)),
            (LONGEST, Some(LONGEST)),
            (LONGEST + 1, None),
        ] {
            let found = block_for(layout(bytes)).map(|block| block.size());
            assert_eq!(found, expected, "{bytes} bytes");
        }
        let wide = Layout::from_size_align(SHORTEST, 2 * ALIGNMENT).unwrap();
        assert_eq!(block_for(wide), None);
    }

    #[test]
    fn a_block_is_taken_again_for_lists_of_its_size_only() {
        let mut blocks = Blocks::default();
        let kept = block(8 << 10);
        assert_eq!(blocks.keep(kept, 8 << 10).bytes, 0);
        assert_eq!((blocks.bytes, blocks.take(16 << 10)), (8 << 10, None));
        assert_eq!((blocks.take(8 << 10), blocks.bytes), (Some(kept), 0));
        assert_eq!(blocks.take(8 << 10), None);
        blocks.put(kept, 8 << 10);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for_and_the_longest_goes_first() {
        let mut blocks = Blocks::default();
        let mut bytes = 0;
        while bytes < MOST_KEPT {
            assert_eq!(blocks.keep(block(LONGEST), LONGEST).bytes, 0);
            bytes += LONGEST;
        }
        assert_eq!(blocks.bytes, MOST_KEPT);
        assert_eq!(blocks.keep(block(SHORTEST), SHORTEST).bytes, LONGEST);
        assert_eq!(blocks.bytes, MOST_KEPT - LONGEST + SHORTEST);
        let short = blocks.take(SHORTEST).expect("the short one is kept");
        blocks.put(short, SHORTEST);
    }

    #[test]
    fn what_is_given_back_is_allocated_again_and_nothing_waits_for_the_lock() {
        let kept = ProcessMutex::new(Blocks::default());
        let block = block_for(layout(3 * SHORTEST)).unwrap();
        let first = allocate_block(&kept, block).unwrap();
        assert_eq!(first.len(), 4 * SHORTEST);
        // SAFETY: allocated above, each time, and not used.
        let give_back = |ptr: NonNull<[u8]>| unsafe { give_back(&kept, ptr.cast(), block) };
        give_back(first);
        assert_eq!(lock_table(&kept).bytes, 4 * SHORTEST);
        let again = allocate_block(&kept, block).unwrap();
        assert_eq!(again.cast::<u8>(), first.cast());
        assert_eq!(lock_table(&kept).bytes, 0);
        let held = lock_table(&kept);
        give_back(allocate_block(&kept, block).unwrap());
        assert_eq!(held.bytes, 0);
        drop(held);
        give_back(again);
    }

    #[test]
    fn lists_hold_what_is_pushed_whatever_their_length() {
        for elements in [0, 1, SHORTEST / 8, SHORTEST / 8 + 1, 70_000] {
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
        let threads = [0, 1, 2, 3].map(|thread| {
            thread::spawn(move || {
                for round in 0..200 {
                    let mark = |element: usize| element ^ (thread << 20) ^ (round << 24);
                    let list = collect((0..2000).map(mark));
                    thread::yield_now();
                    assert!(list.iter().copied().eq((0..2000).map(mark)));
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
