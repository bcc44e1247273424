//! A stream that is given back on drop, or that belongs to someone else.

use crate::{Driver, Event, MemCopy, RawStream, Result, Timing, sync::Arc};

/// An in-order queue of work on one device.
///
/// Owned streams are destroyed on drop (what is enqueued still runs); adopted ones are left alone.
///
/// ```
/// use pinlane_driver::{DeviceMemory, MemCopy, Stream, Timing, sim::{DeviceConfig, Machine}};
///
/// let device = Machine::new(DeviceConfig::default()).device(0)?;
/// let memory = DeviceMemory::new(&device, 4)?;
/// let (writer, reader) = (Stream::new(&device)?, Stream::new(&device)?);
/// let mut back = [0_u8; 4];
/// // SAFETY: pageable memory is free again when each call returns, and both streams are done before `memory` goes.
/// unsafe {
///     writer.copy(MemCopy::to_device(memory.ptr(), [1, 2, 3, 4].as_ptr(), 4))?;
///     // The streams know nothing of each other, so an event orders them.
///     reader.wait(&writer.record(Timing::Disabled)?)?;
///     reader.copy(MemCopy::to_host(back.as_mut_ptr(), memory.ptr(), 4))?;
/// }
/// reader.synchronize()?;
/// assert_eq!(back, [1, 2, 3, 4]);
/// # Ok::<(), pinlane_driver::Error>(())
/// ```
#[derive(Debug)]
pub struct Stream {
    driver: Arc<dyn Driver>,
    raw: RawStream,
    owned: bool,
}

impl Stream {
    /// Makes a stream.
    ///
    /// # Errors
    ///
    /// What the driver says; nothing is made then.
    pub fn new(driver: &Arc<dyn Driver>) -> Result<Self> {
        let raw = driver.create_stream()?;
        Ok(Self {
            driver: Arc::clone(driver),
            raw,
            owned: true,
        })
    }

    /// Uses a stream that someone else owns, such as torch's current stream, without ever destroying it.
    ///
    /// # Safety
    ///
    /// `raw` is a live stream of `driver` for as long as the returned value lives.
    #[must_use]
    pub unsafe fn adopt(driver: &Arc<dyn Driver>, raw: RawStream) -> Self {
        Self {
            driver: Arc::clone(driver),
            raw,
            owned: false,
        }
    }

    /// The driver's handle.
    #[must_use]
    pub fn raw(&self) -> RawStream {
        self.raw
    }

    /// The driver that the stream belongs to.
    #[must_use]
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// Blocks until everything enqueued so far is done; see [`Driver::synchronize_stream`].
    ///
    /// # Errors
    ///
    /// What failed on the stream since the last call.
    pub fn synchronize(&self) -> Result<()> {
        self.driver.synchronize_stream(self.raw)
    }

    /// Work enqueued from now on starts only when `event` has fired; see [`Driver::stream_wait`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidHandle`](crate::ErrorKind::InvalidHandle) for an event of a device of another group, and what
    /// the driver says; nothing is enqueued then.
    pub fn wait(&self, event: &Event) -> Result<()> {
        event.check_group("making a stream wait for an event", &self.driver)?;
        self.driver.stream_wait(self.raw, event.raw())
    }

    /// Makes an event that fires when everything enqueued so far is done.
    ///
    /// # Errors
    ///
    /// What the driver says; nothing is enqueued then.
    pub fn record(&self, timing: Timing) -> Result<Event> {
        let event = Event::new(&self.driver, timing)?;
        event.record(self)?;
        Ok(event)
    }

    /// Enqueues one copy; see [`Driver::copy`].
    ///
    /// # Safety
    ///
    /// As for [`Driver::copy`].
    ///
    /// # Errors
    ///
    /// What the driver says; nothing is enqueued then.
    pub unsafe fn copy(&self, copy: MemCopy) -> Result<()> {
        // SAFETY: the caller keeps `Driver::copy`'s contract, which is this function's own.
        unsafe { self.driver.copy(copy, self.raw) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: `raw` was created by `new` and no one can use it after this drop. A driver that is already gone
            // (process exit, lost device) has nothing left to destroy, so its error carries no duty.
            let _gone = unsafe { self.driver.destroy_stream(self.raw) };
        }
    }
}
