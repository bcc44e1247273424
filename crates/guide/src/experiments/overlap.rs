//! When do copies run beside other work of the device?

use std::{
    slice,
    time::{Duration, Instant},
};

use pinlane::Tree as _;

use pinlane_driver::{Event, MemCopy, Stream, Timing, sim::CopyEngines};

use crate::{
    context::{Context, Ways},
    error::Result,
    experiment::Experiment,
    outcome::{
        Figure, Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::Plain,
    simulated,
    timeline::{self, Interval},
    verdict::{Judgement, Verdict},
    workload::Tensors,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "overlap",
    claim: "Copies run beside other work only with a free copy engine, a side stream and a pinned source.",
    shows: "A copy and then a task of about its length are enqueued; then a copy in each direction. Events tell the time.",
    run,
};

/// From this share on, two things count as overlapping.
const BESIDE: f64 = 0.5;
/// Up to this share, two things count as one after the other.
const APART: f64 = 0.2;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let tensors = Tensors::of_floats(1, context.pick(1 << 20, 4 << 20))?;
    let source = tensors.bytes()?[0];
    let mut ways = context.ways();
    let mut drawings = Vec::new();
    let mut parts = Vec::new();

    ways.group("a copy to the device, then a task");
    for (side, pinned) in [(false, false), (false, true), (true, false), (true, true)] {
        let way = format!(
            "{} stream, {} source",
            if side { "side" } else { "same" },
            if pinned { "pinned" } else { "pageable" }
        );
        ways.begin(&way);
        let beside = copy_then_task(&context.plain, source, side, pinned)?;
        drawings.push(add(&mut ways, &way, "task", &beside));
        parts.push(judge(&way, beside.share(), side && pinned));
    }

    ways.group("a copy to the device and one from it");
    let own = context.driver().properties().copy_engines;
    let mut engines = vec![(own, None)];
    if context.driver().properties().simulated {
        let driver = simulated::driver_with_engines(if own == 1 {
            CopyEngines::Two
        } else {
            CopyEngines::One
        })?;
        engines.push((driver.properties().copy_engines, Some(Plain::new(&driver)?)));
    }
    for (count, plain) in &engines {
        let way = format!(
            "side streams, pinned, {count} copy engine{}",
            if *count == 1 { "" } else { "s" }
        );
        ways.begin(&way);
        let beside = both_directions(plain.as_ref().unwrap_or(&context.plain), source)?;
        drawings.push(add(&mut ways, &way, "copy from", &beside));
        parts.push(judge(&way, beside.share(), *count > 1));
    }

    pinlane(context, &mut ways, &tensors)?;

    let outcome = Outcome::new(ways.into_rows(), Judgement::of_parts(&parts));
    Ok(drawings.into_iter().fold(outcome, Outcome::with_picture))
}

/// Two things that could have run beside each other, and whether the copied bytes were right.
struct Beside {
    copy: Interval,
    other: Interval,
    verified: bool,
}

impl Beside {
    fn share(&self) -> f64 {
        self.copy.overlap(self.other)
    }
}

/// Adds the row and returns the drawing.
fn add(ways: &mut Ways<'_>, way: &str, other: &str, beside: &Beside) -> String {
    let overlap = beside.share();
    ways.add(Guide, way, Figure::Overlap { overlap }, Some(beside.verified));
    timeline::draw(way, &[(other, beside.other), ("copy to", beside.copy)])
}

fn judge(way: &str, share: f64, expected: bool) -> Judgement {
    let verdict = match (share, expected) {
        (share, true) if share >= BESIDE => Verdict::Holds,
        (share, true) if share <= APART => Verdict::DoesNotHold,
        (share, false) if share <= APART => Verdict::Holds,
        (share, false) if share >= BESIDE => Verdict::DoesNotHold,
        _ => Verdict::Depends,
    };
    Judgement::new(verdict, format!("{way}: {:.0}%", 100.0 * share))
}

/// The events around a piece of work on a stream.
struct Span {
    start: Event,
    end: Event,
}

impl Span {
    fn around(stream: &Stream, enqueue: impl FnOnce() -> Result<()>) -> Result<Self> {
        let start = stream.record(Timing::Enabled)?;
        enqueue()?;
        Ok(Self {
            start,
            end: stream.record(Timing::Enabled)?,
        })
    }

    fn since(&self, origin: &Event) -> Result<Interval> {
        Ok(Interval {
            start: self.start.elapsed_since(origin)?.as_secs_f64(),
            end: self.end.elapsed_since(origin)?.as_secs_f64(),
        })
    }
}

/// How long the device takes to copy `source` from pinned memory.
fn copy_time(plain: &Plain, source: &[u8]) -> Result<Duration> {
    let pinned = plain.pin_memory(source)?;
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let start = plain.stream().record(Timing::Enabled)?;
        plain.pinned_to_non_blocking(&pinned)?;
        let end = plain.stream().record(Timing::Enabled)?;
        plain.synchronize()?;
        shortest = shortest.min(end.elapsed_since(&start)?);
    }
    Ok(shortest)
}

