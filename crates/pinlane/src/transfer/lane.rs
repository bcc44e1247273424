//! A lane: a stream, and whoever drives it (a thread of its own, or a caller with little to move). A second stream carries
//! what was filled ahead of an event of the caller's.
//!
//! To the device: take a slot, fill it, enqueue its DMAs, mark, settle the chunk; the slot flies until the mark.
//! To the host: take a slot, enqueue DMAs into it, mark; the chunk is *pending* until the lane empties the slot.
//! Where a kernel gathers from or into pinned memory, the slot holds its table only, and flies both ways.
//! A lane that is about to sleep, that finds no free slot, or that has as many pending as are meant for one, empties its
//! pending slots, oldest first.

use std::{collections::VecDeque, ptr::NonNull};

use pinlane_driver::{DevicePtr, MemCopy, sync::Arc};

use super::{
    engine::Engine,
    job::{End, Job},
    mark::{LaneStream, Mark},
    plan::{Chunk, Direction, Segment},
    queue::Claim,
};
use crate::{
    Error, Result,
    error::Failure,
    file::{reading::Reading, writing::Writing},
    memory::{
        copying::{self, Stores},
        slots::Slot,
        walk,
    },
    trace::{
        device::{self, Work},
        span::engine_span,
    },
};

/// A stream and the chunks from the device that are pending on it.
#[derive(Debug)]
pub(crate) struct Lane {
    engine: Arc<Engine>,
    direction: Direction,
    index: usize,
    stream: Arc<LaneStream>,
    /// For copies behind events that have not fired; made for the first.
    held_back: Option<Arc<LaneStream>>,
    pending: VecDeque<Pending>,
    /// Reused for each chunk's copies.
    copies: Vec<MemCopy>,
    /// Reused for each chunk that comes from files.
    reading: Reading,
    /// Reused for each chunk that goes to files.
    writing: Writing,
}

/// A chunk whose bytes are on their way into a slot.
#[derive(Debug)]
struct Pending {
    job: Arc<Job>,
    chunk: usize,
    slot: Slot,
    mark: Arc<Mark>,
}

impl Lane {
    /// A lane for jobs in one direction. Its index is for who traces what it does.
    pub(crate) fn new(
        engine: Arc<Engine>,
        direction: Direction,
        index: usize,
        stream: Arc<LaneStream>,
    ) -> Self {
        Self {
            engine,
            direction,
            index,
            stream,
            held_back: None,
            pending: VecDeque::new(),
            copies: Vec::new(),
            reading: Reading::default(),
            writing: Writing::default(),
        }
    }

    /// What a lane's thread does until its queue is closed.
    pub(crate) fn serve(mut self) {
        // What would keep it from that, such as a lost device, is told by the first copy.
        if let Err(error) = self.engine.driver.attach_thread() {
            tracing::debug!(%error, "a lane goes on without being attached to its device");
        }
        let engine = Arc::clone(&self.engine);
        let queue = engine.queues.of(self.direction);
        loop {
            match queue.claim(self.pending.is_empty()) {
                Claim::Chunk(job, chunk) => self.run(&job, chunk),
                Claim::Empty => self.empty_oldest(),
                Claim::Closed => break,
            }
        }
        self.empty_all();
    }

    /// Runs every chunk of a job on the caller's thread.
    pub(crate) fn run_whole(&mut self, job: &Arc<Job>) {
        for chunk in 0..job.plan.chunks.len() {
            self.run(job, chunk);
        }
        self.empty_all();
    }

    /// Runs on the caller's thread what lanes have not claimed of a job.
    pub(crate) fn run_rest(&mut self, job: &Arc<Job>) {
        let engine = Arc::clone(&self.engine);
        while let Some(chunk) = engine.queues.of(self.direction).claim_of(job) {
            self.run(job, chunk);
        }
        self.empty_all();
    }

    /// The stream, for who uses it next.
    pub(crate) fn into_stream(self) -> Arc<LaneStream> {
        self.stream
    }

    /// Starts a chunk, and settles it unless it is left pending.
    fn run(&mut self, job: &Arc<Job>, chunk: usize) {
        let started = (!job.is_cancelled()).then(|| self.start(job, chunk));
        // Before the job is seen to be over.
        if job.note_started() {
            device::end_of_transfer(&self.engine.driver, job.plan.direction());
        }
        match started {
            None => job.settle(None),
            Some(Ok(Some(mark))) => job.settle(Some(mark)),
            Some(Ok(None)) => {}
            Some(Err(failure)) => {
                job.fail(failure);
                job.settle(None);
            }
        }
    }

