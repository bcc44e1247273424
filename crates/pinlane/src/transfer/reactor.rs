//! The reactor: one thread of a device that looks after transfers nobody blocks on.
//!
//! It wakes the tasks of awaited transfers; it lands transfers whose handles were dropped, so that what they keep is let
//! go when the device is done with it; and it hands transfers to the lanes when the event that they come after has fired.
//! It asks and never blocks on one of them: a transfer behind a stalled stream does not delay the others. It asks less and
//! less often while nothing changes; with nothing to look after it sleeps.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
};

use pinlane_driver::sync::{Arc, Condvar, Duration, Instant, Mutex, lock, wait, wait_for};

use super::{job::Job, queue::Queues};

/// How long to pause after a round of asking that changed something.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
/// How long to pause at most.
const LONGEST_PAUSE: Duration = Duration::from_micros(500);

/// Transfers to look after.
#[derive(Debug, Default)]
pub(crate) struct Reactor {
    state: Mutex<State>,
    changed: Condvar,
    /// Notified when a transfer whose handle was dropped has landed.
    retired: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrived: Vec<Watched>,
    /// Transfers whose handles were dropped and that have not landed.
    retiring: usize,
    closed: bool,
}

/// A job that is looked after.
#[derive(Debug)]
struct Watched {
    job: Arc<Job>,
    duty: Duty,
    /// The device: it must not end, which would wait for its last copies, where a handle is dropped.
    _owner: Arc<dyn Any + Send + Sync>,
}

/// What to do with a job, once it has landed or, to start it, may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Wake the task that awaits it.
    Wake,
    /// Land it: its handle is gone.
    Retire,
    /// Hand it to the lanes.
    Start,
}

impl Reactor {
    /// Takes a job on. `owner` is let go when the duty is done.
    pub(crate) fn watch(&self, job: Arc<Job>, duty: Duty, owner: Arc<dyn Any + Send + Sync>) {
        let watched = Watched {
            job,
            duty,
            _owner: owner,
        };
        let mut state = lock(&self.state);
        state.retiring += usize::from(duty == Duty::Retire);
        state.arrived.push(watched);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until no transfer whose handle was dropped is on its way, for so long at most; says whether there was one at
    /// the start.
    pub(crate) fn drain(&self, patience: Duration) -> bool {
        let start = Instant::now();
        let mut some = false;
        loop {
            let state = lock(&self.state);
            let rest = patience.saturating_sub(start.elapsed());
            if state.retiring == 0 || rest.is_zero() {
                return some;
            }
            some = true;
            wait_for(&self.retired, state, rest);
        }
    }

    /// Lets the thread go once every job it has taken on is done with.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_one();
    }

    /// What the thread does. Jobs to start go to `queues`.
    pub(crate) fn serve(&self, queues: &Queues) {
        let mut watched = Vec::new();
        let mut pause = SHORTEST_PAUSE;
        while let Some(arrived) = self.take_arrived(&mut watched) {
            let before = watched.len();
            let mut retired = 0;
            watched.retain(|watched: &Watched| {
                let is_done = watched.is_done(queues);
                retired += usize::from(is_done && watched.duty == Duty::Retire);
                !is_done
            });
            if retired > 0 {
                lock(&self.state).retiring -= retired;
                self.retired.notify_all();
            }
            if watched.is_empty() {
                continue;
            }
            let changed = arrived || watched.len() < before;
            pause = if changed {
                SHORTEST_PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            self.rest(pause);
        }
    }

    /// Pauses, or less if something arrives.
    fn rest(&self, pause: Duration) {
        let state = lock(&self.state);
        if state.arrived.is_empty() {
            wait_for(&self.changed, state, pause);
        }
    }

    /// Moves arrivals to `watched`, sleeping while there is nothing at all, and says whether there were any; `None` when
    /// closed and done.
    fn take_arrived(&self, watched: &mut Vec<Watched>) -> Option<bool> {
        let mut state = lock(&self.state);
        while watched.is_empty() && state.arrived.is_empty() {
            if state.closed {
                return None;
            }
            state = wait(&self.changed, state);
        }
        let arrived = !state.arrived.is_empty();
        watched.append(&mut state.arrived);
        Some(arrived)
    }
}

impl Watched {
    /// Does the duty if its time has come; says whether it has.
    fn is_done(&self, queues: &Queues) -> bool {
        let is_due = match self.duty {
            Duty::Wake | Duty::Retire => self.job.has_landed(),
            Duty::Start => self.job.may_start(),
        };
        // Wakers and the owners of foreign memory are the caller's code: where it panics, the others must not lose their
        // reactor.
        if is_due && panic::catch_unwind(AssertUnwindSafe(|| perform(&self.job, self.duty, queues))).is_err()
        {
            tracing::error!("a waker, or the owner of a tensor's memory, panicked");
        }
        is_due
    }
}

pub(crate) fn perform(job: &Arc<Job>, duty: Duty, queues: &Queues) {
    match duty {
        Duty::Wake => job.wake(),
        Duty::Retire => retire(job),
        Duty::Start => queues
            .of(job.plan.direction())
            .submit(Arc::clone(job), job.plan.pace.lanes),
    }
}

/// Waits for a job whose handle was dropped, and lets go of what it keeps.
pub(crate) fn retire(job: &Job) {
    if let Err(failure) = job.land() {
        let error = failure.named(|leaf| format!("#{leaf}"));
        tracing::warn!(%error, "a transfer whose handle was dropped failed");
    }
}
