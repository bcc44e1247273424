//! What the engine allocates on a thread: every allocation of this program is counted for the thread that makes it, except
//! inside calls of the driver. The simulated device is memory and queues of this very process; a real one is not.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use pinlane::driver::{Result, Wrapper, sim::SimDriver, sync::Arc};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static IN_DRIVER: Cell<bool> = const { Cell::new(false) };
}

/// How often `work` allocates on this thread, outside the driver.
pub(crate) fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// The system's allocator, which counts.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

impl Counting {
    /// A thread that is ending may allocate when its counter is gone already: nobody asks for that.
    fn count() {
        if !IN_DRIVER.try_with(Cell::get).unwrap_or(true) {
            let _gone = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        }
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(ptr, layout, bytes) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// A simulated device inside whose calls nothing is counted.
#[derive(Debug)]
pub(crate) struct Uncounted(pub(crate) Arc<SimDriver>);

// SAFETY: passes every call on to the simulated device.
unsafe impl Wrapper for Uncounted {
    type Inner = SimDriver;

    fn inner(&self) -> &SimDriver {
        &self.0
    }

    fn call<T>(&self, call: impl FnOnce(&SimDriver) -> Result<T>) -> Result<T> {
        IN_DRIVER.set(true);
        let given = call(&self.0);
        IN_DRIVER.set(false);
        given
    }
}
