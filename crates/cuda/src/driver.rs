//! One CUDA device as a [`Driver`]: each verb, handed to the module that knows it.

use std::{ffi::c_int, num::NonZeroU64, ptr::NonNull};

use pinlane_driver::{
    Conversion, DeviceId, DevicePtr, Driver, Error, ErrorKind, LinkState, MemCopy, MemoryInfo, Properties,
    RawEvent, RawStream, Result, ScatterTable, Timing, sync::Duration,
};

use crate::{
    batches::Batches,
    busy::Busy,
    context::Context,
    convert::Converter,
    copies::{self, Copies},
    events::Events,
    flags::Flags,
    library::Api,
    link,
    memory::BlockCache,
    pinned::known_to_cuda,
    properties,
    scattered::Scattered,
    streams,
};

/// The part of the device's memory that may lie idle in the cache, as one of so many. Others who run out of memory
/// can't ask for it back (only this process can, by [`Driver::trim`]), and a slab of a large transfer still fits on a large device.
const IDLE_PART: u64 = 32;

/// How late the kernel may end a nap of an attached thread, in nanoseconds.
const TIMER_SLACK: u64 = 1_000;

/// One CUDA device.
#[derive(Debug)]
pub(crate) struct CudaDriver {
    context: Context,
    properties: Properties,
    memory: BlockCache,
    events: Events,
    flags: Flags,
    copies: Copies,
    batches: Batches,
    scattered: Scattered,
    converter: Converter,
    busy: Busy,
}

impl CudaDriver {
    pub(crate) fn open(api: &'static Api, id: DeviceId, device: c_int) -> Result<Self> {
        let properties = properties::of(api, id, device)?;
        let context = Context::retain(api, id, device)?;
        let idle = usize::try_from(properties.memory_bytes / IDLE_PART).unwrap_or(usize::MAX);
        let scattered = Scattered::new(&context);
        scattered.load(&context);
        Ok(Self {
            memory: BlockCache::new(idle),
            events: Events::default(),
            flags: Flags::new(&context),
            copies: Copies::new(&context),
            batches: Batches::new(&context),
            scattered,
            converter: Converter::new(),
            busy: Busy::new(),
            properties,
            context,
        })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }
}

/// A handle of the trait as CUDA's own: a pointer's width on every platform of CUDA.
fn handle(raw: u64) -> usize {
    raw as usize
}

// SAFETY: each verb keeps the trait's contract by what the CUDA driver promises of the calls behind it; the conformance suite
// holds it to that on the device.
unsafe impl Driver for CudaDriver {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn link_state(&self) -> Option<LinkState> {
        link::state(self.properties.pci_address.as_deref()?)
    }

