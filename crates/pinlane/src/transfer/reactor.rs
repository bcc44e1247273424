//! The reactor: one thread of a device that looks after transfers nobody blocks on.
//!
//! It wakes the tasks of awaited transfers, and it lands transfers whose handles were dropped, so that what they keep
//! is let go when the device is done with it. It asks and never blocks on one of them: a transfer behind a stalled
//! stream does not delay the others. With nothing to look after it sleeps.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
};

use pinlane_driver::sync::{Arc, Condvar, Duration, Mutex, lock, sleep, wait};

use super::job::Job;

/// How long to pause between rounds of asking, while transfers are in flight.
const PAUSE: Duration = Duration::from_micros(50);

/// Transfers to look after.
#[derive(Debug, Default)]
pub(crate) struct Reactor {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrived: Vec<Watched>,
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

/// What to do once a job has landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Wake the task that awaits it.
    Wake,
    /// Land it: its handle is gone.
    Retire,
}

impl Reactor {
    /// Takes a job on. `owner` is let go when the duty is done.
    pub(crate) fn watch(&self, job: Arc<Job>, duty: Duty, owner: Arc<dyn Any + Send + Sync>) {
        let watched = Watched {
            job,
            duty,
            _owner: owner,
        };
        lock(&self.state).arrived.push(watched);
        self.changed.notify_one();
    }

    /// Lets the thread go once every job it has taken on is done with.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_one();
    }

    /// What the thread does.
    pub(crate) fn serve(&self) {
        let mut watched = Vec::new();
        while self.take_arrived(&mut watched) {
            watched.retain(|Watched { job, duty, .. }: &Watched| {
                if !job.has_landed() {
                    return true;
                }
                // Wakers and the owners of foreign memory are the caller's code: where it panics, the others must not
                // lose their reactor.
                if panic::catch_unwind(AssertUnwindSafe(|| perform(job, *duty))).is_err() {
                    tracing::error!("a waker, or the owner of a tensor's memory, panicked");
                }
                false
            });
            if !watched.is_empty() {
                sleep(PAUSE);
            }
        }
    }

    /// Moves arrivals to `watched`, sleeping while there is nothing at all; false when closed and done.
    fn take_arrived(&self, watched: &mut Vec<Watched>) -> bool {
        let mut state = lock(&self.state);
        while watched.is_empty() && state.arrived.is_empty() {
            if state.closed {
                return false;
            }
            state = wait(&self.changed, state);
        }
        watched.append(&mut state.arrived);
        true
    }
}

pub(crate) fn perform(job: &Job, duty: Duty) {
    match duty {
        Duty::Wake => job.wake(),
        Duty::Retire => {
            if let Err(error) = job.land() {
                tracing::warn!(%error, "a transfer whose handle was dropped failed");
            }
        }
    }
}
