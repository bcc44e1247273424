//! The trait's verbs on the simulated device.

use std::{ptr::NonNull, time::Duration};

use super::{
    Machine, Step,
    allocations::{Block, Freed},
    arena::Key,
    order::{Op, StreamState},
    route::Route,
    scatter,
    state::{Core, EventState, State, error},
    work::{Job, Mishap, Work},
};
use crate::{
    Conversion, DevicePtr, Driver, Error, ErrorKind, MemCopy, MemoryInfo, Properties, RawEvent, RawStream,
    Result, ScatterTable, Timing, fork,
    sync::{self, Instant},
};

/// One device of a [`Machine`], with what tests may see and do besides driving it.
///
/// ```
/// use pinlane_driver::{Driver, sim::{DeviceConfig, Machine, Step}};
///
/// let sim = Machine::new(DeviceConfig::default()).sim(0)?;
/// let stream = sim.create_stream()?;
/// assert_eq!(sim.alive().streams, 1);
/// assert_eq!(sim.calls(Step::CreateStream), 1);
/// // SAFETY: the stream is this device's, and not used any more.
/// unsafe { sim.destroy_stream(stream)? };
/// assert_eq!(sim.alive().streams, 0);
/// # Ok::<(), pinlane_driver::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimDriver {
    machine: Machine,
    ordinal: usize,
}

impl SimDriver {
    pub(super) fn new(machine: Machine, ordinal: usize) -> Self {
        Self { machine, ordinal }
    }

    /// The machine that the device belongs to.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn core(&self) -> &Core {
        &self.machine.0.core
    }

    pub(super) fn ordinal(&self) -> usize {
        self.ordinal
    }

    pub(super) fn bounce_bytes(&self) -> usize {
        self.machine.0.config.devices[self.ordinal].bounce_bytes.max(1)
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        error(self.ordinal, kind, message)
    }

    /// Counts the call, lets faults have their way, and does it. In a forked child, where the engines' threads are not and the
    /// lock may be held for ever, refuses it.
    fn call<R>(&self, step: Step, act: impl FnOnce(&mut State, Option<Mishap>) -> Result<R>) -> Result<R> {
        fork::refuse_in_child(self.properties().id)?;
        self.core().with(|state| {
            let mishap = state.enter(self.ordinal, step)?;
            act(state, mishap)
        })
    }

    /// As [`call`](Self::call) for what gives something back: on a lost device it does so too, then fails.
    fn give_back<R>(&self, step: Step, act: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        fork::refuse_in_child(self.properties().id)?;
        self.core().with(|state| {
            let entered = state.enter(self.ordinal, step);
            let given_back = act(state)?;
            entered.map(|_| given_back)
        })
    }

    /// Counts memory that was given back while enqueued work used it. On a lost device that is nobody's fault.
    fn count_use(&self, state: &mut State, in_use: bool) {
        let device = &mut state.devices[self.ordinal];
        device.freed_in_use += u64::from(in_use && device.lost.is_none());
    }
}

/// A job as it is enqueued.
fn job(stream: Key, work: Work, mishap: Option<Mishap>) -> Job {
    Job {
        stream,
        work,
        mishap,
        ready_at: Instant::now(),
    }
}

// SAFETY: the conformance suite holds it to the trait's contract; a handle or range that is not the machine's own is
// found out before it is used.
unsafe impl Driver for SimDriver {
    fn properties(&self) -> &Properties {
        &self.machine.0.properties[self.ordinal]
    }

