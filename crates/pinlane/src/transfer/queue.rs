//! The queues that lanes claim chunks from: jobs take turns, a chunk at a time, so that a huge transfer delays a small
//! one by no more than the chunks already claimed. Each direction has a queue and lanes of its own, as the link has: lanes
//! that wait for copies to the host would otherwise keep the way to the device idle.
//!
//! Waking a thread takes tens of microseconds until it runs, and some of the waker's own. So a caller that is about to
//! plan more than its own thread will carry [rouses](Queue::rouse) lanes beforehand, which then look out for chunks for a
//! while; and it wakes two, each of which wakes two more.

use std::collections::VecDeque;

use pinlane_driver::sync::{
    Arc, Condvar, Duration, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
    lock, spin, wait,
};

use super::{job::Job, plan::Direction};

/// How many lanes whoever is awake wakes at once.
const WAKES: usize = 2;
/// How long a lane looks out for chunks that were announced: what planning thousands of tensors takes.
const LOOKOUT: Duration = Duration::from_micros(300);

/// The queues of a device.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    to_device: Queue,
    to_host: Queue,
}

impl Queues {
    /// The queue for jobs in this direction.
    pub(crate) fn of(&self, direction: Direction) -> &Queue {
        match direction {
            Direction::ToDevice | Direction::OnDevice => &self.to_device,
            Direction::ToHost => &self.to_host,
        }
    }

    /// Lets all lanes go once what is queued has been claimed.
    pub(crate) fn close(&self) {
        self.to_device.close();
        self.to_host.close();
    }
}

/// Jobs of one direction with chunks that no lane has claimed.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    /// Jobs that are being planned, for which lanes look out.
    announced: AtomicUsize,
    /// Jobs ever submitted.
    submitted: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Lanes that are still to be woken, by those that are awake.
    to_wake: usize,
    asleep: usize,
    /// Of those asleep, lanes that were notified.
    waking: usize,
    /// Lanes that are awake and look out for what was announced.
    looking_out: usize,
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

/// While it lives, lanes look out for chunks.
#[derive(Debug)]
pub(crate) struct Announcement<'a>(&'a Queue);

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.0.announced.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// Adds a job with at least one chunk, and has up to `lanes` lanes woken for it: those that come late find nothing.
    pub(crate) fn submit(&self, job: Arc<Job>, lanes: usize) {
        let lanes = lanes.min(job.plan.chunks.len());
        let mut state = lock(&self.state);
        state.waiting.push_back(Waiting { job, next: 0 });
        self.submitted.fetch_add(1, Ordering::Relaxed);
        self.wake_up_to(lanes, &mut state);
    }

    /// Has up to `lanes` lanes woken.
    pub(crate) fn wake(&self, lanes: usize) {
        self.wake_up_to(lanes, &mut lock(&self.state));
    }

    /// Those on their way count: more lanes than a job wants would take the memory bus from others.
    fn wake_up_to(&self, lanes: usize, state: &mut MutexGuard<'_, State>) {
        let coming = state.looking_out + state.waking;
        state.to_wake = state.to_wake.max(lanes.saturating_sub(coming));
        self.wake_some(state);
    }

    /// Has up to `lanes` lanes woken, which look out for chunks until the announcement is dropped, or for a short while.
    pub(crate) fn rouse(&self, lanes: usize) -> Announcement<'_> {
        self.announced.fetch_add(1, Ordering::Relaxed);
        self.wake(lanes);
        Announcement(self)
    }

    fn wake_some(&self, state: &mut MutexGuard<'_, State>) {
        state.to_wake = state.to_wake.min(state.asleep - state.waking);
        for _ in 0..WAKES.min(state.to_wake) {
            state.to_wake -= 1;
            state.waking += 1;
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
        let mut looks_out = true;
        loop {
            self.wake_some(&mut state);
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
            if looks_out && self.announced.load(Ordering::Relaxed) > 0 {
                let before = self.submitted.load(Ordering::Relaxed);
                state.looking_out += 1;
                drop(state);
                looks_out = spin(LOOKOUT, || {
                    self.submitted.load(Ordering::Relaxed) != before
                        || self.announced.load(Ordering::Relaxed) == 0
                });
                state = lock(&self.state);
                state.looking_out -= 1;
            } else {
                state.asleep += 1;
                state = wait(&self.filled, state);
                state.asleep -= 1;
                // One that woke by itself takes the place of one that was notified.
                state.waking = state.waking.saturating_sub(1).min(state.asleep);
                looks_out = true;
            }
        }
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
    }
}