    /// Enqueues a chunk. Gives its mark, or nothing where the chunk is pending.
    fn start(&mut self, job: &Arc<Job>, index: usize) -> Result<Option<Arc<Mark>>, Failure> {
        let chunk = &job.plan.chunks[index];
        if !chunk.needs_slot() {
            self.collect_direct(job, chunk);
            return Ok(Some(self.enqueue(job, chunk, None)?));
        }
        if let Some(lent) = &job.lent {
            self.collect_slotted(job, chunk, lent.ptr().as_ptr());
            let table = table(chunk, lent.ptr().as_ptr());
            return Ok(Some(self.enqueue(job, chunk, table)?));
        }
        let slot = self.acquire(job)?;
        if chunk.is_staged()
            && job.plan.direction() == Direction::ToDevice
            && let Err(failure) = self.fill(job, chunk, &slot)
        {
            self.engine.slots.put_back(slot);
            return Err(failure);
        }
        if chunk.is_staged() {
            self.collect_slotted(job, chunk, slot.ptr());
        } else {
            self.collect_direct(job, chunk);
        }
        match self.enqueue(job, chunk, table(chunk, slot.ptr())) {
            Ok(mark) if job.plan.direction() == Direction::ToDevice || !chunk.is_staged() => {
                self.engine
                    .slots
                    .put_flying(slot, Arc::clone(&mark), !job.may_start());
                Ok(Some(mark))
            }
            Ok(mark) => {
                self.pending.push_back(Pending {
                    job: Arc::clone(job),
                    chunk: index,
                    slot,
                    mark,
                });
                Ok(None)
            }
            Err(error) => {
                self.return_slot(slot, error.leaves_memory_in_use());
                Err(error.into())
            }
        }
    }

    /// A slot, after emptying pending ones as far as need be.
    fn acquire(&mut self, job: &Job) -> Result<Slot> {
        if self.pending.len() >= self.engine.profile.slots_per_lane {
            self.empty_oldest();
        }
        loop {
            match self.engine.slots.acquire(
                Some(&self.stream),
                self.pending.is_empty(),
                job.plan.pace.reuse,
            )? {
                Some(slot) => return Ok(slot),
                None => self.empty_oldest(),
            }
        }
    }

    fn return_slot(&self, slot: Slot, in_use: bool) {
        if in_use {
            self.engine.slots.lose(slot);
        } else {
            self.engine.slots.put_back(slot);
        }
    }

    /// Copies the chunk's segments from their sources into the slot.
    fn fill(&mut self, job: &Job, chunk: &Chunk, slot: &Slot) -> Result<(), Failure> {
        let _span = engine_span!("fill", chunk.bytes, chunk.route, self.index);
        let stores = job.plan.pace.stores;
        let reading = &mut self.reading;
        let mut segments = walk::scattered(job.plan.segments(chunk), |segment| {
            job.ends[segment.leaf as usize].address(segment.offset as usize)
        });
        let filled = segments.try_for_each(|segment| {
            // SAFETY: the plan keeps `slot_offset + bytes` within the slot, which this lane holds alone; the job keeps
            // the source alive and unwritten, and the plan keeps the segment within the leaf.
            unsafe { fill_segment(&job.ends[segment.leaf as usize], segment, slot, stores, reading) }
        });
        // SAFETY: the lane still holds the slot, whose segments lie apart.
        let filled = filled.and_then(|()| unsafe { reading.finish() });
        // Also after an error: the slot goes on to another thread.
        copying::fence(stores);
        filled
    }

    /// Collects the copies between a slot and the device.
    fn collect_slotted(&mut self, job: &Job, chunk: &Chunk, slot: *mut u8) {
        self.copies.clear();
        for run in job.plan.runs(chunk) {
            let device = job.bases[run.region.allocation as usize].offset(run.region.offset as usize);
            // SAFETY: inside the slot, by the plan.
            let host = unsafe { slot.add(run.slot_offset) };
            self.copies
                .push(between(job.plan.direction(), host, device, run.bytes));
        }
    }

