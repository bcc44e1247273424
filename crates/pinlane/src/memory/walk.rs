//! Walks through lists of what lies here and there in memory, with the next of it on its way into the caches.
//!
//! Many small tensors lie in as many places, which no prefetcher of the processor's can guess. A walk that touches one after
//! the other waits at each for about as long as all there is to be done with it.

/// So many items ahead a place is asked for: what comes from memory takes about as long as the work on so many.
const AHEAD: usize = 12;

/// The items, one by one; of each, what lies at `place` is asked for some items earlier. There need not be memory.
pub(crate) fn scattered<'a, T, P>(
    items: &'a [T],
    place: impl Fn(&'a T) -> *const P,
) -> impl Iterator<Item = &'a T> {
    let first = &items[..items.len().min(AHEAD)];
    first.iter().for_each(|item| fetch(place(item)));
    items.iter().enumerate().map(move |(index, item)| {
        if let Some(later) = items.get(index + AHEAD) {
            fetch(place(later));
        }
        item
    })
}

/// Asks for the cache lines in which a value begins and ends.
#[inline]
fn fetch<P>(place: *const P) {
    if place.is_null() {
        // To look for no memory takes long.
        return;
    }
    let first = place.cast::<u8>();
    fetch_line(first);
    if size_of::<P>() > 1 {
        fetch_line(first.wrapping_add(size_of::<P>() - 1));
    }
}

/// Has an x86-64 processor bring the cache line at `place`, where there is memory, and goes on at once; others do nothing.
#[inline]
fn fetch_line(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE; a prefetch reads nothing that a program could see, and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_visits_each_item_once_and_in_order_wherever_it_lies() {
        for count in [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD] {
            let items: Vec<usize> = (0..count).collect();
            let nowhere = |item: &usize| (item * 4096) as *const [u8; 80];
            assert!(scattered(&items, nowhere).eq(&items), "{count}");
            assert!(scattered(&items, |item| item).eq(&items), "{count}");
        }
    }
}
