//! Calls from many threads at once.

use super::{
    Outcome, Stop, Subject,
    bytes::{ensure_pattern, pattern},
    ensure,
    rig::{Drain, Queue},
};
use crate::{
    Event, MemCopy, Timing,
    sync::{Condvar, Mutex, lock, thread, wait},
};

const THREADS: u64 = 8;
const ROUNDS: u64 = 10;

/// Runs `work` on many threads, each with its number, and fails if one of them does.
fn on_threads(work: impl Fn(u64) -> Outcome + Sync) -> Outcome {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(Stop::Failed("a thread panicked".to_owned())))
        })
    })
}

/// There and back, through pinned and through pageable memory.
fn round_trip(subject: &Subject, queue: &Queue, seed: u64) -> Outcome {
    let bytes = 20_011 + 97 * seed as usize;
    let (mut source, sink) = (subject.pinned(bytes)?, subject.pinned(bytes)?);
    let memory = subject.memory(bytes)?;
    let _drain = Drain(queue);
    source.fill(seed);
    queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), bytes))?;
    queue.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), bytes))?;
    queue.record(Timing::Disabled)?.synchronize()?;
    ensure_pattern(sink.read(), seed, "pinned memory of one thread among many")?;
    queue.put(memory.ptr(), &pattern(seed + 1, bytes))?;
    let found = queue.fetch(memory.ptr(), bytes)?;
    ensure_pattern(&found, seed + 1, "pageable memory of one thread among many")
}

pub(super) fn threads_with_streams_of_their_own_do_not_disturb_each_other(subject: &Subject) -> Outcome {
    on_threads(|number| {
        let own = subject.queue()?;
        (0..ROUNDS).try_for_each(|round| round_trip(subject, &own, number * ROUNDS + round))
    })
}

pub(super) fn threads_may_share_a_stream(subject: &Subject) -> Outcome {
    let shared = subject.queue()?;
    on_threads(|number| {
        (0..ROUNDS).try_for_each(|round| round_trip(subject, &shared, number * ROUNDS + round))
    })
}

pub(super) fn a_thread_can_wait_for_what_another_enqueues(subject: &Subject) -> Outcome {
    const BYTES: usize = 50_021;
    let (mut source, sink) = (subject.pinned(BYTES)?, subject.pinned(BYTES)?);
    let memory = subject.memory(BYTES)?;
    let queue = subject.queue()?;
    let event = Event::new(subject.driver(), Timing::Disabled)?;
    source.fill(1);
    let recorded = (Mutex::new(false), Condvar::new());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| -> Outcome {
            let mut is_recorded = lock(&recorded.0);
            while !*is_recorded {
                is_recorded = wait(&recorded.1, is_recorded);
            }
            event.synchronize()?;
            ensure(event.query()?, || {
                "an event has not fired after synchronising with it".to_owned()
            })
        });
        let enqueued = (|| -> Outcome {
            queue.dawdle()?;
            queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), BYTES))?;
            queue.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), BYTES))?;
            Ok(event.record(&queue)?)
        })();
        *lock(&recorded.0) = true;
        recorded.1.notify_all();
        let waited = waiter.join();
        enqueued.and(waited.unwrap_or_else(|_| Err(Stop::Failed("the waiting thread panicked".to_owned()))))
    })?;
    ensure_pattern(
        sink.read(),
        1,
        "read after another thread synchronised with the event",
    )
}

pub(super) fn threads_allocate_and_pin_at_the_same_time(subject: &Subject) -> Outcome {
    on_threads(|number| {
        for round in 0..ROUNDS {
            let bytes = 1000 + 331 * (number + round) as usize;
            let memory = subject.memory(bytes)?;
            let host = subject.pinned(bytes)?;
            let pinned = subject.driver().is_pinned(host.ptr(), bytes);
            ensure(pinned, || {
                "a range that this thread has just pinned is not pinned".to_owned()
            })?;
            let queue = subject.queue()?;
            queue.memset(memory.ptr(), number as u8, bytes)?;
            queue.copy(MemCopy::to_host(host.ptr(), memory.ptr(), bytes))?;
            queue.synchronize()?;
            let filled = host.read().iter().all(|byte| *byte == number as u8);
            ensure(filled, || {
                "memory that this thread has filled holds something else".to_owned()
            })?;
        }
        Ok(())
    })
}
