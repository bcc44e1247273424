//! Everything that a machine's one lock guards, and the lock itself.
//!
//! Whoever changes the state does so inside [`Core::with`]. What that sets free to run is dispatched before the lock
//! is given back (see [`order`](super::order)), and the threads to wake are woken after it, each on its own condition
//! variable: nobody wakes for nothing.

use std::collections::VecDeque;

use super::{
    MachineConfig,
    allocations::{Allocations, Block},
    arena::{Arena, Key},
    fault::{Fault, Faults, Step},
    order::StreamState,
    pinned::PinnedRanges,
    tickets::{Failure, Outcome, Tickets},
    work::{Direction, Job, Mishap},
};
use crate::{
    Backend, DeviceId, Error, ErrorKind, Result, Timing,
    sync::{self, Arc, Condvar, Mutex},
};

/// Bounce buffers that a device keeps for the next pageable copy.
const SPARE_BOUNCE_BUFFERS: usize = 4;

pub(super) fn device_id(ordinal: usize) -> DeviceId {
    DeviceId {
        backend: Backend::Sim,
        ordinal: ordinal as u32,
    }
}

pub(super) fn error(ordinal: usize, kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, device_id(ordinal), message)
}

/// One engine thread's mailbox.
#[derive(Debug)]
pub(super) struct EngineState {
    pub(super) queue: VecDeque<Job>,
    pub(super) idle: bool,
    pub(super) wake: Arc<Condvar>,
}

#[derive(Debug)]
pub(super) struct EventState {
    pub(super) device: usize,
    pub(super) timing: Timing,
    pub(super) latest: Option<Key>,
}

#[derive(Debug)]
pub(super) struct DeviceState {
    pub(super) memory: Allocations,
    /// The copy engines, and last the compute engine.
    pub(super) engines: Vec<EngineState>,
    pub(super) faults: Faults,
    pub(super) lost: Option<Failure>,
    /// Guards that keep the whole device from starting anything.
    pub(super) stalls: u32,
    pub(super) spare_bounce: Vec<Arc<Block>>,
    pub(super) streams: usize,
    pub(super) events: usize,
    /// Times that memory was freed or unpinned while enqueued work still used it.
    pub(super) freed_in_use: u64,
}

impl DeviceState {
    /// The engine that runs copies in `direction`. Copies on the device go to the last copy engine.
    pub(super) fn copy_engine(&self, direction: Direction) -> usize {
        let last = self.engines.len() - 2;
        match direction {
            Direction::Up => 0,
            Direction::Down => last.min(1),
            Direction::Across => last,
        }
    }

    pub(super) fn compute_engine(&self) -> usize {
        self.engines.len() - 1
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) devices: Vec<DeviceState>,
    pub(super) streams: Arena<StreamState>,
    pub(super) events: Arena<EventState>,
    pub(super) tickets: Tickets,
    pub(super) pinned: PinnedRanges,
    /// Streams whose head may be able to start.
    pub(super) runnable: Vec<Key>,
    /// Condition variables to notify when the lock has been given back.
    pub(super) wakes: Vec<Arc<Condvar>>,
    pub(super) shutdown: bool,
}

impl State {
    fn new(config: &MachineConfig) -> Self {
        let devices = config.devices.iter().map(|device| DeviceState {
            memory: Allocations::new(device.memory_bytes),
            engines: (0..=device.copy_engines.count())
                .map(|_| EngineState {
                    queue: VecDeque::new(),
                    idle: false,
                    wake: Arc::new(Condvar::new()),
                })
                .collect(),
            faults: Faults::new(device.faults.clone()),
            lost: None,
            stalls: 0,
            spare_bounce: Vec::new(),
            streams: 0,
            events: 0,
            freed_in_use: 0,
        });
        Self {
            devices: devices.collect(),
            streams: Arena::new(),
            events: Arena::new(),
            tickets: Tickets::new(),
            pinned: PinnedRanges::new(config.pin_limit),
            runnable: Vec::new(),
            wakes: Vec::new(),
            shutdown: false,
        }
    }

