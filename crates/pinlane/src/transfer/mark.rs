//! Marks: points in a lane's stream after which the device no longer uses what a chunk gave it.
//!
//! A mark is a recorded event out of a set that is reused, and the stream it was recorded on. It is shared (by the
//! slot, the job, a fence); its event goes back to the set when the last of them lets go, so that nobody ever waits on
//! an event that was recorded again for someone else.
//!
//! | state of a lane's stream | meaning | who moves it on |
//! | --- | --- | --- |
//! | sound | its copies run | a copy that fails |
//! | failed | its copies are skipped, its marks fail | who settles such a mark: [`Mark::settle`] |
//! | known as failed | the same | who drives the lane, before it enqueues more: [`LaneStream::mend`] |
//!
//! Only who drives the lane makes its stream sound again: if others did, it could happen between a copy that is skipped
//! and the mark behind it, which would then be reached as if the copy had run. Each time a new *generation* begins: a
//! mark covers what stands before it in its own generation only.

use pinlane_driver::{
    ErrorKind, Event, Stream, Timing,
    sync::{
        Arc, Duration, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        lock,
    },
};

use crate::trace::device;

/// How often a driver that refuses to wait is asked: what it doesn't tell the end of would have to be leaked.
const ATTEMPTS: usize = 8;

/// A lane's stream, with the events that its marks use.
#[derive(Debug)]
pub(crate) struct LaneStream {
    stream: Stream,
    events: Arc<Events>,
    /// How often the stream was made sound again.
    generation: AtomicU64,
    /// Marks made in this generation.
    made: AtomicU32,
    /// The last mark that is known to be reached, as [`Mark::place`] says it: those before it in its generation are too.
    /// Asking the driver takes microseconds, the more so when other threads ask as well.
    reached: AtomicU64,
    known_as_failed: AtomicBool,
}

/// Events that nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Vec<Event>>);

/// A point in a lane's stream.
#[derive(Debug)]
pub(crate) struct Mark {
    /// Out of the set. `None` only while dropping.
    event: Option<Event>,
    stream: Arc<LaneStream>,
    generation: u64,
    /// Counts from 1 on in each generation.
    number: u32,
}

