//! The trait: an accelerator's verbs.

use std::{fmt, ptr::NonNull, time::Duration};

use crate::{
    Conversion, DevicePtr, Error, ErrorKind, LinkState, MemCopy, MemoryInfo, Properties, RawEvent, RawStream,
    Result, ScatterTable, Timing,
};

/// One accelerator's verbs: allocate, pin, streams, events, copies.
///
/// Calls that take a stream only *enqueue*: they return before the work is done, except a copy whose host end is
/// pageable, which may block until the driver has staged it (host to device) or has finished it (device to host).
/// Work on one stream runs in the order in which it was enqueued; work on different streams runs in any order unless
/// an event orders it.
///
/// A handle ([`RawStream`], [`RawEvent`], [`DevicePtr`]) that is not, or no longer, the driver's own gives
/// [`ErrorKind::InvalidHandle`] where the driver can tell, and is the breach of the unsafe call that made or destroyed it
/// where it can't. Use the wrappers [`Stream`](crate::Stream), [`Event`](crate::Event),
/// [`DeviceMemory`](crate::DeviceMemory) and [`PinnedRange`](crate::PinnedRange), which never dangle.
///
/// Every verb is one of [`Wrapper`](crate::Wrapper)'s as well, which would not pass on a new one that has a default here.
///
/// # Safety
///
/// Unsafe code relies on what an implementation says: that an event which counts as fired was recorded behind work that is
/// done, that a pageable source was read and a pageable destination filled when the call returned, that a range counts as
/// pinned only if it is, and that allocations do not overlap. An implementation keeps each method's contract; the
/// [conformance suite](crate::conformance) tests it.
///
/// # Errors, for every call
///
/// A call that returns an error has enqueued nothing (but see [`copy_batch`](Driver::copy_batch)), and the driver goes on working, except after
/// [`ErrorKind::DeviceLost`], which every later call returns too. A copy that fails *after* it was enqueued fails what
/// stands behind it on its stream, and every event and stream that waits for that: they report
/// [`ErrorKind::CopyFailed`]. [`synchronize_stream`](Driver::synchronize_stream) reports such an error once and then
/// the stream works again.
pub unsafe trait Driver: fmt::Debug + Send + Sync + 'static {
    /// What the device is.
    fn properties(&self) -> &Properties;

    /// Free and total memory of the device at this moment.
    fn memory_info(&self) -> Result<MemoryInfo>;

    /// How the link to the host runs at this moment; `None` where there is none or nobody tells. Takes milliseconds.
    fn link_state(&self) -> Option<LinkState> {
        None
    }

    /// Allocates `bytes` of device memory, aligned to at least 256 bytes and usable by every stream when this returns.
    /// Its content is undefined. Zero bytes give an address that may only be used for zero-sized copies and for `free`.
    fn allocate(&self, bytes: usize) -> Result<DevicePtr>;

    /// Gives device memory back.
    ///
    /// # Safety
    ///
    /// `ptr` comes from [`allocate`](Driver::allocate) with the same `bytes`, is not used afterwards, and no enqueued
    /// work still reads or writes it.
    unsafe fn free(&self, ptr: DevicePtr, bytes: usize) -> Result<()>;

    /// Bytes of device memory that nobody uses and that the driver keeps, because the next [`allocate`](Driver::allocate) has
    /// them sooner: [free](MemoryInfo::free) to whoever allocates here, and to nobody else.
    fn idle_bytes(&self) -> u64 {
        0
    }

    /// Gives what lies idle back, for others to have; returns how many bytes.
    fn trim(&self) -> Result<u64> {
        Ok(0)
    }

    /// Page-locks the host range, so that copies from and to it are asynchronous and run at the link's rate.
    ///
    /// # Safety
    ///
    /// The range is mapped, stays mapped until [`unpin`](Driver::unpin), and overlaps no range pinned before.
    unsafe fn pin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()>;

    /// Undoes [`pin`](Driver::pin).
    ///
    /// # Safety
    ///
    /// The range was pinned with the same `ptr` and `bytes`, and no enqueued work still reads or writes it.
    unsafe fn unpin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()>;

    /// Says that the calling thread will use this device from now on, and no other of its backend in between: its calls may
    /// be cheaper. For threads of the caller's own.
    fn attach_thread(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the whole host range lies in memory that this driver knows as pinned.
    fn is_pinned(&self, ptr: *const u8, bytes: usize) -> bool;

    /// Makes a stream that does not synchronise with any other by itself.
    fn create_stream(&self) -> Result<RawStream>;

    /// Destroys a stream. Returns at once; work already enqueued on it still runs.
    ///
    /// # Safety
    ///
    /// `stream` comes from [`create_stream`](Driver::create_stream) and is not used afterwards.
    unsafe fn destroy_stream(&self, stream: RawStream) -> Result<()>;

    /// Blocks the calling thread until everything enqueued on `stream` so far is done.
    fn synchronize_stream(&self, stream: RawStream) -> Result<()>;

    /// Makes an event. Before its first [`record`](Driver::record) it counts as fired.
    fn create_event(&self, timing: Timing) -> Result<RawEvent>;

    /// Destroys an event. Waits already enqueued on it keep their meaning.
    ///
    /// # Safety
    ///
    /// `event` comes from [`create_event`](Driver::create_event) and is not used afterwards.
    unsafe fn destroy_event(&self, event: RawEvent) -> Result<()>;

    /// The event fires when everything enqueued on `stream` before this call is done. Recording again moves the
    /// event: later queries and waits mean the latest record, waits enqueued before keep meaning theirs.
    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()>;

    /// Work enqueued on `stream` after this call starts only when `event`, as last recorded, has fired. The event may
    /// be of another device of the same backend.
    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()>;

    /// Whether `event`, as last recorded, has fired. Never blocks.
    fn query(&self, event: RawEvent) -> Result<bool>;

    /// Blocks the calling thread until `event`, as last recorded, has fired. The thread may spin for up to `patience`, where
    /// that tells it sooner than waking up would; then it sleeps.
    fn synchronize_event(&self, event: RawEvent, patience: Duration) -> Result<()>;

    /// The time on the device from `start` to `end`, both made with [`Timing::Enabled`], recorded and fired.
    fn elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Duration>;

    /// Enqueues one copy.
    ///
    /// A pageable source is free to change when the call returns; a pageable destination is filled when it returns. A
    /// pinned source must not change, and a pinned destination not be read, before the copy is done.
    ///
    /// # Safety
    ///
    /// Both ranges are valid for `copy.bytes` until the copy is done, they do not overlap, and what the contract above
    /// forbids does not happen.
    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()>;

    /// Enqueues many copies, which run in any order among themselves, after what stands before them on `stream` and
    /// before what comes after. When this returns an error, some of the copies may have been enqueued.
    ///
    /// # Safety
    ///
    /// As for [`copy`](Driver::copy), for each; and no range that one of them writes overlaps a range of another.
    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()>;

    /// The room that [`copy_scattered`](Driver::copy_scattered) needs for its table; `None` where this driver has no such
    /// verb, or can't load its kernel for the moment. Asked for the first time, a driver may load it to find out; a rule that was
    /// given never changes.
    fn scatter_table(&self) -> Option<ScatterTable> {
        None
    }

    /// Enqueues many copies as one piece of work: a kernel that reads and writes pinned host memory by itself, where
    /// copy engines would take longer for each copy than its bytes need. Each copy is between memory of this device and
    /// pinned host memory, or within this device; [`ErrorKind::InvalidArgument`] refuses any other.
    ///
    /// The copies run in any order among themselves, after what stands before them on `stream` and before what comes
    /// after. The driver writes a table of them to `table`, in a format of its own. When this returns an error, some of the
    /// copies may have been enqueued.
    ///
    /// # Safety
    ///
    /// As for [`copy`](Driver::copy), for each; and no range that one of them writes overlaps a range of another. `table`
    /// is pinned host memory, aligned to [`ScatterTable::ALIGNMENT`], of [`ScatterTable::bytes`] bytes, which overlaps
    /// none of them, and which nobody else writes until the copies are done.
    unsafe fn copy_scattered(&self, copies: &[MemCopy], table: NonNull<u8>, stream: RawStream) -> Result<()> {
        let _ = (copies, table, stream);
        Err(Error::new(
            ErrorKind::Unsupported,
            self.properties().id,
            "scattered copies were asked for, and this driver has no kernel for them; use copy_batch",
        ))
    }

    /// Enqueues writing `bytes` times `value` from `dst` on.
    ///
    /// # Safety
    ///
    /// The range is device memory, valid until the write is done.
    unsafe fn memset(&self, dst: DevicePtr, value: u8, bytes: usize, stream: RawStream) -> Result<()>;

    /// Enqueues the conversion of `elements` elements from `src` on into as many from `dst` on, by the rule of
    /// [`Conversion`]: bit by bit what the host would make of them. Both begin at a multiple of their element's size, which
    /// [`ErrorKind::InvalidArgument`] insists on. With no elements nothing is done, but for the error where this driver can't.
    ///
    /// # Safety
    ///
    /// Both ranges are memory of this device, valid until the conversion is done, and do not overlap.
    unsafe fn convert(
        &self,
        conversion: Conversion,
        dst: DevicePtr,
        src: DevicePtr,
        elements: usize,
        stream: RawStream,
    ) -> Result<()> {
        let _ = (dst, src, elements, stream);
        let Properties { id, name, .. } = self.properties();
        let message = format!(
            "elements were to be converted from {conversion} on the device, and the driver of this one ({name}) has no \
             kernel for that; convert them on the host"
        );
        Err(Error::new(ErrorKind::Unsupported, *id, message))
    }

    /// Enqueues a task that keeps the device's compute, not its copy engines, busy for about `duration`: something for
    /// copies to overlap with in measurements.
    fn busy(&self, duration: Duration, stream: RawStream) -> Result<()> {
        let _ = (duration, stream);
        Err(Error::new(
            ErrorKind::Unsupported,
            self.properties().id,
            "a busy task was asked for, and this driver has none",
        ))
    }
}