fn copy_then_task(plain: &Plain, source: &[u8], side: bool, pinned: bool) -> Result<Beside> {
    let task = copy_time(plain, source)?;
    let (compute, driver) = (plain.stream(), plain.stream().driver());
    let side_stream = Stream::new(driver)?;
    let copies = if side { &side_stream } else { compute };
    let block = plain.pin_memory(source)?;
    let from = if pinned {
        block.as_ptr().cast_const()
    } else {
        source.as_ptr()
    };
    let landed = plain.device_empty(source.len())?;

    let origin = compute.record(Timing::Enabled)?;
    let enqueued = Span::around(copies, || {
        let copy = MemCopy::to_device(landed.ptr(), from, source.len());
        // SAFETY: both ranges have that many bytes and live, unchanged, until both streams are synchronised below,
        // whatever fails in between.
        Ok(unsafe { copies.copy(copy)? })
    })
    .and_then(|copy| {
        let task = Span::around(compute, || Ok(driver.busy(task, compute.raw())?))?;
        Ok((copy, task))
    });
    side_stream.synchronize()?;
    compute.synchronize()?;
    let (copy, task) = enqueued?;
    Ok(Beside {
        copy: copy.since(&origin)?,
        other: task.since(&origin)?,
        verified: plain.holds(&landed, source)?,
    })
}

fn both_directions(plain: &Plain, source: &[u8]) -> Result<Beside> {
    let (to, from) = (plain.stream(), Stream::new(plain.stream().driver())?);
    let block = plain.pin_memory(source)?;
    let there = plain.to(source)?;
    let (landed, back) = (
        plain.device_empty(source.len())?,
        plain.pinned_empty(source.len())?,
    );

    let origin = to.record(Timing::Enabled)?;
    let enqueued = Span::around(to, || {
        let copy = MemCopy::to_device(landed.ptr(), block.as_ptr(), source.len());
        // SAFETY: both ranges have that many bytes and live, unchanged, until both streams are synchronised below,
        // whatever fails in between.
        Ok(unsafe { to.copy(copy)? })
    })
    .and_then(|copy_to| {
        let copy_from = Span::around(&from, || {
            let copy = MemCopy::to_host(back.as_ptr(), there.ptr(), source.len());
            // SAFETY: as above; no other copy touches these two ranges.
            Ok(unsafe { from.copy(copy)? })
        })?;
        Ok((copy_to, copy_from))
    });
    from.synchronize()?;
    to.synchronize()?;
    let (copy_to, copy_from) = enqueued?;
    Ok(Beside {
        copy: copy_to.since(&origin)?,
        other: copy_from.since(&origin)?,
        verified: plain.holds(&landed, source)? && !back.differs_now(source),
    })
}

/// A task on the caller's stream beside pinlane's transfer of a pageable tensor, by the host's clock.
fn pinlane(context: &Context<'_>, ways: &mut Ways<'_>, tensors: &Tensors) -> Result<()> {
    ways.group("a task beside pinlane's transfer of a pageable tensor");
    let way = "transfer(device), task, wait()";
    ways.begin(way);
    let tensor = &tensors.tensors[0];
    let compute = context.plain.stream();
    let alone = |mut work: Box<dyn FnMut() -> Result<()> + '_>| -> Result<f64> {
        let mut shortest = f64::INFINITY;
        for _ in 0..3 {
            let began = Instant::now();
            work()?;
            shortest = shortest.min(began.elapsed().as_secs_f64());
        }
        Ok(shortest)
    };
    let transfer = alone(Box::new(|| {
        tensor.transfer(context.device)?.wait()?;
        Ok(())
    }))?;
    let busy = || -> Result<()> {
        Ok(context
            .driver()
            .busy(Duration::from_secs_f64(transfer), compute.raw())?)
    };
    let task = alone(Box::new(|| {
        busy()?;
        Ok(compute.synchronize()?)
    }))?;
    let mut landed = None;
    let both = alone(Box::new(|| {
        let flying = tensor.transfer(context.device)?;
        busy()?;
        landed = Some(flying.wait()?);
        Ok(compute.synchronize()?)
    }))?;
    let overlap = ((transfer + task - both) / transfer.min(task)).clamp(0.0, 1.0);
    let verified = context.engine_holds(landed.as_ref().map_or(&[], slice::from_ref), &tensors.bytes()?)?;
    ways.add(Pinlane, way, Figure::Overlap { overlap }, Some(verified));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_judged_by_what_overlapped_and_what_should_have() {
        assert_eq!(judge("", 0.9, true).verdict, Verdict::Holds);
        assert_eq!(judge("", 0.1, true).verdict, Verdict::DoesNotHold);
        assert_eq!(judge("", 0.1, false).verdict, Verdict::Holds);
        assert_eq!(judge("", 0.9, false).verdict, Verdict::DoesNotHold);
        assert_eq!(judge("", 0.3, true).verdict, Verdict::Depends);
        assert_eq!(judge("", 0.3, false).verdict, Verdict::Depends);
    }
}
