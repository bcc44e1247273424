//! The threads of one device's engine, and how a job is handed to them.

use std::{any::Any, fmt, io, mem};

use pinlane_driver::{
    fork,
    sync::{self, Arc, Mutex, lock, thread},
};

use super::{
    Route,
    engine::Engine,
    job::Job,
    lane::Lane,
    mark::LaneStream,
    plan::{Chunk, Direction, Plan, TAKEN_AT_ONCE, lanes_for, most_lanes},
    queue::Announcement,
    reactor::{Duty, perform},
};
use crate::{Error, Result};

/// The engine with its threads, which start at the first use and end when this is dropped.
pub(crate) struct RunningEngine {
    engine: Arc<Engine>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    to_device: Vec<thread::JoinHandle<()>>,
    to_host: Vec<thread::JoinHandle<()>>,
    reactor: Option<thread::JoinHandle<()>>,
}

impl fmt::Debug for RunningEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningEngine")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl Threads {
    fn lanes(&mut self, direction: Direction) -> &mut Vec<thread::JoinHandle<()>> {
        match direction {
            Direction::ToDevice | Direction::OnDevice => &mut self.to_device,
            Direction::ToHost => &mut self.to_host,
        }
    }
}

impl RunningEngine {
    /// An engine whose threads have not started.
    pub(crate) fn new(engine: Engine) -> Self {
        fork::watch();
        Self {
            engine: Arc::new(engine),
            threads: Mutex::default(),
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Starts a job: on the caller's thread where the plan says so, else by handing it to the lanes.
    ///
    /// With `blocking`, the caller is about to wait for it. Without, what would make the caller wait for the device is
    /// left to the lanes: slots to be emptied, copies that the driver stages itself and that it waits with, more chunks than
    /// there are slots.
    ///
    /// A job that comes after an event which has not fired must not hold up others. One for the caller's thread gets a
    /// stream of its own, if its slots are not the last. Of one for the lanes, to the device, slots are filled ahead, if all such
    /// jobs together take no more than half of them. Any other is not started before. `owner` is the device, kept by whoever waits
    /// for the event.
    pub(crate) fn start(
        &self,
        job: &Arc<Job>,
        blocking: bool,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<()> {
        job.begin();
        let plan = &job.plan;
        if plan.chunks.is_empty() {
            return Ok(());
        }
        let slotted = plan.chunks.iter().filter(|chunk| chunk.needs_slot()).count();
        let is_plain = |chunk: &Chunk| chunk.route == Route::Plain;
        let emptied = plan.chunks.iter().any(Chunk::is_staged) && !plan.stays_in_slot();
        let held_back = !job.may_start();
        let plain = plan.chunks.iter().filter(|chunk| is_plain(chunk));
        let plain: u64 = plain.map(|chunk| chunk.bytes as u64).sum();
        let waits = slotted > self.engine.slots.wanted()
            || match plan.direction() {
                Direction::ToHost => emptied || plain > 0,
                Direction::ToDevice | Direction::OnDevice => held_back && plain > TAKEN_AT_ONCE,
            };
        let inline = plan.is_inline() && (blocking || !waits);
        let spares_others = || inline && (slotted == 0 || slotted < self.engine.slots.available());
        let is_filled_ahead = || {
            let may_be = plan.direction() == Direction::ToDevice
                && !plan.chunks.iter().any(is_plain)
                && slotted <= self.engine.slots.available() / 2;
            let most = self.engine.slots.wanted() / 2;
            let reserved = may_be.then(|| self.engine.ahead.reserve(slotted, most))?;
            reserved.map(|reserved| job.hold_until_landed(reserved))
        };
        if held_back && !spares_others() && (inline || is_filled_ahead().is_none()) {
            if !blocking {
                self.start_lanes(plan)?;
                self.start_reactor()?;
                self.engine.reactor.watch(Arc::clone(job), Duty::Start, owner);
                return Ok(());
            }
            job.wait_until_it_may_start()?;
        }
        if inline {
            self.run_inline(job, held_back)
        } else {
            self.start_lanes(plan)?;
            let lanes = job.plan.pace.lanes - usize::from(blocking);
            self.engine
                .queues
                .of(plan.direction())
                .submit(Arc::clone(job), lanes);
            Ok(())
        }
    }

    /// Runs a job on the caller's thread. One that is held back on the device does not share its stream with others.
    fn run_inline(&self, job: &Arc<Job>, held_back: bool) -> Result<()> {
        let stream = if held_back {
            self.engine.new_stream()?
        } else {
            self.engine.take_spare_stream()?
        };
        let mut lane = self.callers_lane(job, stream);
        lane.run_whole(job);
        if !held_back {
            self.engine.put_spare_stream(lane.into_stream());
        }
        Ok(())
    }

    /// A lane that the caller drives for one job.
    fn callers_lane(&self, job: &Job, stream: Arc<LaneStream>) -> Lane {
        let direction = job.plan.direction();
        let index = self.engine.profile.lanes_for(direction);
        Lane::new(Arc::clone(&self.engine), direction, index, stream)
    }

    /// Has lanes look out for the chunks of a transfer that is being planned, of whose bytes so many may need a slot, where
    /// that is worth it.
    pub(crate) fn rouse(&self, direction: Direction, bytes: u64, blocking: bool) -> Option<Announcement<'_>> {
        let profile = &self.engine.profile;
        let worth_it = !fork::is_child()
            && bytes > profile.inline_bytes as u64
            && !profile.patience.is_zero()
            && !lock(&self.threads).lanes(direction).is_empty();
        let most = most_lanes(profile.lanes_for(direction), direction, false);
        let lanes = lanes_for(bytes, most) - usize::from(blocking);
        (worth_it && lanes > 0).then(|| self.engine.queues.of(direction).rouse(lanes))
    }

    /// Has the caller, who is about to wait for the job, take a lane's part in it.
    pub(crate) fn help(&self, job: &Arc<Job>) {
        let queue = self.engine.queues.of(job.plan.direction());
        if !queue.has(job) {
            return;
        }
        match self.engine.take_spare_stream() {
            Ok(stream) => {
                let mut lane = self.callers_lane(job, stream);
                lane.run_rest(job);
                self.engine.put_spare_stream(lane.into_stream());
            }
            Err(error) => {
                tracing::warn!(%error, "leaving a transfer to the lanes");
                queue.wake(job.plan.pace.lanes);
            }
        }
    }

    /// Does a duty at once where a job that has started has landed already. Else has the reactor look after it and keep
    /// `owner` until it is done; where no thread can be had, the caller does what the thread would.
    pub(crate) fn watch(&self, job: &Arc<Job>, duty: Duty, owner: Arc<dyn Any + Send + Sync>) {
        if job.has_landed() {
            return perform(job, duty, &self.engine.queues);
        }
        match self.start_reactor() {
            Ok(()) => self.engine.reactor.watch(Arc::clone(job), duty, owner),
            Err(error) => {
                tracing::warn!(%error, "waiting on the caller's thread instead");
                job.wait_settled();
                perform(job, duty, &self.engine.queues);
            }
        }
    }

    /// Starts the lanes of a direction at its first use; those that files alone need, when such a plan is the first to come.
    fn start_lanes(&self, plan: &Plan) -> Result<()> {
        let direction = plan.direction();
        let wanted = self.engine.profile.lanes_for(direction).max(plan.pace.lanes);
        let role = match direction {
            Direction::ToDevice | Direction::OnDevice => "up",
            Direction::ToHost => "down",
        };
        let mut threads = lock(&self.threads);
        let lanes = threads.lanes(direction);
        while lanes.len() < wanted {
            let index = lanes.len();
            let started = self.engine.new_stream().and_then(|stream| {
                let lane = Lane::new(Arc::clone(&self.engine), direction, index, stream);
                self.spawn(format!("{role}-{index}"), move || lane.serve())
            });
            match started {
                Ok(handle) => lanes.push(handle),
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
            threads.reactor =
                Some(self.spawn("reactor".to_owned(), move || engine.reactor.serve(&engine.queues))?);
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
    /// This may run on the reactor itself, when a retired job was the last to hold the device; a thread does not
    /// join itself, but ends soon after.
    ///
    /// In a forked child the threads are the parent's, and so is all that the engine holds: it is left as it is.
    fn drop(&mut self) {
        let threads = mem::take(sync::get_mut(&mut self.threads));
        if fork::is_child() {
            return mem::forget((threads, Arc::clone(&self.engine)));
        }
        self.engine.queues.close();
        threads
            .to_device
            .into_iter()
            .chain(threads.to_host)
            .for_each(join);
        self.engine.reactor.close();
        threads.reactor.into_iter().for_each(join);
    }
}

fn join(handle: thread::JoinHandle<()>) {
    if handle.thread().id() != thread::current().id() && handle.join().is_err() {
        tracing::error!("a thread of the engine panicked");
    }
}