    fn memory_info(&self) -> Result<MemoryInfo> {
        self.call(Step::MemoryInfo, |state, _| {
            Ok(MemoryInfo {
                free: state.devices[self.ordinal].memory.free_bytes(),
                total: self.properties().memory_bytes,
            })
        })
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePtr> {
        // Fresh pages and poison take their time, so the block is made between two visits to the lock.
        let (size, recycled) = self.call(Step::Allocate, |state, _| {
            let memory = &mut state.devices[self.ordinal].memory;
            let size = Block::size_for(bytes).filter(|_| memory.reserve(bytes));
            let size = size.ok_or_else(|| {
                let free = memory.free_bytes();
                self.error(
                    ErrorKind::OutOfMemory,
                    format!(
                        "allocating {bytes} bytes: {free} are free; free some, or ask for less at a time"
                    ),
                )
            })?;
            Ok((size, memory.recycle(size)))
        })?;
        let block = recycled.or_else(|| Block::new(size)).map(|mut block| {
            if self.machine.0.config.devices[self.ordinal].poison {
                block.poison();
            }
            block
        });
        self.core().with(|state| {
            let memory = &mut state.devices[self.ordinal].memory;
            if let Some(block) = block {
                return Ok(DevicePtr(memory.insert(block, bytes)));
            }
            memory.give_up(bytes);
            Err(self.error(
                ErrorKind::OutOfMemory,
                format!(
                    "allocating {bytes} bytes: the host that simulates the device has not that much memory"
                ),
            ))
        })
    }

    unsafe fn free(&self, ptr: DevicePtr, bytes: usize) -> Result<()> {
        let freed = self.give_back(Step::Free, |state| {
            let memory = &mut state.devices[self.ordinal].memory;
            let freed = memory.free(ptr.0, bytes);
            let freed = freed.map_err(|why| why.on(self.ordinal, ptr.0, bytes))?;
            self.count_use(state, matches!(freed, Freed::InUse));
            Ok(freed)
        });
        freed.map(drop)
    }

    /// Memory of the host, which the blocks of allocations that are gone still take.
    fn idle_bytes(&self) -> u64 {
        if fork::is_child() {
            return 0;
        }
        self.core()
            .with(|state| state.devices[self.ordinal].memory.recycled_bytes() as u64)
    }

    fn trim(&self) -> Result<u64> {
        fork::refuse_in_child(self.properties().id)?;
        let (bytes, idle) = self.core().with(|state| {
            let memory = &mut state.devices[self.ordinal].memory;
            (memory.recycled_bytes(), memory.trim())
        });
        drop(idle);
        Ok(bytes as u64)
    }

    unsafe fn pin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        self.call(Step::Pin, |state, _| {
            let pinned = state.pinned.pin(ptr.addr().get(), bytes);
            pinned.map_err(|why| why.on(self.ordinal, "pinning", ptr, bytes))
        })?;
        // Outside the lock: locking pages holds up the caller, not the device.
        let time = self.machine.0.config.devices[self.ordinal].pin_time(bytes);
        if !time.is_zero() {
            sync::sleep(time);
        }
        Ok(())
    }

