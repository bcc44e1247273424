//! Sharing work on many bytes among threads of the host, where no device and so no lane takes part.

use std::{mem, ops::Range};

use pinlane_driver::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
    available_parallelism, lock, spawn_scoped, thread,
};

use crate::error::Failure;

/// The most that a thread does before it looks for more, in bytes. Items of one tensor begin at multiples of it.
const PART: usize = 4 << 20;
/// More threads than this wait for memory, or for the disk, rather than for a processor.
const MOST_THREADS: usize = 12;

/// A range of the bytes of one tensor.
#[derive(Debug)]
pub(crate) struct Item {
    /// The tensor's place in the list.
    pub(crate) index: usize,
    pub(crate) range: Range<usize>,
}

/// Has the bytes of tensors of these sizes worked on, by as many threads as that is worth. Each has a state of its own, and is
/// given some items at a time. Gives the first failure, after which nothing more is begun.
pub(crate) fn share<S>(
    sizes: impl Iterator<Item = usize>,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &[Item]) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let (items, parts) = cut(sizes);
    if parts.is_empty() {
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let run = || {
        let mut state = state();
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = work(&mut state, &items[part.clone()]) {
                lock(&failed).get_or_insert(failure);
                next.store(parts.len(), Ordering::Relaxed);
            }
        }
    };
    let threads = threads_for(parts.len());
    thread::scope(|scope| {
        for _ in 1..threads {
            // With fewer threads it takes longer.
            if let Err(error) = spawn_scoped(scope, run) {
                tracing::debug!(%error, "going on with fewer threads");
                break;
            }
        }
        run();
    });
    let failed = mem::take(&mut *lock(&failed));
    failed.map_or(Ok(()), Err)
}

/// How many threads are worth so many parts. Asking for the number of processors reads files of the kernel's and takes 15 to
/// 20 microseconds, which little work has no use for.
fn threads_for(parts: usize) -> usize {
    if parts <= 1 {
        return 1;
    }
    let cores = available_parallelism().map_or(1, usize::from);
    cores.min(MOST_THREADS).min(parts)
}

/// Cuts tensors into items, and puts as many in each part as are worth a thread's turn.
fn cut(sizes: impl Iterator<Item = usize>) -> (Vec<Item>, Vec<Range<usize>>) {
    let mut items: Vec<Item> = Vec::with_capacity(sizes.size_hint().0);
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut room = 0;
    for (index, size) in sizes.enumerate() {
        let mut done = 0;
        while done < size {
            let bytes = (size - done).min(PART);
            // What is not longer than a part is not cut.
            if bytes > room {
                parts.push(items.len()..items.len());
                room = PART;
            }
            items.push(Item {
                index,
                range: done..done + bytes,
            });
            if let Some(part) = parts.last_mut() {
                part.end = items.len();
            }
            room -= bytes;
            done += bytes;
        }
    }
    (items, parts)
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::Error;

    proptest! {
        #[test]
        fn every_byte_is_in_one_item_and_every_item_in_one_part(
            sizes in proptest::collection::vec(0..3 * PART, 0..20),
        ) {
            let (items, parts) = cut(sizes.iter().copied());
            let mut done = vec![0; sizes.len()];
            for item in &items {
                prop_assert_eq!(item.range.start, done[item.index]);
                done[item.index] = item.range.end;
            }
            prop_assert_eq!(done, sizes);
            let covered: Vec<_> = parts.iter().cloned().flatten().collect();
            prop_assert!(covered.into_iter().eq(0..items.len()));
            let bytes = |part: &Range<usize>| items[part.clone()].iter().map(|item| item.range.len()).sum::<usize>();
            prop_assert!(parts.iter().all(|part| (1..=PART).contains(&bytes(part))));
        }
    }

    #[test]
    fn after_a_failure_nothing_more_is_begun() {
        let begun = AtomicUsize::new(0);
        let failed = share(
            [1000 * PART].into_iter(),
            || (),
            |(), _| {
                begun.fetch_add(1, Ordering::Relaxed);
                Err(Failure::of(0, Error::HostMemory { bytes: 1 }))
            },
        );
        assert!(failed.is_err());
        assert!(begun.into_inner() <= MOST_THREADS);
    }
}
