//! Host memory for the tests: whole pages, pinned or pageable.

use std::{ptr::NonNull, slice};

use pinlane_driver::{Driver, PinnedRange, sync::Arc};

const PAGE: usize = 4096;

#[repr(align(4096))]
#[derive(Clone)]
#[expect(dead_code, reason = "only its size and alignment are of use")]
struct Page([u8; PAGE]);

/// Whole pages of zeros.
pub(crate) struct Host {
    /// Ends before the memory goes.
    pin: Option<PinnedRange>,
    pages: Vec<Page>,
    bytes: usize,
}

impl Host {
    pub(crate) fn pageable(bytes: usize) -> Self {
        let pages = vec![Page([0; PAGE]); bytes.div_ceil(PAGE).max(1)];
        Self {
            pin: None,
            pages,
            bytes,
        }
    }

    /// Whoever enqueues work on it waits for that work before dropping it.
    pub(crate) fn pinned(driver: &Arc<dyn Driver>, bytes: usize) -> Self {
        let mut host = Self::pageable(bytes);
        let start = NonNull::new(host.ptr()).expect("memory is not at zero");
        // SAFETY: the pages live as long as the pin, are pinned once, and the tests wait before they drop it.
        host.pin = Some(unsafe { PinnedRange::new(driver, start, host.pages.len() * PAGE) }.unwrap());
        host
    }

    pub(crate) fn ptr(&mut self) -> *mut u8 {
        self.pages.as_mut_ptr().cast()
    }

    /// The bytes, while no enqueued work writes them.
    pub(crate) fn read(&self) -> &[u8] {
        // SAFETY: initialised pages, as many as needed.
        unsafe { slice::from_raw_parts(self.pages.as_ptr().cast(), self.bytes) }
    }

    /// The bytes, while no enqueued work reads or writes them.
    pub(crate) fn write(&mut self) -> &mut [u8] {
        // SAFETY: initialised pages, as many as needed.
        unsafe { slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), self.bytes) }
    }

    /// Whether every byte is `value`.
    pub(crate) fn holds(&self, value: u8) -> bool {
        self.read().iter().all(|byte| *byte == value)
    }
}
