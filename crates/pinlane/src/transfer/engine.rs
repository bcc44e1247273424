//! The engine of one device: what lanes share, the threads, and how a job is handed to them.

use std::{fmt, io};

use pinlane_driver::{
    Driver, Stream,
    sync::{Arc, Mutex, lock, thread},
};

use super::{
    Route,
    job::Job,
    lane::Lane,
    leaks::Leaks,
    mark::{Events, LaneStream},
    plan::Direction,
    queue::Queue,
    reactor::{Duty, Reactor},
};
use crate::{
    Error, Profile, Result,
    memory::{pool::PinnedPool, slots::Slots},
};

/// What lanes share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) pool: Arc<PinnedPool>,
    pub(crate) slots: Slots,
    pub(crate) queue: Queue,
    pub(crate) profile: Profile,
    pub(crate) leaks: Arc<Leaks>,
    reactor: Reactor,
    events: Arc<Events>,
    /// Streams for callers who do their own small work.
    spare: Mutex<Vec<Arc<LaneStream>>>,
}

/// The engine with its threads, which start at the first use and end when this is dropped.
pub(crate) struct RunningEngine {
    engine: Arc<Engine>,
    lanes: usize,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    lanes: Vec<thread::JoinHandle<()>>,
    reactor: Option<thread::JoinHandle<()>>,
}

impl fmt::Debug for RunningEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningEngine")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl Engine {
    fn new_stream(&self) -> Result<Arc<LaneStream>> {
        let stream =
            Stream::new(&self.driver).map_err(|source| Error::driver("making a lane's stream", source))?;
        Ok(LaneStream::new(stream, Arc::clone(&self.events)))
    }
}

impl RunningEngine {
    /// An engine with `lanes` lanes and `slots` slots of the profile's size, out of a pinned budget.
    pub(crate) fn new(
        driver: Arc<dyn Driver>,
        profile: Profile,
        pool: Arc<PinnedPool>,
        slots: usize,
    ) -> Self {
        let lanes = profile.lanes;
        let engine = Engine {
            slots: Slots::new(&pool, profile.slot_bytes, slots),
            driver,
            pool,
            queue: Queue::default(),
            profile,
            leaks: Arc::default(),
            reactor: Reactor::default(),
            events: Arc::default(),
            spare: Mutex::default(),
        };
        Self {
            engine: Arc::new(engine),
            lanes,
            threads: Mutex::default(),
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Starts a job: on the caller's thread where the plan says so, else by handing it to the lanes.
    ///
    /// With `blocking`, the caller is about to wait for it. Without, what would make the caller wait for the device is
    /// left to the lanes: slots to be emptied, copies that the driver stages itself, more chunks than there are slots.
    pub(crate) fn start(&self, job: &Arc<Job>, blocking: bool) -> Result<()> {
        let plan = &job.plan;
        if plan.chunks.is_empty() {
            return Ok(());
        }
        let slotted = plan.chunks.iter().filter(|chunk| chunk.needs_slot()).count();
        let waits = slotted > self.engine.slots.wanted()
            || plan.direction() == Direction::ToHost
                && (slotted > 0 || plan.chunks.iter().any(|chunk| chunk.route == Route::Plain));
        if plan.is_inline() && (blocking || !waits) {
            self.run_inline(job)
        } else {
            self.start_lanes()?;
            self.engine.queue.submit(Arc::clone(job));
            Ok(())
        }
    }

    fn run_inline(&self, job: &Arc<Job>) -> Result<()> {
        let known = lock(&self.engine.spare).pop();
        let stream = match known {
            Some(stream) => stream,
            None => self.engine.new_stream()?,
        };
        let mut lane = Lane::new(Arc::clone(&self.engine), self.lanes, stream);
        lane.run_whole(job);
        lock(&self.engine.spare).push(lane.into_stream());
        Ok(())
    }

    /// Has the reactor look after a job. Where no thread can be had, the caller does what the thread would.
    pub(crate) fn watch(&self, job: &Arc<Job>, duty: Duty) {
        match self.start_reactor() {
            Ok(()) => self.engine.reactor.watch(Arc::clone(job), duty),
            Err(error) => {
                tracing::warn!(%error, "waiting on the caller's thread instead");
                job.wait_settled();
                super::reactor::perform(job, duty);
            }
        }
    }

    fn start_lanes(&self) -> Result<()> {
        let mut threads = lock(&self.threads);
        while threads.lanes.len() < self.lanes {
            let index = threads.lanes.len();
            let started = self.engine.new_stream().and_then(|stream| {
                let lane = Lane::new(Arc::clone(&self.engine), index, stream);
                self.spawn(format!("lane-{index}"), move || lane.serve())
            });
            match started {
                Ok(handle) => threads.lanes.push(handle),
                // Fewer lanes are slower; none can do nothing.
                Err(error) if index > 0 => {
                    tracing::warn!(%error, lanes = index, "going on with fewer lanes");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn start_reactor(&self) -> Result<()> {
        let mut threads = lock(&self.threads);
        if threads.reactor.is_none() {
            let engine = Arc::clone(&self.engine);
            threads.reactor = Some(self.spawn("reactor".to_owned(), move || engine.reactor.serve())?);
        }
        Ok(())
    }

    fn spawn(&self, role: String, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
        let name = format!("{}-{role}", self.engine.driver.properties().id);
        let spawned: io::Result<_> = thread::Builder::new().name(name.clone()).spawn(body);
        spawned.map_err(|source| Error::Thread { name, source })
    }
}

impl Drop for RunningEngine {
    /// Ends the threads once what they were given is done: lanes first, because the reactor waits for their chunks.
    ///
    /// This may run on the reactor itself, when a retired job held the last tensor of the device; a thread does not
    /// join itself, but ends soon after.
    fn drop(&mut self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        self.engine.queue.close();
        threads.lanes.into_iter().for_each(join);
        self.engine.reactor.close();
        threads.reactor.into_iter().for_each(join);
    }
}

fn join(handle: thread::JoinHandle<()>) {
    if handle.thread().id() != thread::current().id() && handle.join().is_err() {
        tracing::error!("a thread of the engine panicked");
    }
}
