//! One planned transfer while it runs: what lanes, the waiting caller and the reactor share.
//!
//! | state | meaning | who moves it on |
//! | --- | --- | --- |
//! | new | nobody knows of it but who made it, and may drop it | [`Job::begin`] |
//! | staging | some chunk is not settled: not yet claimed, being filled, or waiting to be emptied | lanes: [`Job::settle`] |
//! | flying | every chunk is settled; the device may still use memory until the marks are reached | whoever calls [`Job::land`] |
//! | landed | the marks are reached; what was kept for the device is let go | - |
//! | failed | the same, with an error: the first that happened | - |
//! | lost | the device is gone: what it may still use is never let go, and counted | - |
//!
//! A job that was cancelled, by an error or because its handle was dropped, settles its remaining chunks without work.
//! `keep` is let go by `land` alone. A job that has begun and is dropped without having landed leaks it: memory that a
//! device may still use is never freed.

use std::{any::Any, mem, ptr, task::Waker};

use pinlane_driver::{
    DeviceId, DevicePtr, Event, Stream,
    sync::{
        Arc, Condvar, Duration, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        lock, wait,
    },
};

use super::{ahead::Reserved, engine::Engine, kept::Kept, leaks::Leaks, mark::Mark, plan::Plan};
use crate::{
    Error, Result, StridedCopy,
    error::Failure,
    file::{reading::FileEnd, writing::SinkEnd},
    memory::{list::List, slots::LentSlot, storage::Landing},
};

/// The end of a leaf that is not the executing device's memory.
#[derive(Debug)]
pub(crate) enum End {
    /// Host memory in one piece.
    Memory(*mut u8),
    /// Host memory to gather from.
    Strided(*const u8, Box<StridedCopy>),
    /// A file's bytes.
    File(FileEnd),
    /// A file that the bytes are written to.
    Sink(SinkEnd),
    /// Memory of the same device.
    Device(DevicePtr),
    /// Memory of another device.
    Peer(DeviceId, DevicePtr),
}

impl End {
    /// Where the byte at `offset` lies, if that is host memory in one piece; nowhere otherwise.
    #[inline]
    pub(super) fn address(&self, offset: usize) -> *const u8 {
        match self {
            Self::Memory(start) => start.wrapping_add(offset),
            _ => ptr::null(),
        }
    }
}

// SAFETY: the pointers name memory that the job keeps alive, and that nobody writes (a source) or reads (a result)
// until the job has landed; each chunk's part of it is touched by the one lane that claimed the chunk.
unsafe impl Send for End {}
// SAFETY: as above.
unsafe impl Sync for End {}

/// Where a job's bytes go, and come from.
#[derive(Debug)]
pub(crate) struct Places {
    /// For each leaf, its end that is not the executing device's.
    pub(crate) ends: List<End>,
    /// For each allocation of the plan, its address.
    pub(crate) bases: List<DevicePtr>,
    /// The slot that the only chunk lands in and stays, where there is one.
    pub(crate) lent: Option<Arc<LentSlot>>,
}

/// What a device reads and writes on behalf of a job.
#[derive(Debug)]
pub(crate) struct Keep {
    pub(crate) sources: Kept,
    pub(crate) results: List<Arc<dyn Any + Send + Sync>>,
}

impl Keep {
    /// Never lets go of the memory, nor of the driver it belongs to. Engines are let go as ever: their threads end.
    fn leak(self) {
        mem::forget(self.results);
        self.sources.leak();
    }
}

/// A planned transfer while it runs.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plan: Plan,
    /// For each leaf, its end that is not the executing device's.
    pub(crate) ends: List<End>,
    /// For each allocation of the plan, its address.
    pub(crate) bases: List<DevicePtr>,
    /// The slot that the only chunk lands in and stays, where there is one.
    pub(crate) lent: Option<Arc<LentSlot>>,
    /// What every copy waits for on the device, if anything.
    after: Option<Arc<Event>>,
    /// Whether somebody has seen that it has happened. Asking takes microseconds, as waiting does on the device.
    has_fired: AtomicBool,
    /// Told to the results' storages.
    landing: Arc<Landing>,
    /// How long who waits for the end spins before it sleeps.
    patience: Duration,
    leaks: Arc<Leaks>,
    cancelled: AtomicBool,
    /// Chunks that were enqueued, or never will be.
    started: AtomicUsize,
    progress: Mutex<Progress>,
    settled: Condvar,
}

#[derive(Debug)]
struct Progress {
    unsettled: usize,
    marks: Vec<Arc<Mark>>,
    error: Option<Failure>,
    lost: bool,
    begun: bool,
    keep: Option<Keep>,
    /// Slots that the job may take before what it comes after has happened.
    reserved: Option<Reserved>,
    waker: Option<Waker>,
}

impl Job {
    /// A job that keeps `keep` alive until the device no longer uses it.
    pub(crate) fn new(
        plan: Plan,
        places: Places,
        after: Option<Arc<Event>>,
        keep: Keep,
        landing: &Arc<Landing>,
        engine: &Engine,
    ) -> Arc<Self> {
        let progress = Progress {
            unsettled: plan.chunks.len(),
            marks: Vec::new(),
            error: None,
            lost: false,
            begun: false,
            keep: Some(keep),
            reserved: None,
            waker: None,
        };
        Arc::new(Self {
            plan,
            ends: places.ends,
            bases: places.bases,
            lent: places.lent,
            after,
            has_fired: AtomicBool::new(false),
            landing: Arc::clone(landing),
            patience: engine.profile.patience,
            leaks: Arc::clone(&engine.leaks),
            cancelled: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            progress: Mutex::new(progress),
            settled: Condvar::new(),
        })
    }

