//! An event that is given back on drop.

use std::time::Duration;

use crate::{Driver, Error, ErrorKind, RawEvent, Result, Stream, sync::Arc};

/// How long [`Event::synchronize`] spins: small copies are done by then, and where they are not, the sleep that follows was
/// delayed by no more than it costs to wake up.
const PATIENCE: Duration = Duration::from_micros(50);

/// Whether an event can tell the time. Events that only order work are cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// For [`Driver::elapsed`].
    Enabled,
    /// For ordering only.
    Disabled,
}

/// A point in a stream's work that can be waited for.
///
/// ```
/// use pinlane_driver::{Event, Stream, Timing, sim::{DeviceConfig, Machine}};
/// use std::time::Duration;
///
/// let device = Machine::new(DeviceConfig::default()).device(0)?;
/// let stream = Stream::new(&device)?;
/// let start = Event::new(&device, Timing::Enabled)?;
/// assert!(start.query()?, "an event that was never recorded counts as fired");
/// start.record(&stream)?;
/// device.busy(Duration::from_millis(2), stream.raw())?;
/// let end = stream.record(Timing::Enabled)?;
/// end.synchronize()?;
/// assert!(end.elapsed_since(&start)? >= Duration::from_millis(2));
/// # Ok::<(), pinlane_driver::Error>(())
/// ```
#[derive(Debug)]
pub struct Event {
    driver: Arc<dyn Driver>,
    raw: RawEvent,
}

impl Event {
    /// Makes an event, which counts as fired until it is recorded.
    ///
    /// # Errors
    ///
    /// What the driver says; nothing is made then.
    pub fn new(driver: &Arc<dyn Driver>, timing: Timing) -> Result<Self> {
        let raw = driver.create_event(timing)?;
        Ok(Self {
            driver: Arc::clone(driver),
            raw,
        })
    }

    /// The driver's handle.
    #[must_use]
    pub fn raw(&self) -> RawEvent {
        self.raw
    }

    /// Fires when everything enqueued on `stream` so far is done; see [`Driver::record`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidHandle`] for a stream of a device of another group, and what the driver says; the event then
    /// stays as it was.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.check_group("recording an event", stream.driver())?;
        self.driver.record(self.raw, stream.raw())
    }

    /// Whether it has fired. Never blocks.
    ///
    /// # Errors
    ///
    /// What failed before the event on its stream.
    pub fn query(&self) -> Result<bool> {
        self.driver.query(self.raw)
    }

    /// Blocks until it has fired. For work that is about to be done the thread spins, shortly; then it sleeps.
    ///
    /// # Errors
    ///
    /// What failed before the event on its stream.
    pub fn synchronize(&self) -> Result<()> {
        self.synchronize_with(PATIENCE)
    }

    /// [`synchronize`](Self::synchronize), spinning for up to `patience` before the thread sleeps. Waking a thread up takes
    /// some tens of microseconds; spinning takes a core.
    ///
    /// # Errors
    ///
    /// What failed before the event on its stream.
    pub fn synchronize_with(&self, patience: Duration) -> Result<()> {
        self.driver.synchronize_event(self.raw, patience)
    }

    /// Refuses to mix handles of drivers that do not know each other's.
    pub(crate) fn check_group(&self, doing: &str, other: &Arc<dyn Driver>) -> Result<()> {
        let (mine, others) = (self.driver.properties(), other.properties());
        if mine.shares_group_with(others) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidHandle,
            others.id,
            format!(
                "{doing}: the event is of {}, which is another machine or backend; use an event of the same",
                mine.id
            ),
        ))
    }

    /// The time on the device from `earlier` to this event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotReady`] when either was not recorded or has not fired,
    /// [`ErrorKind::InvalidArgument`] when either was made without timing.
    pub fn elapsed_since(&self, earlier: &Event) -> Result<Duration> {
        self.check_group("asking for the time between two events", &earlier.driver)?;
        self.driver.elapsed(earlier.raw, self.raw)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: `raw` was created by `new` and no one can use it after this drop. A driver that is already gone has
        // nothing left to destroy.
        let _gone = unsafe { self.driver.destroy_event(self.raw) };
    }
}
