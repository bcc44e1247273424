//! Filling and comparing gigabytes with every core, so that checking costs little beside measuring.

use std::{num::NonZero, thread};

/// Below this many bytes, starting threads costs more than they save.
const ALONE: usize = 4 << 20;

/// Fills `bytes` with numbers that follow from `seed` and from where they are, with hardly any two alike.
pub(crate) fn fill(bytes: &mut [u8], seed: u64) {
    const WORD: usize = size_of::<u64>();
    let share = share(bytes.len());
    thread::scope(|scope| {
        for (number, part) in bytes.chunks_mut(share).enumerate() {
            let fill = move || {
                let first = (number * share / WORD) as u64;
                for (index, word) in (first..).zip(part.chunks_mut(WORD)) {
                    word.copy_from_slice(&mix(seed.wrapping_add(index)).to_le_bytes()[..word.len()]);
                }
            };
            scope.spawn(fill);
        }
    });
}

/// The finaliser of SplitMix64: a bijection, so that neighbours differ.
fn mix(index: u64) -> u64 {
    let mut word = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Runs `work` on every item with as many threads as `bytes` bytes deserve, and gives the lowest index for which it
/// says `true`.
pub(crate) fn first<T: Send>(items: Vec<T>, bytes: usize, work: impl Fn(T) -> bool + Sync) -> Option<usize> {
    if bytes <= ALONE {
        return items.into_iter().position(work);
    }
    let share = items.len().div_ceil(threads()).max(1);
    let mut items = items.into_iter();
    let work = &work;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for start in (0..items.len()).step_by(share) {
            let part: Vec<T> = items.by_ref().take(share).collect();
            threads.push(scope.spawn(move || part.into_iter().position(work).map(|found| start + found)));
        }
        let found = threads.into_iter().filter_map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        found.min()
    })
}

/// The bytes of each thread, a multiple of eight.
fn share(bytes: usize) -> usize {
    let threads = if bytes <= ALONE { 1 } else { threads() };
    bytes.div_ceil(threads).next_multiple_of(64).max(64)
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_is_the_same_whoever_does_it_and_differs_by_place_and_seed() {
        let (mut large, mut small) = (vec![0; ALONE + 1001], vec![0; 1001]);
        fill(&mut large, 7);
        fill(&mut small, 7);
        assert_eq!(large[..1000], small[..1000]);
        assert_ne!(large[..64], large[64..128]);
        let mut other = vec![0; 64];
        fill(&mut other, 8);
        assert_ne!(large[..64], other);
    }

    #[test]
    fn the_first_of_those_that_are_found_is_given() {
        let items: Vec<usize> = (0..100).collect();
        for bytes in [0, ALONE + 1] {
            assert_eq!(first(items.clone(), bytes, |item| item % 40 == 39), Some(39));
            assert_eq!(first(items.clone(), bytes, |item| item > 100), None);
        }
    }
}
