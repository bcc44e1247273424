//! What the engine allocates on a thread: every allocation of this program is counted for the thread that makes it, except
//! inside calls of the driver. The simulated device is memory and queues of this very process; a real one is not.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr::NonNull,
    time::Duration,
};

use pinlane::driver::{
    Conversion, DevicePtr, Driver, MemCopy, MemoryInfo, Properties, RawEvent, RawStream, Result,
    ScatterTable, Timing, sim::SimDriver, sync::Arc,
};

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

impl Uncounted {
    fn call<T>(&self, call: impl FnOnce(&SimDriver) -> T) -> T {
        IN_DRIVER.set(true);
        let given = call(&self.0);
        IN_DRIVER.set(false);
        given
    }
}

// SAFETY (of every unsafe call below): the arguments are the caller's, and so is the promise about them.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each passes the caller's promise on, as the comment above says"
)]
// SAFETY: passes every call on to the simulated device.
unsafe impl Driver for Uncounted {
    fn properties(&self) -> &Properties {
        self.0.properties()
    }

    fn memory_info(&self) -> Result<MemoryInfo> {
        self.call(|sim| sim.memory_info())
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePtr> {
        self.call(|sim| sim.allocate(bytes))
    }

    unsafe fn free(&self, ptr: DevicePtr, bytes: usize) -> Result<()> {
        self.call(|sim| unsafe { sim.free(ptr, bytes) })
    }

    unsafe fn pin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        self.call(|sim| unsafe { sim.pin(ptr, bytes) })
    }

    unsafe fn unpin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        self.call(|sim| unsafe { sim.unpin(ptr, bytes) })
    }

    fn attach_thread(&self) -> Result<()> {
        self.call(|sim| sim.attach_thread())
    }

    fn is_pinned(&self, ptr: *const u8, bytes: usize) -> bool {
        self.call(|sim| sim.is_pinned(ptr, bytes))
    }

    fn create_stream(&self) -> Result<RawStream> {
        self.call(|sim| sim.create_stream())
    }

    unsafe fn destroy_stream(&self, stream: RawStream) -> Result<()> {
        self.call(|sim| unsafe { sim.destroy_stream(stream) })
    }

    fn synchronize_stream(&self, stream: RawStream) -> Result<()> {
        self.call(|sim| sim.synchronize_stream(stream))
    }

    fn create_event(&self, timing: Timing) -> Result<RawEvent> {
        self.call(|sim| sim.create_event(timing))
    }

    unsafe fn destroy_event(&self, event: RawEvent) -> Result<()> {
        self.call(|sim| unsafe { sim.destroy_event(event) })
    }

    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        self.call(|sim| sim.record(event, stream))
    }

    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        self.call(|sim| sim.stream_wait(stream, event))
    }

    fn query(&self, event: RawEvent) -> Result<bool> {
        self.call(|sim| sim.query(event))
    }

    fn synchronize_event(&self, event: RawEvent, patience: Duration) -> Result<()> {
        self.call(|sim| sim.synchronize_event(event, patience))
    }

    fn elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Duration> {
        self.call(|sim| sim.elapsed(start, end))
    }

    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()> {
        self.call(|sim| unsafe { sim.copy(copy, stream) })
    }

    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()> {
        self.call(|sim| unsafe { sim.copy_batch(copies, stream) })
    }

    fn scatter_table(&self) -> Option<ScatterTable> {
        self.call(|sim| sim.scatter_table())
    }

    unsafe fn copy_scattered(&self, copies: &[MemCopy], table: NonNull<u8>, stream: RawStream) -> Result<()> {
        self.call(|sim| unsafe { sim.copy_scattered(copies, table, stream) })
    }

    unsafe fn memset(&self, dst: DevicePtr, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        self.call(|sim| unsafe { sim.memset(dst, value, bytes, stream) })
    }

    unsafe fn convert(
        &self,
        conversion: Conversion,
        dst: DevicePtr,
        src: DevicePtr,
        elements: usize,
        stream: RawStream,
    ) -> Result<()> {
        self.call(|sim| unsafe { sim.convert(conversion, dst, src, elements, stream) })
    }

    fn busy(&self, duration: Duration, stream: RawStream) -> Result<()> {
        self.call(|sim| sim.busy(duration, stream))
    }
}
