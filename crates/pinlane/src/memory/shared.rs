//! A value that several hold, as by an [`Arc`](pinlane_driver::sync::Arc); many of them may lie in one block of memory.
//!
//! The results of a transfer are made together, a thousand at a time. Were each an allocation of its own, a fragmented heap
//! would give them out of its gaps, in memory that no cache holds, and the transfer would take half as long again. So a
//! [`Batch`] takes one block for all of them.
//!
//! Each value has a count of its own, and is dropped when nobody holds it any more, whatever becomes of its neighbours. The
//! block counts the values that are alive in it, or may still be put there, and goes with the last: until then it is a cache
//! line for each, and what [`list`] rounds up. There are no weak references, and so who sees a count of one is alone with the value.

use std::{cell::UnsafeCell, fmt, ops::Deref, process, ptr::NonNull};

use pinlane_driver::sync::atomic::{AtomicUsize, Ordering, fence};

use super::list::{self, Room};

/// More holders than there can be, unless holders are forgotten without end: before the count overflows, the process ends.
const MOST: usize = isize::MAX as usize;

/// A share of a value.
pub(crate) struct Shared<T>(NonNull<Node<T>>);

/// A value, and how many hold it.
struct Node<T> {
    holders: AtomicUsize,
    value: T,
    /// The block that the node lies in; a node without one is a `Box`.
    block: Option<NonNull<Block<T>>>,
}

impl<T> Node<T> {
    /// With its first holder.
    fn new(value: T, block: Option<NonNull<Block<T>>>) -> Self {
        Self {
            holders: AtomicUsize::new(1),
            value,
            block,
        }
    }
}

/// Room for nodes.
struct Block<T> {
    /// How many claims there are to nodes: one for each value that is alive, and one for each that is still to come.
    claims: AtomicUsize,
    nodes: Room<UnsafeCell<Node<T>>>,
}

