//! Events fire when the work before them is done, and tell the time where they can.

use std::time::Duration;

use super::{Outcome, Stop, Subject, bytes::ensure_pattern, ensure, ensure_error, if_supported};
use crate::{ErrorKind, Event, MemCopy, Timing};

const BYTES: usize = 1 << 20;

pub(super) fn an_event_that_was_never_recorded_counts_as_fired(subject: &Subject) -> Outcome {
    let memory = subject.memory(64)?;
    let queue = subject.queue()?;
    let event = Event::new(subject.driver(), Timing::Disabled)?;
    ensure(event.query()?, || "a fresh event has not fired".to_owned())?;
    event.synchronize()?;
    queue.wait(&event)?;
    queue.memset(memory.ptr(), 1, 64)?;
    Ok(queue.synchronize()?)
}

pub(super) fn an_event_that_was_synchronised_with_has_fired(subject: &Subject) -> Outcome {
    let memory = subject.memory(BYTES)?;
    let queue = subject.queue()?;
    queue.memset(memory.ptr(), 1, BYTES)?;
    let event = queue.record(Timing::Disabled)?;
    event.synchronize()?;
    ensure(event.query()?, || {
        "an event has not fired after synchronising with it".to_owned()
    })?;
    event.synchronize()?;
    queue.synchronize()?;
    ensure(event.query()?, || {
        "an event that had fired is pending again".to_owned()
    })
}

pub(super) fn synchronising_with_an_event_waits_for_the_work_before_it(subject: &Subject) -> Outcome {
    let (mut source, sink) = (subject.pinned(BYTES)?, subject.pinned(BYTES)?);
    let memory = subject.memory(BYTES)?;
    let queue = subject.queue()?;
    source.fill(1);
    queue.dawdle()?;
    queue.copy(MemCopy::to_device(memory.ptr(), source.ptr(), BYTES))?;
    queue.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), BYTES))?;
    queue.record(Timing::Disabled)?.synchronize()?;
    ensure_pattern(
        sink.read(),
        1,
        "read after synchronising with the event behind the copy",
    )
}

pub(super) fn recording_again_moves_the_event(subject: &Subject) -> Outcome {
    let (mut source, sink) = (subject.pinned(BYTES)?, subject.pinned(BYTES)?);
    let memory = subject.memory(BYTES)?;
    let (first, second) = (subject.queue()?, subject.queue()?);
    let event = Event::new(subject.driver(), Timing::Disabled)?;
    source.fill(2);
    event.record(&first)?;
    event.synchronize()?;
    second.dawdle()?;
    second.copy(MemCopy::to_device(memory.ptr(), source.ptr(), BYTES))?;
    second.copy(MemCopy::to_host(sink.ptr(), memory.ptr(), BYTES))?;
    event.record(&second)?;
    event.synchronize()?;
    ensure_pattern(
        sink.read(),
        2,
        "read after the event was recorded again and synchronised with",
    )
}

pub(super) fn a_thousand_events_fire(subject: &Subject) -> Outcome {
    let memory = subject.memory(4096)?;
    let queues = [subject.queue()?, subject.queue()?];
    let mut events = Vec::new();
    for number in 0..1000 {
        let queue = &queues[number % 2];
        queue.memset(memory.ptr().offset(number % 2 * 2048), number as u8, 2048)?;
        events.push(queue.record(Timing::Disabled)?);
    }
    for event in &events {
        event.synchronize()?;
    }
    for (number, event) in events.iter().enumerate() {
        ensure(event.query()?, || format!("event {number} has not fired"))?;
    }
    Ok(())
}

pub(super) fn elapsed_times_add_up_in_the_order_of_the_work(subject: &Subject) -> Outcome {
    let memory = subject.memory(BYTES)?;
    let queue = subject.queue()?;
    let mut events = Vec::new();
    for value in 0..4 {
        events.push(queue.record(Timing::Enabled)?);
        queue.memset(memory.ptr(), value, BYTES)?;
    }
    queue.synchronize()?;
    let mut before = Duration::ZERO;
    for event in &events {
        let since_start = if_supported(event.elapsed_since(&events[0]))?;
        ensure(since_start >= before, || {
            format!("a later event is {since_start:?} after the first, an earlier one {before:?}")
        })?;
        before = since_start;
    }
    Ok(())
}

pub(super) fn elapsed_time_spans_a_busy_task(subject: &Subject) -> Outcome {
    let task = Duration::from_millis(8);
    let queue = subject.queue()?;
    let start = queue.record(Timing::Enabled)?;
    if_supported(subject.driver().busy(task, queue.raw()))?;
    let end = queue.record(Timing::Enabled)?;
    end.synchronize()?;
    let elapsed = if_supported(end.elapsed_since(&start))?;
    ensure(elapsed >= task / 4, || {
        format!("a busy task of {task:?} took {elapsed:?} between its events")
    })
}

pub(super) fn elapsed_time_of_events_that_can_not_tell_it_is_an_error(subject: &Subject) -> Outcome {
    let queue = subject.queue()?;
    let (start, end) = (queue.record(Timing::Enabled)?, queue.record(Timing::Enabled)?);
    queue.synchronize()?;
    if_supported(end.elapsed_since(&start))?;
    let never = Event::new(subject.driver(), Timing::Enabled)?;
    ensure_error(
        never.elapsed_since(&start),
        ErrorKind::NotReady,
        "the time of an unrecorded event",
    )?;
    let untimed = queue.record(Timing::Disabled)?;
    untimed.synchronize()?;
    let result = untimed.elapsed_since(&start);
    ensure_error(
        result,
        ErrorKind::InvalidArgument,
        "the time of an event without timing",
    )?;
    end.elapsed_since(&start).map(drop).map_err(Stop::from)
}