    /// Collects the copies from and to where tensors lie.
    fn collect_direct(&mut self, job: &Job, chunk: &Chunk) {
        self.copies.clear();
        for segment in job.plan.segments(chunk) {
            let leaf = segment.leaf as usize;
            let region = job.plan.regions[leaf];
            let offset = segment.offset as usize;
            let device = job.bases[region.allocation as usize].offset(region.offset as usize + offset);
            let copy = match (&job.ends[leaf], job.plan.direction()) {
                (End::Memory(ptr), direction) => {
                    // SAFETY: inside the leaf, by the plan.
                    let host = unsafe { ptr.add(offset) };
                    between(direction, host, device, segment.bytes)
                }
                (End::Device(from), _) => MemCopy::on_device(device, from.offset(offset), segment.bytes),
                (End::Peer(peer, from), _) => {
                    MemCopy::from_peer(device, *peer, from.offset(offset), segment.bytes)
                }
                (End::Strided(..) | End::File(..) | End::Sink(..), _) => {
                    unreachable!("the planner sends these through slots")
                }
            };
            self.copies.push(copy);
        }
    }

    /// The stream for the copies of a job: what comes after an event that has not fired holds up only its like.
    fn stream_for(&mut self, job: &Job) -> Result<Arc<LaneStream>> {
        if job.may_start() {
            return Ok(Arc::clone(&self.stream));
        }
        if let Some(held_back) = &self.held_back {
            return Ok(Arc::clone(held_back));
        }
        let stream = self.engine.new_stream()?;
        Ok(Arc::clone(self.held_back.insert(stream)))
    }

    /// Hands the collected copies to the driver, and marks their end. After an error nothing of them is in flight any
    /// more, unless the error says that memory is left in use.
    fn enqueue(&mut self, job: &Job, chunk: &Chunk, table: Option<NonNull<u8>>) -> Result<Arc<Mark>> {
        let _span = engine_span!("copy", chunk.bytes, chunk.route, self.index);
        // As late as can be: what is known as failed by now, such as the copy that this chunk's slot was waited for,
        // does not spread to this chunk.
        let lane = self.stream_for(job)?;
        let mended = lane.mend();
        mended.map_err(|source| Error::driver("making a lane work again after a failed copy", source))?;
        let stream = lane.stream();
        if let Some(after) = job.unfired() {
            let waited = stream.wait(after);
            waited.map_err(|source| Error::driver("ordering a lane behind the caller's stream", source))?;
        }
        let traced = device::begin(stream, job.unfired().is_some());
        let enqueued = match (self.copies.as_slice(), table) {
            // SAFETY: the job and the slot keep both ends of each copy, and the table, valid until the mark is reached;
            // the runs of one plan do not overlap, and the plan keeps the table behind them.
            (copies, Some(table)) => unsafe { stream.driver().copy_scattered(copies, table, stream.raw()) },
            // SAFETY: the job and the slot keep both ends of the copy valid until the mark is reached.
            ([copy], None) => unsafe { stream.copy(*copy) },
            // SAFETY: as above, for each; the runs of one plan do not overlap.
            (copies, None) => unsafe { stream.driver().copy_batch(copies, stream.raw()) },
        };
        let marked = enqueued.and_then(|()| lane.mark());
        if let (Ok(mark), Some(traced)) = (&marked, traced) {
            let work = Work {
                direction: job.plan.direction(),
                bytes: chunk.bytes as u64,
                route: chunk.route,
                lane: Some(self.index),
                by_kernel: table.is_some(),
            };
            traced.end(stream, Arc::<Mark>::clone(mark), &work);
        }
        marked.map_err(|source| {
            let doing = format!(
                "copying {} bytes ({}) {}",
                chunk.bytes,
                chunk.route,
                job.plan.direction()
            );
            // Some of the copies may be in flight without a mark: wait them out.
            match lane.drain() {
                Ok(()) => Error::driver(doing, source),
                Err(unknown) => Error::waiting(doing, unknown),
            }
        })
    }