// SAFETY: a `Shared` gives `&T` to whichever thread has it, and the last of them drops the `T`.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above; who has a `&Shared` can clone it.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// A value by itself.
    pub(crate) fn new(value: T) -> Self {
        Self(NonNull::from(Box::leak(Box::new(Node::new(value, None)))))
    }

    /// The value to change, for its only holder. No method, so that none of the value's is hidden.
    pub(crate) fn get_mut(this: &mut Self) -> Option<&mut T> {
        // What others did with the value before they let go of it has happened before.
        if this.node().holders.load(Ordering::Acquire) != 1 {
            return None;
        }
        // SAFETY: alive while held; nobody else holds it, nor can while this, which would have to be cloned, is borrowed.
        Some(unsafe { &mut (*this.0.as_ptr()).value })
    }

    /// Where the value lies.
    pub(crate) fn address(this: &Self) -> *const T {
        // SAFETY: a node is alive while it is held; nothing of it is read.
        unsafe { &raw const (*this.0.as_ptr()).value }
    }

    fn node(&self) -> &Node<T> {
        // SAFETY: a node is whole from before it is first held until it is held no more, and its only part that changes while
        // it is shared is atomic.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // Nobody learns anything from it: who clones holds the value already.
        if self.node().holders.fetch_add(1, Ordering::Relaxed) > MOST {
            process::abort();
        }
        Self(self.0)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let holders = &self.node().holders;
        // Most have one holder ever, and to look costs less than to count. Either way, what others did with the value before
        // they let go of it has happened before it is dropped.
        if holders.load(Ordering::Acquire) != 1 {
            if holders.fetch_sub(1, Ordering::Release) != 1 {
                return;
            }
            fence(Ordering::Acquire);
        }
        match self.node().block {
            // SAFETY: made by `new` of a `Box`, and nobody else holds it.
            None => drop(unsafe { Box::from_raw(self.0.as_ptr()) }),
            Some(block) => {
                // Let go when the value is gone, even if that panics.
                let _claim = Claims { block, nodes: 1 };
                // SAFETY: written by `share`, and nobody else holds it; its memory stays while the claim does.
                unsafe { self.0.drop_in_place() }
            }
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.node().value
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Makes values that lie in one block of memory. The block goes with the last of them, or with this.
pub(crate) struct Batch<T> {
    /// To the nodes from `next` on; `None` where a block would save nothing.
    rest: Option<Claims<T>>,
    next: usize,
}

impl<T> Batch<T> {
    /// Room for so many values.
    pub(crate) fn with_capacity(values: usize) -> Self {
        let rest = (values > 1).then(|| Claims::new(values));
        Self { rest, next: 0 }
    }

    /// A value in the block; by itself where that is full.
    #[inline]
    pub(crate) fn share(&mut self, value: T) -> Shared<T> {
        let Some(rest) = self.rest.as_mut().filter(|rest| rest.nodes > 0) else {
            return Shared::new(value);
        };
        // SAFETY: a block is there while there is a claim to it.
        let place = unsafe { rest.block.as_ref() }.nodes[self.next].as_ptr();
        let node = UnsafeCell::raw_get(place);
        // SAFETY: inside the block, and nobody else's: it is none of those before `next`, which are others'.
        unsafe { node.write(Node::new(value, Some(rest.block))) };
        // From here on the claim is the node's.
        rest.nodes -= 1;
        self.next += 1;
        // SAFETY: it is in an allocation.
        Shared(unsafe { NonNull::new_unchecked(node) })
    }
}

/// Claims to nodes of a block, which is there while there are any.
struct Claims<T> {
    block: NonNull<Block<T>>,
    nodes: usize,
}

impl<T> Claims<T> {
    /// All of a new block.
    fn new(nodes: usize) -> Self {
        let block = Block {
            claims: AtomicUsize::new(nodes),
            nodes: list::room(nodes),
        };
        let block = NonNull::from(Box::leak(Box::new(block)));
        Self { block, nodes }
    }
}

impl<T> Drop for Claims<T> {
    fn drop(&mut self) {
        // Who has given all of them away may not look: the block may be gone.
        if self.nodes == 0 {
            return;
        }
        // SAFETY: a block is there while there is a claim to it.
        let claims = unsafe { &self.block.as_ref().claims };
        if claims.fetch_sub(self.nodes, Ordering::Release) != self.nodes {
            return;
        }
        // What was done in all nodes has happened before they go.
        fence(Ordering::Acquire);
        // SAFETY: made of a `Box` by `new`, and these were the last claims: no value is alive in it, and none will be.
        drop(unsafe { Box::from_raw(self.block.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use pinlane_driver::sync::{Arc, Mutex, lock, thread};

    use super::*;

    /// Tells who is dropped, in order.
    type Dropped = Arc<Mutex<Vec<usize>>>;

    #[derive(Debug)]
    struct Told {
        name: usize,
        dropped: Dropped,
        panics: bool,
    }

    impl Drop for Told {
        fn drop(&mut self) {
            lock(&self.dropped).push(self.name);
            assert!(!self.panics, "told to");
        }
    }

    fn told(name: usize, dropped: &Dropped) -> Told {
        Told {
            name,
            dropped: Arc::clone(dropped),
            panics: false,
        }
    }

    fn names(dropped: &Dropped) -> Vec<usize> {
        lock(dropped).clone()
    }

    fn batch_of(values: usize, dropped: &Dropped) -> Vec<Shared<Told>> {
        let mut batch = Batch::with_capacity(values);
        (0..values).map(|name| batch.share(told(name, dropped))).collect()
    }

    /// The claims to the block that a value lies in.
    fn claims<T>(shared: &Shared<T>) -> Option<usize> {
        let block = shared.node().block?;
        // SAFETY: a block is there while a value in it is alive.
        Some(unsafe { block.as_ref() }.claims.load(Ordering::Relaxed))
    }

    #[test]
    fn a_value_by_itself_is_dropped_with_its_last_holder() {
        let dropped = Dropped::default();
        let first = Shared::new(told(7, &dropped));
        let second = first.clone();
        assert_eq!((first.name, second.name, claims(&first)), (7, 7, None));
        drop(first);
        assert!(names(&dropped).is_empty());
        drop(second);
        assert_eq!(names(&dropped), [7]);
    }

    #[test]
    fn each_value_of_a_block_is_dropped_with_its_own_last_holder_and_the_block_with_the_last_value() {
        let dropped = Dropped::default();
        let mut held = batch_of(4, &dropped);
        assert_eq!(claims(&held[0]), Some(4));
        let second = held[1].clone();
        drop(held.remove(2));
        assert_eq!((names(&dropped), claims(&second)), (vec![2], Some(3)));
        drop(held);
        assert_eq!((names(&dropped), claims(&second)), (vec![2, 0, 3], Some(1)));
        assert_eq!(second.name, 1);
        drop(second);
        assert_eq!(names(&dropped), [2, 0, 3, 1]);
    }

    #[test]
    fn a_block_is_there_until_its_batch_is_gone_too() {
        let dropped = Dropped::default();
        let mut batch = Batch::with_capacity(3);
        drop(batch.share(told(0, &dropped)));
        assert_eq!(names(&dropped), [0]);
        let second = batch.share(told(1, &dropped));
        assert_eq!(claims(&second), Some(2));
        drop(batch);
        assert_eq!((second.name, claims(&second)), (1, Some(1)));
    }

    #[test]
    fn a_batch_dropped_before_it_is_full_or_used_leaves_nothing() {
        let dropped = Dropped::default();
        drop(Batch::<Told>::with_capacity(3));
        let mut batch = Batch::with_capacity(3);
        let first = batch.share(told(0, &dropped));
        drop((batch, first));
        assert_eq!(names(&dropped), [0]);
    }

    #[test]
    fn a_panic_while_a_batch_is_filled_drops_what_is_in_it_once() {
        let dropped = Dropped::default();
        let filled = catch_unwind(AssertUnwindSafe(|| {
            let mut batch = Batch::with_capacity(4);
            let make = |name| {
                assert!(name < 2, "no more");
                batch.share(told(name, &dropped))
            };
            (0..4).map(make).collect::<Vec<_>>()
        }));
        assert!(filled.is_err());
        assert_eq!(names(&dropped), [0, 1]);
    }

    #[test]
    fn a_value_that_panics_when_dropped_leaves_the_block_to_the_others() {
        let dropped = Dropped::default();
        let mut held = batch_of(2, &dropped);
        Shared::get_mut(&mut held[0]).unwrap().panics = true;
        let second = held.pop().unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(held))).is_err());
        assert_eq!(
            (names(&dropped), second.name, claims(&second)),
            (vec![0], 1, Some(1))
        );
    }

    #[test]
    fn a_full_batch_and_one_for_a_single_value_give_values_by_themselves() {
        let dropped = Dropped::default();
        let mut batch = Batch::with_capacity(2);
        let held: Vec<_> = (0..3).map(|name| batch.share(told(name, &dropped))).collect();
        let claimed: Vec<_> = held.iter().map(claims).collect();
        assert_eq!(claimed, [Some(2), Some(2), None]);
        assert_eq!(claims(&batch_of(1, &dropped)[0]), None);
        assert_eq!(Batch::with_capacity(0).share(3).deref(), &3);
    }

    #[test]
    fn only_a_value_with_one_holder_can_be_changed_whatever_its_neighbours_have() {
        let mut batch = Batch::with_capacity(2);
        let (mut first, mut second) = (batch.share(1), batch.share(2));
        let other = first.clone();
        assert_eq!(Shared::get_mut(&mut first), None);
        *Shared::get_mut(&mut second).unwrap() += 10;
        drop(other);
        *Shared::get_mut(&mut first).unwrap() += 20;
        assert_eq!((*first, *second), (21, 12));
    }

    #[test]
    fn values_cloned_and_dropped_by_many_threads_are_dropped_once() {
        const VALUES: usize = 64;
        let dropped = Dropped::default();
        let held = batch_of(VALUES, &dropped);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let held = held.clone();
                thread::spawn(move || {
                    for shared in held.iter().cycle().take(20 * VALUES) {
                        assert!(shared.clone().name < VALUES);
                    }
                })
            })
            .collect();
        drop(held);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut names = names(&dropped);
        names.sort_unstable();
        assert!(names.into_iter().eq(0..VALUES));
    }

    #[test]
    fn who_is_alone_again_sees_what_other_threads_have_done() {
        let mut batch = Batch::with_capacity(2);
        let mut shared = batch.share(Mutex::new(0));
        let other = shared.clone();
        let thread = thread::spawn(move || *lock(&other) += 1);
        let value = loop {
            match Shared::get_mut(&mut shared) {
                Some(value) => break *pinlane_driver::sync::get_mut(value),
                None => thread::yield_now(),
            }
        };
        assert_eq!(value, 1);
        thread.join().unwrap();
    }
}
