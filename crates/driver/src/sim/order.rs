//! Streams: who may start when.
//!
//! A stream is a queue of operations. Its head starts when everything before it is done:
//!
//! - a *record* fires its ticket, a *wait* stands until its ticket has fired: both are handled here, under the lock;
//! - *work* is given to an engine, and the stream stands until the engine hands it back
//!   ([`State::finish`]). The members of a batch run side by side.
//!
//! A stream is *sound* or *failed*. Work that fails, or a wait for a ticket that failed, makes it failed; from then
//! on work is skipped and records fire with the failure, until someone synchronises with the stream and so learns of
//! it. A destroyed stream stays until its queue is empty. Once the device is lost nothing starts any more.

use std::collections::VecDeque;

use super::{
    arena::Key,
    scatter,
    state::{Finished, State, device_id, error},
    tickets::{Failure, Outcome},
    work::{End, Home, Job, Mishap, Work},
};
use crate::{
    ErrorKind,
    sync::{Arc, Instant},
};

/// One entry of a stream's queue.
#[derive(Debug)]
pub(super) enum Op {
    Record { ticket: Key, at: Instant },
    Wait { ticket: Key },
    Run(Job),
    Batch(Vec<Job>),
}

#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) device: usize,
    queue: VecDeque<Op>,
    /// Jobs of this stream that engines have and have not handed back.
    running: usize,
    failure: Option<Failure>,
    /// When the last operation was done, as the device reckons it.
    clock: Instant,
    /// Guards that keep this stream from starting anything.
    pub(super) stalls: u32,
    pub(super) destroyed: bool,
}

impl StreamState {
    pub(super) fn new(device: usize) -> Self {
        Self {
            device,
            queue: VecDeque::new(),
            running: 0,
            failure: None,
            clock: Instant::now(),
            stalls: 0,
            destroyed: false,
        }
    }

    fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.running == 0
    }
}

impl State {
    /// Puts an operation at the end of a stream, and starts what can start.
    pub(super) fn enqueue(&mut self, stream: Key, op: Op) {
        for job in op.jobs() {
            self.hold(&job.work);
        }
        let known = self.streams.get_mut(stream);
        let known = known.expect("the caller looked the stream up under the same lock");
        known.queue.push_back(op);
        self.start(stream);
    }

    /// Enqueues a record for a ticket with `holders` holders besides the record itself.
    pub(super) fn enqueue_record(&mut self, stream: Key, holders: u32) -> Key {
        let ticket = self.tickets.issue(holders + 1);
        let at = Instant::now();
        self.enqueue(stream, Op::Record { ticket, at });
        ticket
    }

    /// A ticket, held for the caller, for the end of what is enqueued on `stream`; nothing if all is done.
    pub(super) fn end_of(&mut self, stream: Key) -> Option<Key> {
        let drained = self.streams.get(stream).is_none_or(StreamState::is_drained);
        (!drained).then(|| self.enqueue_record(stream, 1))
    }

    /// What failed on the stream; it is sound again afterwards. With `known`, only that failure is cleared: work
    /// enqueued since may have failed for another reason.
    pub(super) fn take_failure(&mut self, stream: Key, known: Option<&Failure>) -> Option<Failure> {
        let failure = &mut self.streams.get_mut(stream)?.failure;
        match (known, &failure) {
            (Some(known), Some(found)) if !Arc::ptr_eq(known, found) => None,
            _ => failure.take(),
        }
    }