    /// Waits for the oldest pending chunk and copies it out of its slot.
    fn empty_oldest(&mut self) {
        let Some(Pending {
            job,
            chunk,
            slot,
            mark,
        }) = self.pending.pop_front()
        else {
            return;
        };
        let chunk = &job.plan.chunks[chunk];
        let arrived = {
            let _span = engine_span!("wait", chunk.bytes, chunk.route, self.index);
            mark.settle(job.plan.pace.patience)
        };
        let in_use = match arrived {
            Ok(()) => {
                if !job.is_cancelled()
                    && let Err(failure) = self.empty(&job, chunk, &slot)
                {
                    job.fail(failure);
                }
                false
            }
            Err(error) => {
                let doing = format!("copying {} bytes {}", chunk.bytes, job.plan.direction());
                let error = Error::waiting(doing, error);
                let in_use = error.leaves_memory_in_use();
                job.fail(error);
                in_use
            }
        };
        self.return_slot(slot, in_use);
        job.settle(None);
    }

    fn empty_all(&mut self) {
        while !self.pending.is_empty() {
            self.empty_oldest();
        }
    }

    /// Copies the chunk's segments from the slot to where they belong, or writes them there.
    fn empty(&mut self, job: &Job, chunk: &Chunk, slot: &Slot) -> Result<(), Failure> {
        let _span = engine_span!("fill", chunk.bytes, chunk.route, self.index);
        let stores = job.plan.pace.stores;
        let writing = &mut self.writing;
        let mut segments = walk::scattered(job.plan.segments(chunk), |segment| {
            job.ends[segment.leaf as usize].address(segment.offset as usize)
        });
        let emptied = segments.try_for_each(|segment| {
            // SAFETY: inside the slot, by the plan.
            let from = unsafe { slot.ptr().add(segment.slot_offset) };
            match &job.ends[segment.leaf as usize] {
                // SAFETY: the mark is reached, so the slot holds the chunk; the plan keeps both ranges inside slot and
                // leaf; the job keeps the leaf alive, and nobody reads it before the job has landed.
                End::Memory(ptr) => unsafe {
                    copying::copy(from, ptr.add(segment.offset as usize), segment.bytes, stores);
                },
                // SAFETY: the mark is reached, so the slot holds the chunk, and this lane holds the slot until the writing is
                // finished.
                End::Sink(end) => unsafe { writing.push(end, segment.offset, from, segment.bytes)? },
                _ => unreachable!("what comes to the host lands in one piece, or in a file"),
            }
            Ok(())
        });
        copying::fence(stores);
        // SAFETY: as for what was pushed.
        emptied.and_then(|()| unsafe { writing.finish() })
    }
}

/// Where the table of a chunk lies that a kernel moves through the slot that begins at `slot`.
fn table(chunk: &Chunk, slot: *mut u8) -> Option<NonNull<u8>> {
    // SAFETY: inside the slot, by the plan.
    NonNull::new(unsafe { slot.add(chunk.table_offset?) })
}

/// The copy between host and device memory in this direction.
fn between(direction: Direction, host: *mut u8, device: DevicePtr, bytes: usize) -> MemCopy {
    match direction {
        Direction::ToHost => MemCopy::to_host(host, device, bytes),
        Direction::ToDevice | Direction::OnDevice => MemCopy::to_device(device, host, bytes),
    }
}

/// Copies one segment into its place in a slot, or has it read to there.
///
/// # Safety
///
/// The segment lies inside the leaf that `end` names and inside the slot; the leaf's memory is alive and not written;
/// the caller holds the slot, until `reading` is finished.
unsafe fn fill_segment(
    end: &End,
    segment: &Segment,
    slot: &Slot,
    stores: Stores,
    reading: &mut Reading,
) -> Result<(), Failure> {
    let (offset, bytes) = (segment.offset as usize, segment.bytes);
    // SAFETY: inside the slot, by the caller's promise.
    let place = unsafe { slot.ptr().add(segment.slot_offset) };
    match end {
        // SAFETY: both ranges are valid and apart, by the caller's promise.
        End::Memory(ptr) => unsafe { copying::copy(ptr.add(offset), place, bytes, stores) },
        // SAFETY: as above; `gather` reads only what the layout reaches.
        End::Strided(storage, copy) => unsafe { copy.gather(*storage, offset..offset + bytes, place) },
        // SAFETY: slots are zeroed when made, so the bytes are initialised; the rest is the caller's promise.
        End::File(file) => unsafe { reading.push(file, offset..offset + bytes, place)? },
        End::Sink(_) => unreachable!("nothing is read from what is written to"),
        End::Device(_) | End::Peer(..) => unreachable!("device memory goes without a slot"),
    }
    Ok(())
}
