//! Slots for transfers that come after an event which has not fired.
//!
//! They are filled ahead of the event, and then nobody has them before it fires. So all such transfers together get no more
//! than half of the slots: what a transfer may need is reserved before it is handed to the lanes, which take the slots later,
//! and given back when the device is done with them.

use pinlane_driver::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many slots are reserved.
#[derive(Debug, Default)]
pub(crate) struct Ahead(AtomicUsize);

/// Slots that one transfer may take, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    ahead: Arc<Ahead>,
    slots: usize,
}

impl Ahead {
    /// Reserves so many, if there are no more than `most` then.
    pub(crate) fn reserve(self: &Arc<Self>, slots: usize, most: usize) -> Option<Reserved> {
        let more = |reserved: usize| reserved.checked_add(slots).filter(|sum| *sum <= most);
        let reserved = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        reserved.ok().map(|_| Reserved {
            ahead: Arc::clone(self),
            slots,
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.ahead.0.fetch_sub(self.slots, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_reserved_than_there_may_be_and_all_of_it_comes_back() {
        let ahead = Arc::new(Ahead::default());
        let first = ahead.reserve(3, 5).expect("there is room");
        assert!(ahead.reserve(3, 5).is_none());
        let second = ahead.reserve(2, 5).expect("there is room");
        drop(first);
        assert!(ahead.reserve(4, 5).is_none());
        drop(second);
        assert!(ahead.reserve(5, 5).is_some());
    }
}