    unsafe fn unpin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        self.give_back(Step::Unpin, |state| {
            let unpinned = state.pinned.unpin(ptr.addr().get(), bytes);
            let in_use = unpinned.map_err(|why| why.on(self.ordinal, "unpinning", ptr, bytes))?;
            self.count_use(state, in_use);
            Ok(())
        })
    }

    fn is_pinned(&self, ptr: *const u8, bytes: usize) -> bool {
        !fork::is_child() && self.core().with(|state| state.pinned.covers(ptr.addr(), bytes))
    }

    fn create_stream(&self) -> Result<RawStream> {
        self.call(Step::CreateStream, |state, _| {
            state.devices[self.ordinal].streams += 1;
            let stream = state.streams.insert(StreamState::new(self.ordinal));
            // SAFETY: a stream of this machine, which also finds out when it is not any more.
            Ok(unsafe { RawStream::from_raw(stream.0) })
        })
    }

    unsafe fn destroy_stream(&self, stream: RawStream) -> Result<()> {
        self.give_back(Step::DestroyStream, |state| {
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            state.destroy_stream(stream);
            Ok(())
        })
    }

    fn synchronize_stream(&self, stream: RawStream) -> Result<()> {
        let (stream, end) = self.call(Step::SynchronizeStream, |state, _| {
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            Ok((stream, state.end_of(stream)))
        })?;
        let failure = match end {
            None => self.core().with(|state| state.take_failure(stream, None)),
            Some(end) => self.core().wait_for(end).result.err().inspect(|failure| {
                self.core()
                    .with(|state| state.take_failure(stream, Some(failure)));
            }),
        };
        failure.map_or(Ok(()), |failure| Err((*failure).clone()))
    }

    fn create_event(&self, timing: Timing) -> Result<RawEvent> {
        self.call(Step::CreateEvent, |state, _| {
            state.devices[self.ordinal].events += 1;
            let event = state.events.insert(EventState {
                device: self.ordinal,
                timing,
                latest: None,
            });
            // SAFETY: an event of this machine, which also finds out when it is not any more.
            Ok(unsafe { RawEvent::from_raw(event.0) })
        })
    }

    unsafe fn destroy_event(&self, event: RawEvent) -> Result<()> {
        self.give_back(Step::DestroyEvent, |state| {
            let &mut EventState { device, latest, .. } = state.event(self.ordinal, event.as_raw())?;
            state.events.remove(Key(event.as_raw()));
            state.devices[device].events -= 1;
            if let Some(ticket) = latest {
                state.tickets.release(ticket);
            }
            Ok(())
        })
    }

    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        self.call(Step::Record, |state, _| {
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            let of = state.event(self.ordinal, event.as_raw())?.device;
            if of != self.ordinal {
                return Err(self.error(
                    ErrorKind::InvalidHandle,
                    format!(
                        "recording event {:#x} of sim:{of}; record it on a stream of its own device",
                        event.as_raw()
                    ),
                ));
            }
            let ticket = state.enqueue_record(stream, 1);
            if let Some(earlier) = state.event(self.ordinal, event.as_raw())?.latest.replace(ticket) {
                state.tickets.release(earlier);
            }
            Ok(())
        })
    }

    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        self.call(Step::StreamWait, |state, _| {
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            if let Some(ticket) = state.event(self.ordinal, event.as_raw())?.latest {
                state.tickets.hold(ticket);
                state.enqueue(stream, Op::Wait { ticket });
            }
            Ok(())
        })
    }

    fn query(&self, event: RawEvent) -> Result<bool> {
        self.call(Step::Query, |state, _| {
            let Some(ticket) = state.event(self.ordinal, event.as_raw())?.latest else {
                return Ok(true);
            };
            match state.tickets.outcome(ticket) {
                None => Ok(false),
                Some(outcome) => outcome
                    .result
                    .clone()
                    .map_or_else(|failure| Err((*failure).clone()), |()| Ok(true)),
            }
        })
    }

    /// Always sleeps: a thread that spins would take the core that the device's own threads need.
    fn synchronize_event(&self, event: RawEvent, _patience: Duration) -> Result<()> {
        let ticket = self.call(Step::SynchronizeEvent, |state, _| {
            let ticket = state.event(self.ordinal, event.as_raw())?.latest;
            if let Some(ticket) = ticket {
                state.tickets.hold(ticket);
            }
            Ok(ticket)
        })?;
        let result = ticket.map_or(Ok(()), |ticket| self.core().wait_for(ticket).result);
        result.map_err(|failure| (*failure).clone())
    }

    fn elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Duration> {
        self.call(Step::Elapsed, |state, _| {
            let mut fired_at = |event: RawEvent| {
                let &mut EventState { timing, latest, .. } = state.event(self.ordinal, event.as_raw())?;
                if timing == Timing::Disabled {
                    return Err(self.error(
                        ErrorKind::InvalidArgument,
                        format!("the time of event {:#x} was asked, which was made without timing", event.as_raw()),
                    ));
                }
                let outcome = latest.and_then(|ticket| state.tickets.outcome(ticket));
                let outcome = outcome.ok_or_else(|| {
                    let message = format!(
                        "the time of event {:#x} was asked before it was recorded and had fired; synchronise first",
                        event.as_raw()
                    );
                    self.error(ErrorKind::NotReady, message)
                })?;
                let reached = outcome.result.clone().map(|()| outcome.at);
                reached.map_err(|failure| (*failure).clone())
            };
            let start = fired_at(start)?;
            Ok(fired_at(end)?.saturating_duration_since(start))
        })
    }

    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()> {
        let (stream, route, mishap) = self.call(Step::Copy, |state, mishap| {
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            match state.route(self.ordinal, &copy)? {
                Route::Asynchronous(work) => {
                    state.enqueue(stream, Op::Run(job(stream, work, mishap)));
                    Ok((stream, Route::Nothing, None))
                }
                route => Ok((stream, route, mishap)),
            }
        })?;
        // SAFETY: the caller's promise.
        unsafe { self.stage(stream, route, mishap) }
    }

    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()> {
        let mut jobs = Vec::with_capacity(copies.len());
        let mut staged = Vec::new();
        let enqueued = self.call(Step::CopyBatch, |state, _| {
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            let routed = copies.iter().try_for_each(|copy| {
                let mishap = state.enter(self.ordinal, Step::Copy)?;
                match state.route(self.ordinal, copy)? {
                    Route::Nothing => {}
                    Route::Asynchronous(work) => jobs.push(job(stream, work, mishap)),
                    route => staged.push((route, mishap)),
                }
                Ok(())
            });
            // What stands before a copy that is refused goes its way, unless the device is gone.
            if !jobs.is_empty() && state.devices[self.ordinal].lost.is_none() {
                state.enqueue(stream, Op::Batch(jobs));
            }
            routed.map(|()| stream)
        });
        let stream = enqueued?;
        for (route, mishap) in staged {
            // SAFETY: the caller's promise.
            unsafe { self.stage(stream, route, mishap)? };
        }
        Ok(())
    }

    fn scatter_table(&self) -> Option<ScatterTable> {
        let scatters = self.machine.0.config.devices[self.ordinal].scatters;
        scatters.then_some(scatter::TABLE)
    }

    unsafe fn copy_scattered(&self, copies: &[MemCopy], table: NonNull<u8>, stream: RawStream) -> Result<()> {
        self.call(Step::CopyScattered, |state, mishap| {
            if self.scatter_table().is_none() {
                return Err(self.error(
                    ErrorKind::Unsupported,
                    "scattered copies were asked for, and this device has no kernel for them; use copy_batch",
                ));
            }
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            // SAFETY: the caller's promise.
            if let Some(work) = unsafe { state.scatter(self.ordinal, copies, table)? } {
                state.enqueue(stream, Op::Run(job(stream, work, mishap)));
            }
            Ok(())
        })
    }

    unsafe fn memset(&self, dst: DevicePtr, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        self.call(Step::Memset, |state, mishap| {
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            if bytes > 0 {
                let dst = state.device_range(self.ordinal, self.ordinal, dst.0, bytes)?;
                let work = Work::Fill { dst, value, bytes };
                state.enqueue(stream, Op::Run(job(stream, work, mishap)));
            }
            Ok(())
        })
    }

    unsafe fn convert(
        &self,
        conversion: Conversion,
        dst: DevicePtr,
        src: DevicePtr,
        elements: usize,
        stream: RawStream,
    ) -> Result<()> {
        self.call(Step::Convert, |state, mishap| {
            if !self.machine.0.config.devices[self.ordinal].converts {
                let message = format!(
                    "elements were to be converted from {conversion} on the device, and this one was made without the \
                     kernel for that; convert them on the host"
                );
                return Err(self.error(ErrorKind::Unsupported, message));
            }
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            if let Some(work) = state.conversion(self.ordinal, conversion, [dst, src], elements)? {
                state.enqueue(stream, Op::Run(job(stream, work, mishap)));
            }
            Ok(())
        })
    }

    fn busy(&self, duration: Duration, stream: RawStream) -> Result<()> {
        self.call(Step::Busy, |state, mishap| {
            let stream = state.stream(self.ordinal, stream.as_raw())?;
            state.enqueue(stream, Op::Run(job(stream, Work::Busy(duration), mishap)));
            Ok(())
        })
    }
}

impl SimDriver {
    /// Does what the calling thread has to do for a copy.
    ///
    /// # Safety
    ///
    /// As for [`Driver::copy`], for the copy that was routed.
    unsafe fn stage(&self, stream: Key, route: Route, mishap: Option<Mishap>) -> Result<()> {
        match route {
            Route::Nothing | Route::Asynchronous(_) => Ok(()),
            // SAFETY: the source is valid by this function's contract.
            Route::StageToDevice { dst, src, bytes } => unsafe {
                self.stage_to_device(stream, &dst, src, bytes, mishap)
            },
            // SAFETY: the destination is valid by this function's contract.
            Route::StageToHost { dst, src, bytes } => unsafe {
                self.stage_to_host(stream, dst, &src, bytes, mishap)
            },
        }
    }
}