    /// The job is about to be handed to lanes.
    pub(crate) fn begin(&self) {
        lock(&self.progress).begun = true;
    }

    /// The slots are the job's until the device is done with them.
    pub(crate) fn hold_until_landed(&self, slots: Reserved) {
        lock(&self.progress).reserved = Some(slots);
    }

    /// Whether what the copies come after has happened. A failure counts: the first copy tells it.
    pub(crate) fn may_start(&self) -> bool {
        self.unfired().is_none_or(|after| match after.query() {
            Ok(fired) => {
                self.has_fired.fetch_or(fired, Ordering::Relaxed);
                fired
            }
            Err(_) => true,
        })
    }

    /// What the copies come after, unless somebody has seen that it has happened.
    pub(crate) fn unfired(&self) -> Option<&Event> {
        // Who enqueues copies from now on does so after it, whoever has seen it.
        self.after
            .as_deref()
            .filter(|_| !self.has_fired.load(Ordering::Relaxed))
    }

    /// Blocks until [`may_start`](Self::may_start).
    pub(crate) fn wait_until_it_may_start(&self) -> Result<()> {
        let waited = self.after.as_ref().map_or(Ok(()), |after| after.synchronize());
        waited.map_err(|source| Error::driver("waiting for the event that a transfer comes after", source))
    }

    /// Whether chunks that are not yet filled need no work any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Nobody wants the result any more.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// One more chunk was enqueued, or never will be; says whether it was the last. What was done with the others before has
    /// happened then.
    pub(crate) fn note_started(&self) -> bool {
        self.started.fetch_add(1, Ordering::AcqRel) + 1 == self.plan.chunks.len()
    }

    /// One chunk is done with, on the host: the device is done with it at `mark`, or already.
    pub(crate) fn settle(&self, mark: Option<Arc<Mark>>) {
        let mut progress = lock(&self.progress);
        if let Some(mark) = mark {
            match progress.marks.iter_mut().find(|known| mark.covers(known)) {
                Some(known) => *known = mark,
                None => progress.marks.push(mark),
            }
        }
        progress.unsettled -= 1;
        if progress.unsettled == 0 {
            self.settled.notify_all();
        }
    }

    /// Records an error and cancels what is left; the chunk it happened in has still to be settled.
    pub(crate) fn fail(&self, failure: impl Into<Failure>) {
        let failure = failure.into();
        self.cancel();
        let mut progress = lock(&self.progress);
        progress.lost |= failure.error().leaves_memory_in_use();
        progress.error.get_or_insert(failure);
    }

    /// The job could not be handed to anyone: no chunk of it will be claimed.
    pub(crate) fn abort(&self, error: Error) {
        self.fail(error);
        lock(&self.progress).unsettled = 0;
    }

    /// Blocks until every chunk is settled.
    pub(crate) fn wait_settled(&self) {
        let mut progress = lock(&self.progress);
        while progress.unsettled > 0 {
            progress = wait(&self.settled, progress);
        }
    }

    /// Whether [`land`](Self::land) would not block.
    pub(crate) fn has_landed(&self) -> bool {
        let progress = lock(&self.progress);
        progress.unsettled == 0 && progress.marks.iter().all(|mark| mark.is_reached())
    }

    /// Blocks until the device is done with the job, lets go of what was kept, and tells the first error. Called once:
    /// by the handle, or by the reactor after the handle was dropped.
    pub(crate) fn land(&self) -> Result<(), Failure> {
        self.wait_settled();
        let marks = mem::take(&mut lock(&self.progress).marks);
        for mark in &marks {
            if let Err(error) = mark.settle(self.patience) {
                self.fail(Error::waiting("waiting for copies to land", error));
            }
        }
        let (keep, error) = {
            let mut progress = lock(&self.progress);
            let keep = progress.keep.take();
            progress.reserved = None;
            let keep = if progress.lost { self.leak(keep) } else { keep };
            (keep, progress.error.take())
        };
        // A job that was cancelled has left bytes out.
        if error.is_none() && !self.is_cancelled() {
            self.landing.set();
        }
        // Dropping tensors and device memory runs their owners' code: not under the lock.
        drop(keep);
        error.map_or(Ok(()), Err)
    }

    /// Forgets what a device may still use.
    fn leak(&self, keep: Option<Keep>) -> Option<Keep> {
        if let Some(keep) = keep {
            self.leaks.add(self.plan.bytes());
            keep.leak();
        }
        None
    }

    /// Makes `stream` wait for the device's part of the job, once every chunk is settled.
    pub(crate) fn fence(&self, stream: &Stream) -> Result<()> {
        self.wait_settled();
        let progress = lock(&self.progress);
        for mark in &progress.marks {
            mark.fence(stream)
                .map_err(|source| Error::driver("fencing a stream behind a transfer", source))?;
        }
        Ok(())
    }

    /// Sets who is woken when [`has_landed`](Self::has_landed) becomes true; the latest counts. Says whether nobody was
    /// to be woken before, or has been already: then someone has to be told to [`wake`](Self::wake).
    #[must_use = "somebody has to wake who waits"]
    pub(crate) fn set_waker(&self, waker: &Waker) -> bool {
        // Wakers are the caller's code: cloned and dropped outside the lock.
        let waker = waker.clone();
        let before = lock(&self.progress).waker.replace(waker);
        before.is_none()
    }

    /// Wakes who waits.
    pub(crate) fn wake(&self) {
        let waker = lock(&self.progress).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let (keep, begun) = {
            let mut progress = lock(&self.progress);
            (progress.keep.take(), progress.begun)
        };
        if begun {
            self.leak(keep);
        }
    }
}
