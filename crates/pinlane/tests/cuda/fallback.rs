//! A device whose driver can't load the kernel for scattered pieces: batches of copies, and slots, do its work.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pinlane::{
    DType, Device, DeviceOptions, Placement, Route, Tensor, TransferOptions, Tree,
    driver::{
        Conversion, DevicePtr, Driver, MemCopy, MemoryInfo, Properties, RawEvent, RawStream, Result,
        ScatterTable, Timing,
    },
};

use crate::{rig, rig::pattern};

/// Passes every call on but that for the kernel, and counts the batches of several copies.
#[derive(Debug)]
struct WithoutKernel {
    inner: Arc<dyn Driver>,
    batches: AtomicUsize,
}

pub(crate) fn without_a_kernel_batches_move_the_right_bytes() {
    const COUNT: usize = 1000;
    let with_kernel = rig(&DeviceOptions::default());
    let driver = Arc::new(WithoutKernel {
        inner: Arc::clone(with_kernel.device().driver().unwrap()),
        batches: AtomicUsize::new(0),
    });
    let device = Device::with_options(Arc::clone(&driver) as _, &DeviceOptions::default()).unwrap();
    let bytes = |index: usize| pattern(4000 + 4 * (index % 7), index);
    let tensor = |index| {
        let bytes = bytes(index);
        let shape = [bytes.len()];
        Tensor::from_bytes(bytes, DType::U8, &shape).unwrap()
    };
    let sent: Vec<Tensor> = (0..COUNT).map(tensor).collect();
    let pinned = sent.pin_memory(&device).unwrap();
    let apart = TransferOptions::new().placement(Placement::Separate);
    for tree in [&sent, &pinned] {
        for options in [&apart, &TransferOptions::new()] {
            let there = tree.to_with(&device, options).unwrap();
            for options in [TransferOptions::new(), TransferOptions::new().pinned_result()] {
                let back = there.to_with(&Device::host(), &options).unwrap();
                for (index, tensor) in back.iter().enumerate() {
                    assert_eq!(tensor.as_bytes().unwrap(), bytes(index), "tensor {index}");
                }
            }
        }
    }
    assert!(
        driver.batches.load(Ordering::Relaxed) > 0,
        "no batch was enqueued"
    );
    let gathered = TransferOptions::new().route(Route::Gathered);
    assert!(sent.to_with(&device, &gathered).is_err(), "there is no kernel");
    drop((sent, pinned));
    assert_eq!(device.stats().unwrap().leaked_bytes, 0);
    drop(device);
    with_kernel.finish();
}

// SAFETY (of every unsafe call below): the arguments are the caller's, and so is the promise about them.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each passes the caller's promise on, as the comment above says"
)]
// SAFETY: passes every call on to a driver that keeps the contract.
unsafe impl Driver for WithoutKernel {
    fn properties(&self) -> &Properties {
        self.inner.properties()
    }

    fn memory_info(&self) -> Result<MemoryInfo> {
        self.inner.memory_info()
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePtr> {
        self.inner.allocate(bytes)
    }

    unsafe fn free(&self, ptr: DevicePtr, bytes: usize) -> Result<()> {
        unsafe { self.inner.free(ptr, bytes) }
    }

    fn idle_bytes(&self) -> u64 {
        self.inner.idle_bytes()
    }

    fn trim(&self) -> Result<u64> {
        self.inner.trim()
    }

    unsafe fn pin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        unsafe { self.inner.pin(ptr, bytes) }
    }

    unsafe fn unpin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        unsafe { self.inner.unpin(ptr, bytes) }
    }

    fn attach_thread(&self) -> Result<()> {
        self.inner.attach_thread()
    }

    fn is_pinned(&self, ptr: *const u8, bytes: usize) -> bool {
        self.inner.is_pinned(ptr, bytes)
    }

    fn create_stream(&self) -> Result<RawStream> {
        self.inner.create_stream()
    }

    unsafe fn destroy_stream(&self, stream: RawStream) -> Result<()> {
        unsafe { self.inner.destroy_stream(stream) }
    }

    fn synchronize_stream(&self, stream: RawStream) -> Result<()> {
        self.inner.synchronize_stream(stream)
    }

    fn create_event(&self, timing: Timing) -> Result<RawEvent> {
        self.inner.create_event(timing)
    }

    unsafe fn destroy_event(&self, event: RawEvent) -> Result<()> {
        unsafe { self.inner.destroy_event(event) }
    }

    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        self.inner.record(event, stream)
    }

    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        self.inner.stream_wait(stream, event)
    }

    fn query(&self, event: RawEvent) -> Result<bool> {
        self.inner.query(event)
    }

    fn synchronize_event(&self, event: RawEvent, patience: Duration) -> Result<()> {
        self.inner.synchronize_event(event, patience)
    }

    fn elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Duration> {
        self.inner.elapsed(start, end)
    }

    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()> {
        unsafe { self.inner.copy(copy, stream) }
    }

    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()> {
        self.batches
            .fetch_add(usize::from(copies.len() > 1), Ordering::Relaxed);
        unsafe { self.inner.copy_batch(copies, stream) }
    }

    fn scatter_table(&self) -> Option<ScatterTable> {
        None
    }

    unsafe fn memset(&self, dst: DevicePtr, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        unsafe { self.inner.memset(dst, value, bytes, stream) }
    }

    unsafe fn convert(
        &self,
        conversion: Conversion,
        dst: DevicePtr,
        src: DevicePtr,
        elements: usize,
        stream: RawStream,
    ) -> Result<()> {
        unsafe { self.inner.convert(conversion, dst, src, elements, stream) }
    }

    fn busy(&self, duration: Duration, stream: RawStream) -> Result<()> {
        self.inner.busy(duration, stream)
    }
}
