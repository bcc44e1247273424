//! A driver that passes every call on to the simulated device, and counts those that break a contract.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pinlane::driver::{
    Conversion, DevicePtr, Driver, Error, ErrorKind, MemCopy, MemoryInfo, Properties, RawEvent, RawStream,
    Result, ScatterTable, Timing, sim::SimDriver,
};

/// Counts calls with handles or ranges that are not, or no longer, the driver's own: what is released twice, or used
/// after its release, shows here.
#[derive(Debug)]
pub(crate) struct Strict {
    sim: Arc<SimDriver>,
    breaches: AtomicU64,
}

impl Strict {
    pub(crate) fn new(sim: Arc<SimDriver>) -> Self {
        Self {
            sim,
            breaches: AtomicU64::new(0),
        }
    }

    pub(crate) fn breaches(&self) -> u64 {
        self.breaches.load(Ordering::Relaxed)
    }

    fn watch<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error: &Error| {
            if matches!(
                error.kind(),
                ErrorKind::InvalidHandle | ErrorKind::InvalidArgument
            ) {
                eprintln!("breach: {error}");
                self.breaches.fetch_add(1, Ordering::Relaxed);
            }
        })
    }
}

// SAFETY (of every unsafe call below): the arguments are the caller's, and so is the promise about them.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each passes the caller's promise on, as the comment above says"
)]
// SAFETY: passes every call on to the simulated device, which finds out what is wrong.
unsafe impl Driver for Strict {
    fn properties(&self) -> &Properties {
        self.sim.properties()
    }

    fn memory_info(&self) -> Result<MemoryInfo> {
        self.watch(self.sim.memory_info())
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePtr> {
        self.watch(self.sim.allocate(bytes))
    }

    unsafe fn free(&self, ptr: DevicePtr, bytes: usize) -> Result<()> {
        self.watch(unsafe { self.sim.free(ptr, bytes) })
    }

    unsafe fn pin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        self.watch(unsafe { self.sim.pin(ptr, bytes) })
    }

    unsafe fn unpin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        self.watch(unsafe { self.sim.unpin(ptr, bytes) })
    }

    fn is_pinned(&self, ptr: *const u8, bytes: usize) -> bool {
        self.sim.is_pinned(ptr, bytes)
    }

    fn create_stream(&self) -> Result<RawStream> {
        self.watch(self.sim.create_stream())
    }

    unsafe fn destroy_stream(&self, stream: RawStream) -> Result<()> {
        self.watch(unsafe { self.sim.destroy_stream(stream) })
    }

    fn synchronize_stream(&self, stream: RawStream) -> Result<()> {
        self.watch(self.sim.synchronize_stream(stream))
    }

    fn create_event(&self, timing: Timing) -> Result<RawEvent> {
        self.watch(self.sim.create_event(timing))
    }

    unsafe fn destroy_event(&self, event: RawEvent) -> Result<()> {
        self.watch(unsafe { self.sim.destroy_event(event) })
    }

    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        self.watch(self.sim.record(event, stream))
    }

    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        self.watch(self.sim.stream_wait(stream, event))
    }

    fn query(&self, event: RawEvent) -> Result<bool> {
        self.watch(self.sim.query(event))
    }

    fn synchronize_event(&self, event: RawEvent, patience: Duration) -> Result<()> {
        self.watch(self.sim.synchronize_event(event, patience))
    }

    fn elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Duration> {
        self.watch(self.sim.elapsed(start, end))
    }

    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()> {
        self.watch(unsafe { self.sim.copy(copy, stream) })
    }

    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()> {
        self.watch(unsafe { self.sim.copy_batch(copies, stream) })
    }

    fn scatter_table(&self) -> Option<ScatterTable> {
        self.sim.scatter_table()
    }

    unsafe fn copy_scattered(&self, copies: &[MemCopy], table: NonNull<u8>, stream: RawStream) -> Result<()> {
        self.watch(unsafe { self.sim.copy_scattered(copies, table, stream) })
    }

    unsafe fn memset(&self, dst: DevicePtr, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        self.watch(unsafe { self.sim.memset(dst, value, bytes, stream) })
    }

    unsafe fn convert(
        &self,
        conversion: Conversion,
        dst: DevicePtr,
        src: DevicePtr,
        elements: usize,
        stream: RawStream,
    ) -> Result<()> {
        self.watch(unsafe { self.sim.convert(conversion, dst, src, elements, stream) })
    }

    fn busy(&self, duration: Duration, stream: RawStream) -> Result<()> {
        self.watch(self.sim.busy(duration, stream))
    }
}