    /// What lies idle in the cache, or unused in the pool behind it, counts as free: the next allocation can have it.
    fn memory_info(&self) -> Result<MemoryInfo> {
        let _current = self.context.enter()?.beside_captures()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: valid places for the answers.
        let status = unsafe { (self.context.api.memory_info)(&raw mut free, &raw mut total) };
        self.context
            .check(status, || "asking for the free memory".to_owned())?;
        let unused = self
            .context
            .pool
            .map_or(Ok(0), |pool| pool.unused(&self.context))?;
        let idle = self.memory.idle_bytes().saturating_add(unused);
        let free = free.saturating_add(idle).min(total);
        Ok(MemoryInfo {
            free: free as u64,
            total: total as u64,
        })
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePtr> {
        let _current = self.context.enter()?.beside_captures()?;
        if bytes == 0 {
            return Ok(NOWHERE);
        }
        self.memory.allocate(bytes, &self.context).map(DevicePtr)
    }

    unsafe fn free(&self, ptr: DevicePtr, bytes: usize) -> Result<()> {
        let _current = self.context.enter()?.beside_captures()?;
        if bytes == 0 || self.memory.free(ptr.0, &self.context)? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidHandle,
            self.context.id,
            format!(
                "freeing {bytes} bytes at {:#x}, which is no allocation of this driver",
                ptr.0
            ),
        ))
    }

    fn idle_bytes(&self) -> u64 {
        self.memory.idle_bytes() as u64
    }

    fn trim(&self) -> Result<u64> {
        let _current = self.context.enter()?.beside_captures()?;
        self.memory.trim(&self.context).map(|bytes| bytes as u64)
    }

    unsafe fn pin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.copies.pinned.pin(&self.context, ptr, bytes) }
    }

    unsafe fn unpin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.copies.pinned.unpin(&self.context, ptr, bytes) }
    }

    fn attach_thread(&self) -> Result<()> {
        // Its naps are short: the kernel is not to draw them out, as it does by 50 us otherwise.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK)) {
            tracing::debug!(%error, "a thread's naps take longer than they should");
        }
        // The context stays current: each call then finds it so, and has nothing to set.
        self.context.enter().map(std::mem::forget)
    }

    fn is_pinned(&self, ptr: *const u8, bytes: usize) -> bool {
        self.copies.pinned.cover(ptr, bytes)
            || self
                .context
                .enter()
                .is_ok_and(|_current| known_to_cuda(&self.context, ptr, bytes))
    }

    fn create_stream(&self) -> Result<RawStream> {
        let stream = streams::create(&self.context)?;
        // SAFETY: CUDA has just made it.
        Ok(unsafe { RawStream::from_raw(stream as u64) })
    }

    unsafe fn destroy_stream(&self, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { streams::destroy(&self.context, handle(stream.as_raw())) }
    }

    fn synchronize_stream(&self, stream: RawStream) -> Result<()> {
        streams::synchronize(&self.context, &self.flags, handle(stream.as_raw()))
    }

    fn create_event(&self, timing: Timing) -> Result<RawEvent> {
        let event = self.events.create(&self.context, timing)?;
        // SAFETY: CUDA has just made it.
        Ok(unsafe { RawEvent::from_raw(event as u64) })
    }

    unsafe fn destroy_event(&self, event: RawEvent) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.events.destroy(&self.context, handle(event.as_raw())) }
    }

    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        self.events
            .record(&self.context, handle(event.as_raw()), handle(stream.as_raw()))
    }

    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        self.events
            .make_stream_wait(&self.context, handle(stream.as_raw()), handle(event.as_raw()))
    }

    fn query(&self, event: RawEvent) -> Result<bool> {
        self.events.query(&self.context, handle(event.as_raw()))
    }

    fn synchronize_event(&self, event: RawEvent, patience: Duration) -> Result<()> {
        self.events
            .synchronize(&self.context, handle(event.as_raw()), patience)
    }

    fn elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Duration> {
        self.events
            .elapsed(&self.context, handle(start.as_raw()), handle(end.as_raw()))
    }

    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.copies.copy(&self.context, &copy, handle(stream.as_raw())) }
    }

    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()> {
        let stream = handle(stream.as_raw());
        // SAFETY: the caller's promise.
        unsafe { self.batches.copy(&self.copies, &self.context, copies, stream) }
    }

    fn scatter_table(&self) -> Option<ScatterTable> {
        self.scattered.table(&self.context)
    }

    unsafe fn copy_scattered(&self, copies: &[MemCopy], table: NonNull<u8>, stream: RawStream) -> Result<()> {
        let (pinned, stream) = (&self.copies.pinned, handle(stream.as_raw()));
        // SAFETY: the caller's promise.
        unsafe { self.scattered.copy(&self.context, pinned, copies, table, stream) }
    }

    unsafe fn memset(&self, dst: DevicePtr, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { copies::memset(&self.context, dst, value, bytes, handle(stream.as_raw())) }
    }

    unsafe fn convert(
        &self,
        conversion: Conversion,
        dst: DevicePtr,
        src: DevicePtr,
        elements: usize,
        stream: RawStream,
    ) -> Result<()> {
        let (context, stream) = (&self.context, handle(stream.as_raw()));
        // SAFETY: the caller's promise.
        unsafe {
            self.converter
                .enqueue(context, conversion, [dst, src], elements, stream)
        }
    }

    fn busy(&self, duration: Duration, stream: RawStream) -> Result<()> {
        self.busy
            .enqueue(&self.context, duration, handle(stream.as_raw()))
    }
}

/// The address of an allocation of nothing.
const NOWHERE: DevicePtr = DevicePtr(0);
