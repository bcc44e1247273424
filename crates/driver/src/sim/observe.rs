//! What tests see of a simulated device, and how they hold it still.

use super::{FaultPlan, Machine, SimDriver, Step, arena::Key, fault::Faults};
use crate::{RawStream, Result, fork};

/// What exists at this moment. Two of them that are equal, before and after, say that nothing leaked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alive {
    /// Allocations of the device that were not freed.
    pub device_allocations: usize,
    /// Their bytes.
    pub device_bytes: u64,
    /// Pinned ranges of the whole machine.
    pub pinned_ranges: usize,
    /// Their bytes.
    pub pinned_bytes: u64,
    /// Streams of the device that were not destroyed.
    pub streams: usize,
    /// Events of the device that were not destroyed.
    pub events: usize,
}

impl SimDriver {
    /// What exists at this moment.
    #[must_use]
    pub fn alive(&self) -> Alive {
        self.core().with(|state| {
            let device = &state.devices[self.ordinal()];
            Alive {
                device_allocations: device.memory.live(),
                device_bytes: device.memory.used(),
                pinned_ranges: state.pinned.count(),
                pinned_bytes: state.pinned.bytes(),
                streams: device.streams,
                events: device.events,
            }
        })
    }

    /// The most bytes that the whole machine had pinned at one time.
    #[must_use]
    pub fn peak_pinned_bytes(&self) -> u64 {
        self.core().with(|state| state.pinned.peak())
    }

    /// The most bytes of this device that were allocated at one time.
    #[must_use]
    pub fn peak_device_bytes(&self) -> u64 {
        self.core()
            .with(|state| state.devices[self.ordinal()].memory.peak())
    }

    /// How often device memory was freed, or host memory unpinned, while enqueued work still used it: always a
    /// breach of the call's contract. Giving memory back after the device was lost does not count.
    #[must_use]
    pub fn freed_in_use(&self) -> u64 {
        self.core()
            .with(|state| state.devices[self.ordinal()].freed_in_use)
    }

    /// How often `step` was called since the machine was made or [`set_faults`](Self::set_faults) was called.
    #[must_use]
    pub fn calls(&self, step: Step) -> u64 {
        self.core()
            .with(|state| state.devices[self.ordinal()].faults.calls(step))
    }

    /// Puts another fault plan in place and counts calls from 0 again. A lost device stays lost.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.core()
            .with(|state| state.devices[self.ordinal()].faults = Faults::new(plan));
    }

    /// Keeps the device from starting anything that is enqueued, until the guard is dropped. What an engine has
    /// already been given goes on.
    #[must_use = "dropping the guard lets the device go on"]
    pub fn stall(&self) -> Stall {
        Stall::new(self.machine().clone(), Target::Device(self.ordinal()))
    }

    /// Keeps one stream from starting anything that is enqueued on it, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidHandle`](crate::ErrorKind::InvalidHandle) where the device has no such stream.
    pub fn stall_stream(&self, stream: RawStream) -> Result<Stall> {
        let stream = self
            .core()
            .with(|state| state.stream(self.ordinal(), stream.as_raw()))?;
        Ok(Stall::new(self.machine().clone(), Target::Stream(stream)))
    }
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Device(usize),
    Stream(Key),
}

/// Keeps a device or a stream from starting anything while it lives.
#[derive(Debug)]
pub struct Stall {
    machine: Machine,
    target: Target,
}

impl Stall {
    fn new(machine: Machine, target: Target) -> Self {
        machine.0.core.with(|state| match target {
            Target::Device(ordinal) => state.devices[ordinal].stalls += 1,
            Target::Stream(key) => {
                if let Some(stream) = state.streams.get_mut(key) {
                    stream.stalls += 1;
                }
            }
        });
        Self { machine, target }
    }
}

impl Drop for Stall {
    /// In a forked child, where the engines' threads are not and the lock may be held for ever, nothing goes on.
    fn drop(&mut self) {
        if fork::is_child() {
            return;
        }
        self.machine.0.core.with(|state| match self.target {
            Target::Device(ordinal) => {
                state.devices[ordinal].stalls -= 1;
                for key in state.streams.keys() {
                    state.start(key);
                }
            }
            Target::Stream(key) => {
                if let Some(stream) = state.streams.get_mut(key) {
                    stream.stalls -= 1;
                }
                state.start(key);
            }
        });
    }
}