impl LaneStream {
    pub(crate) fn new(stream: Stream, events: Arc<Events>) -> Arc<Self> {
        Arc::new(Self {
            stream,
            events,
            generation: AtomicU64::new(0),
            made: AtomicU32::new(0),
            reached: AtomicU64::new(0),
            known_as_failed: AtomicBool::new(false),
        })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Makes the stream sound again where it is known as failed. For who drives the lane.
    pub(crate) fn mend(&self) -> Result<(), pinlane_driver::Error> {
        if self.known_as_failed.load(Ordering::Relaxed) {
            self.drain()
        } else {
            Ok(())
        }
    }

    /// Waits until nothing is in flight, and makes the stream sound again. For who drives the lane. What failed is not
    /// told: the marks behind it tell it.
    pub(crate) fn drain(&self) -> Result<(), pinlane_driver::Error> {
        match self.finish() {
            Err(error) if error.kind() != ErrorKind::CopyFailed => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The same, and tells what failed: for who has marked nothing.
    pub(crate) fn finish(&self) -> Result<(), pinlane_driver::Error> {
        let ended = insist(|| self.stream.synchronize());
        if ended
            .as_ref()
            .map_or_else(|error| error.kind() == ErrorKind::CopyFailed, |()| true)
        {
            self.begin_generation();
            self.known_as_failed.store(false, Ordering::Relaxed);
        }
        ended
    }

    /// For who drives the lane.
    fn begin_generation(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.made.store(0, Ordering::Relaxed);
    }

    /// Marks the end of what is enqueued so far. For who drives the lane.
    pub(crate) fn mark(self: &Arc<Self>) -> Result<Arc<Mark>, pinlane_driver::Error> {
        let event = Some(self.take_event()?);
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let mark = Arc::new(Mark {
            event,
            stream: Arc::clone(self),
            generation: self.generation.load(Ordering::Relaxed),
            number,
        });
        if number == u32::MAX {
            self.begin_generation();
        }
        mark.event().record(&self.stream)?;
        Ok(mark)
    }

    fn take_event(&self) -> Result<Event, pinlane_driver::Error> {
        let known = lock(&self.events.0).pop();
        known.map_or_else(|| Event::new(self.stream.driver(), Timing::Disabled), Ok)
    }
}

impl Mark {
    fn event(&self) -> &Event {
        self.event.as_ref().expect("the event is there until drop")
    }

    /// Whether this mark, once reached, says that `earlier` was reached too, and how that went.
    pub(crate) fn covers(&self, earlier: &Mark) -> bool {
        Arc::ptr_eq(&self.stream, &earlier.stream) && self.generation == earlier.generation
    }

    /// Whether it is reached, without blocking. A failure counts: [`settle`](Self::settle) tells it.
    pub(crate) fn is_reached(&self) -> bool {
        self.outcome().is_some()
    }

    /// How it was reached, if it was.
    fn outcome(&self) -> Option<Result<(), pinlane_driver::Error>> {
        if self.is_known_as_reached() {
            return Some(Ok(()));
        }
        match self.event().query() {
            Ok(true) => {
                self.note_reached();
                Some(Ok(()))
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Whether someone has seen it, or a later one of its generation, reached without a failure. Asks nobody.
    pub(crate) fn is_known_as_reached(&self) -> bool {
        // Acquires what the device's copies wrote, as who saw the mark reached did.
        let reached = self.stream.reached.load(Ordering::Acquire);
        reached >> 32 == self.place() >> 32 && self.place() <= reached
    }

    /// Whether it is a point in this stream.
    pub(crate) fn is_on(&self, stream: &Arc<LaneStream>) -> bool {
        Arc::ptr_eq(&self.stream, stream)
    }

    fn note_reached(&self) {
        self.stream.reached.fetch_max(self.place(), Ordering::Release);
    }

    /// Its generation and, below, its number.
    fn place(&self) -> u64 {
        self.generation << 32 | u64::from(self.number)
    }

    /// Blocks until it is reached, spinning for up to `patience`. A failed copy is a finished one; after any other error the
    /// device may still be at work.
    pub(crate) fn settle(&self, patience: Duration) -> Result<(), pinlane_driver::Error> {
        if self.is_known_as_reached() {
            return Ok(());
        }
        let settled = insist(|| self.event().synchronize_with(patience));
        if settled.is_ok() {
            self.note_reached();
        }
        settled.inspect_err(|error| {
            let current = self.stream.generation.load(Ordering::Relaxed);
            if error.kind() == ErrorKind::CopyFailed && self.generation == current {
                self.stream.known_as_failed.store(true, Ordering::Relaxed);
            }
        })
    }

    /// Makes `stream` wait for it, without blocking the host.
    pub(crate) fn fence(&self, stream: &Stream) -> Result<(), pinlane_driver::Error> {
        stream.wait(self.event())
    }
}

impl device::Fence for Mark {
    fn make_wait(&self, stream: &Stream) -> Result<(), pinlane_driver::Error> {
        self.fence(stream)
    }

    fn outcome(&self) -> Option<Result<(), pinlane_driver::Error>> {
        self.outcome()
    }

    fn place(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.stream).addr(), self.generation)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            lock(&self.stream.events.0).push(event);
        }
    }
}

/// Waits, again and again where the driver refuses.
fn insist(wait: impl Fn() -> Result<(), pinlane_driver::Error>) -> Result<(), pinlane_driver::Error> {
    let mut result = wait();
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if !matches!(error.kind(), ErrorKind::CopyFailed | ErrorKind::DeviceLost) => {
                result = wait()
            }
            _ => break,
        }
    }
    result
}
