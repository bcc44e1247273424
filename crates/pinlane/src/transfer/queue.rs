//! The queue that lanes claim chunks from: jobs take turns, a chunk at a time, so that a huge transfer delays a small
//! one by no more than the chunks already claimed.

use std::collections::VecDeque;

use pinlane_driver::sync::{Arc, Condvar, Mutex, lock, wait};

use super::job::Job;

/// Jobs with chunks that no lane has claimed.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    job: Arc<Job>,
    next: usize,
}

/// What a lane gets.
#[derive(Debug)]
pub(crate) enum Claim {
    /// A chunk, by its index, and the job it is of.
    Chunk(Arc<Job>, usize),
    /// Nothing at the moment.
    Empty,
    /// Nothing now or ever: the queue is closed and drained.
    Closed,
}

impl Queue {
    /// Adds a job with at least one chunk, and wakes up to `lanes` lanes for it: each costs the caller a system call, and
    /// those that come late find nothing.
    pub(crate) fn submit(&self, job: Arc<Job>, lanes: usize) {
        let lanes = lanes.min(job.plan.chunks.len());
        lock(&self.state).waiting.push_back(Waiting { job, next: 0 });
        self.wake(lanes);
    }

    /// Wakes up to `lanes` lanes.
    pub(crate) fn wake(&self, lanes: usize) {
        for _ in 0..lanes {
            self.filled.notify_one();
        }
    }

    /// Whether the job has chunks that nobody has claimed.
    pub(crate) fn has(&self, job: &Arc<Job>) -> bool {
        let state = lock(&self.state);
        state.waiting.iter().any(|waiting| Arc::ptr_eq(&waiting.job, job))
    }

    /// Claims a chunk of one job, whosever turn it is: for the caller who waits for that job alone.
    pub(crate) fn claim_of(&self, job: &Arc<Job>) -> Option<usize> {
        let mut state = lock(&self.state);
        let at = state
            .waiting
            .iter()
            .position(|waiting| Arc::ptr_eq(&waiting.job, job))?;
        let waiting = &mut state.waiting[at];
        let chunk = waiting.next;
        waiting.next += 1;
        if waiting.next == job.plan.chunks.len() {
            state.waiting.remove(at);
        }
        Some(chunk)
    }

    /// Claims a chunk of the job whose turn it is. With `may_block`, sleeps until there is one.
    pub(crate) fn claim(&self, may_block: bool) -> Claim {
        let mut state = lock(&self.state);
        loop {
            if let Some(mut waiting) = state.waiting.pop_front() {
                let (job, chunk) = (Arc::clone(&waiting.job), waiting.next);
                waiting.next += 1;
                if waiting.next < job.plan.chunks.len() {
                    state.waiting.push_back(waiting);
                }
                return Claim::Chunk(job, chunk);
            }
            if state.closed {
                return Claim::Closed;
            }
            if !may_block {
                return Claim::Empty;
            }
            state = wait(&self.filled, state);
        }
    }

    /// Lets lanes go once what is queued has been claimed.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
    }
}