    /// The first thing that every call does: counts it, lets the fault plan have its way, and fails when the device
    /// is lost. What the plan has in store for work that the call enqueues is the result.
    pub(super) fn enter(&mut self, device: usize, step: Step) -> Result<Option<Mishap>> {
        let state = &mut self.devices[device];
        let fault = state.faults.call(step);
        if let Some(lost) = &state.lost {
            return Err(Error::clone(lost));
        }
        let (kind, what) = match fault {
            None => return Ok(None),
            Some(Fault::CopyFailed) => return Ok(Some(Mishap::Fails)),
            Some(Fault::Late(by)) => return Ok(Some(Mishap::Late(by))),
            Some(Fault::DeviceLost) => {
                let lost = error(
                    device,
                    ErrorKind::DeviceLost,
                    format!("{step:?}: the fault plan lost the device; make a new machine"),
                );
                self.lose(device, &Arc::new(lost.clone()));
                return Err(lost);
            }
            Some(Fault::OutOfMemory) => (ErrorKind::OutOfMemory, "is out of memory"),
            Some(Fault::PinLimit) => (ErrorKind::PinLimit, "has reached the host's pin limit"),
            Some(Fault::Refused) => (ErrorKind::Refused, "refuses the call"),
        };
        let message = format!("{step:?}: by its fault plan the device {what}; nothing was done, try again");
        Err(error(device, kind, message))
    }

    /// The stream that a caller of `device` names.
    pub(super) fn stream(&self, device: usize, raw: u64) -> Result<Key> {
        let known = self.streams.get(Key(raw));
        match known.filter(|stream| stream.device == device && !stream.destroyed) {
            Some(_) => Ok(Key(raw)),
            None => Err(error(
                device,
                ErrorKind::InvalidHandle,
                format!(
                    "stream {raw:#x} is not, or no longer, one of this device; create one with create_stream"
                ),
            )),
        }
    }

    /// The event that a caller of `device` names; it may be another device's.
    pub(super) fn event(&mut self, device: usize, raw: u64) -> Result<&mut EventState> {
        self.events.get_mut(Key(raw)).ok_or_else(|| {
            error(
                device,
                ErrorKind::InvalidHandle,
                format!(
                    "event {raw:#x} is not, or no longer, one of this machine; create one with create_event"
                ),
            )
        })
    }

    /// A bounce buffer of `device`, if it has a spare one.
    pub(super) fn spare_bounce(&mut self, device: usize) -> Option<Arc<Block>> {
        self.devices[device].spare_bounce.pop()
    }

    /// Keeps a bounce buffer for later, once nobody else uses it.
    pub(super) fn give_back_bounce(&mut self, device: usize, bounce: Arc<Block>) {
        let spare = &mut self.devices[device].spare_bounce;
        if Arc::strong_count(&bounce) == 1 && spare.len() < SPARE_BOUNCE_BUFFERS {
            spare.push(bounce);
        }
    }
}

/// The lock of one machine.
#[derive(Debug)]
pub(super) struct Core {
    state: Mutex<State>,
}

impl Core {
    pub(super) fn new(config: &MachineConfig) -> Self {
        Self {
            state: Mutex::new(State::new(config)),
        }
    }

    /// Runs `act` under the lock, then wakes whom it set free.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = sync::lock(&self.state);
        let result = act(&mut state);
        let wakes = std::mem::take(&mut state.wakes);
        drop(state);
        wakes.iter().for_each(|wake| wake.notify_all());
        result
    }

    /// Blocks until `ticket` fires, and lets go of it: the caller's hold on it ends here.
    pub(super) fn wait_for(&self, ticket: Key) -> Outcome {
        let mut state = sync::lock(&self.state);
        loop {
            if let Some(outcome) = state.tickets.outcome(ticket).cloned() {
                state.tickets.release(ticket);
                return outcome;
            }
            let fired = state.tickets.tell_thread(ticket);
            state = sync::wait(&fired, state);
        }
    }

    /// Hands in what the engine has `finished`, and blocks until there is a next job for it; nothing when there will be
    /// none any more: the machine shuts down and the engine's work is done, or the device is lost.
    pub(super) fn next_job(&self, device: usize, engine: usize, finished: Option<Finished>) -> Option<Job> {
        let mut state = sync::lock(&self.state);
        if let Some(finished) = finished {
            state.finish(device, finished);
        }
        let job = loop {
            let mailbox = &mut state.devices[device].engines[engine];
            if let Some(job) = mailbox.queue.pop_front() {
                break Some(job);
            }
            mailbox.idle = true;
            let wake = Arc::clone(&mailbox.wake);
            if state.shutdown || state.devices[device].lost.is_some() {
                break None;
            }
            // Nobody else would wake whom this engine's last job set free.
            for other in std::mem::take(&mut state.wakes) {
                other.notify_all();
            }
            state = sync::wait(&wake, state);
        };
        let wakes = std::mem::take(&mut state.wakes);
        drop(state);
        wakes.iter().for_each(|wake| wake.notify_all());
        job
    }
}

/// A job that an engine is through with.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) job: Job,
    pub(super) at: sync::Instant,
    pub(super) result: Result<(), Error>,
}