    /// Ends a stream once its work is done.
    pub(super) fn destroy_stream(&mut self, stream: Key) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.destroyed = true;
            self.devices[state.device].streams -= 1;
            self.start(stream);
        }
    }

    /// Starts what can start on `stream`, and on every stream which that sets free.
    pub(super) fn start(&mut self, stream: Key) {
        self.runnable.push(stream);
        while let Some(stream) = self.runnable.pop() {
            while self.advance(stream) {}
        }
    }

    /// Handles the head of the stream's queue; says whether there may be a next one to handle.
    fn advance(&mut self, key: Key) -> bool {
        let Some(stream) = self.streams.get_mut(key) else {
            return false;
        };
        let device = &self.devices[stream.device];
        let held_back = stream.stalls > 0 || device.stalls > 0 || device.lost.is_some();
        if stream.running > 0 || (held_back && !stream.queue.is_empty()) {
            return false;
        }
        if let Some(Op::Wait { ticket }) = stream.queue.front()
            && self.tickets.outcome(*ticket).is_none()
        {
            self.tickets.tell_stream(*ticket, key);
            return false;
        }
        match stream.queue.pop_front() {
            None => {
                if stream.destroyed {
                    self.streams.remove(key);
                }
                return false;
            }
            Some(Op::Record { ticket, at }) => {
                stream.clock = stream.clock.max(at);
                let outcome = Outcome {
                    at: stream.clock,
                    result: stream.failure.clone().map_or(Ok(()), Err),
                };
                self.fire(ticket, outcome);
            }
            Some(Op::Wait { ticket }) => self.pass_wait(key, ticket),
            Some(Op::Run(job)) => self.dispatch(key, job),
            Some(Op::Batch(jobs)) => jobs.into_iter().for_each(|job| self.dispatch(key, job)),
        }
        true
    }

    /// Takes note of a fired ticket that the stream waited for.
    fn pass_wait(&mut self, key: Key, ticket: Key) {
        if let (Some(stream), Some(outcome)) = (self.streams.get_mut(key), self.tickets.outcome(ticket)) {
            stream.clock = stream.clock.max(outcome.at);
            if let Err(failure) = &outcome.result
                && stream.failure.is_none()
            {
                stream.failure = Some(as_seen_from(stream.device, failure));
            }
        }
        self.tickets.release(ticket);
    }

    /// Gives a job to its engine, or skips it where the stream has failed.
    fn dispatch(&mut self, key: Key, mut job: Job) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if stream.failure.is_some() {
            self.release(job.work);
            return;
        }
        stream.running += 1;
        job.ready_at = job.ready_at.max(stream.clock);
        let ordinal = stream.device;
        if self.touches_lost_device(&job.work) {
            job.mishap = Some(Mishap::Fails);
        }
        let device = &mut self.devices[ordinal];
        let engine = match job.work {
            Work::Copy { direction, .. } => device.copy_engine(direction),
            Work::Scatter { .. } | Work::Fill { .. } | Work::Convert(_) | Work::Busy(_) => {
                device.compute_engine()
            }
        };
        let mailbox = &mut device.engines[engine];
        mailbox.queue.push_back(job);
        if std::mem::take(&mut mailbox.idle) {
            self.wakes.push(Arc::clone(&mailbox.wake));
        }
    }

    /// Takes back a job that an engine of `device` is through with.
    pub(super) fn finish(&mut self, device: usize, finished: Finished) {
        let key = finished.job.stream;
        self.release(finished.job.work);
        if self.devices[device].lost.is_some() {
            return;
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.running -= 1;
        stream.clock = stream.clock.max(finished.at);
        if let Err(error) = finished.result
            && stream.failure.is_none()
        {
            stream.failure = Some(Arc::new(error));
        }
        if stream.running == 0 {
            self.start(key);
        }
    }

    /// Loses a device: what is enqueued on it is abandoned, and whoever waits for that learns why. Memory that
    /// abandoned work would have used stays held for ever.
    pub(super) fn lose(&mut self, device: usize, why: &Failure) {
        self.devices[device].lost = Some(Arc::clone(why));
        for engine in &mut self.devices[device].engines {
            engine.queue.clear();
            self.wakes.push(Arc::clone(&engine.wake));
        }
        for key in self.streams.keys() {
            let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.device == device) else {
                continue;
            };
            stream.running = 0;
            stream.failure = Some(Arc::clone(why));
            for op in std::mem::take(&mut stream.queue) {
                match op {
                    Op::Record { ticket, at } => self.fire(
                        ticket,
                        Outcome {
                            at,
                            result: Err(Arc::clone(why)),
                        },
                    ),
                    Op::Wait { ticket } => self.tickets.release(ticket),
                    Op::Run(_) | Op::Batch(_) => {}
                }
            }
            self.start(key);
        }
    }

    fn fire(&mut self, ticket: Key, outcome: Outcome) {
        let waiting = self.tickets.fire(ticket, outcome);
        self.runnable.extend(waiting.streams);
        self.wakes.extend(waiting.threads);
        self.tickets.release(ticket);
    }

    fn touches_lost_device(&self, work: &Work) -> bool {
        let lost =
            |end: &End| matches!(end.home, Home::Device(device) if self.devices[device].lost.is_some());
        match work {
            Work::Copy { dst, src, .. } => lost(dst) || lost(src),
            Work::Scatter { pieces, .. } => pieces.iter().any(|piece| lost(&piece.dst) || lost(&piece.src)),
            Work::Fill { dst, .. } => lost(dst),
            Work::Convert(elements) => lost(&elements.dst) || lost(&elements.src),
            Work::Busy(_) => false,
        }
    }

    fn hold(&mut self, work: &Work) {
        let mut hold = |end: &End, bytes| match end.home {
            Home::Device(device) => self.devices[device].memory.hold(end.address() as u64),
            Home::Pinned => self.pinned.hold(end.address(), bytes),
            Home::Bounce(..) => {}
        };
        match work {
            Work::Copy { dst, src, bytes, .. } => {
                hold(dst, *bytes);
                hold(src, *bytes);
            }
            Work::Scatter { table, pieces } => {
                hold(table, scatter::table_bytes(pieces));
                for piece in pieces {
                    hold(&piece.dst, piece.bytes);
                    hold(&piece.src, piece.bytes);
                }
            }
            Work::Fill { dst, bytes, .. } => hold(dst, *bytes),
            Work::Convert(elements) => {
                hold(&elements.dst, elements.dst_bytes());
                hold(&elements.src, elements.src_bytes());
            }
            Work::Busy(_) => {}
        }
    }

    fn release(&mut self, work: Work) {
        let mut release = |end: End, bytes| match end.home {
            Home::Device(device) => self.devices[device].memory.release(end.ptr.addr() as u64),
            Home::Pinned => self.pinned.release(end.ptr.addr(), bytes),
            Home::Bounce(device, bounce) => self.give_back_bounce(device, bounce),
        };
        match work {
            Work::Copy { dst, src, bytes, .. } => {
                release(dst, bytes);
                release(src, bytes);
            }
            Work::Scatter { table, pieces } => {
                release(table, scatter::table_bytes(&pieces));
                for piece in pieces {
                    release(piece.dst, piece.bytes);
                    release(piece.src, piece.bytes);
                }
            }
            Work::Fill { dst, bytes, .. } => release(dst, bytes),
            Work::Convert(elements) => {
                let [dst, src] = [elements.dst_bytes(), elements.src_bytes()];
                release(elements.dst, dst);
                release(elements.src, src);
            }
            Work::Busy(_) => {}
        }
    }
}

impl Op {
    fn jobs(&self) -> &[Job] {
        match self {
            Self::Run(job) => std::slice::from_ref(job),
            Self::Batch(jobs) => jobs,
            Self::Record { .. } | Self::Wait { .. } => &[],
        }
    }
}

/// A failure on one device, for a stream of another: the loss of one is no loss of the other.
fn as_seen_from(device: usize, failure: &Failure) -> Failure {
    if failure.kind() != ErrorKind::DeviceLost || failure.device() == device_id(device) {
        return Arc::clone(failure);
    }
    let message = format!("work was skipped because it waited for a device that was lost ({failure})");
    Arc::new(error(device, ErrorKind::CopyFailed, message))
}
