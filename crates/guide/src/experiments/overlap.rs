//! When do copies run beside other work of the device?
//!
//! Events around each piece of work tell when it began and ended. An event on an idle stream fires at once, though the
//! copy behind it may still queue for an engine: so a piece counts as running only for as long as it takes alone, up to
//! its end.

use std::time::{Duration, Instant};

use pinlane::{Tree as _, trace};
use pinlane_driver::{Event, MemCopy, Stream, Timing, sim::CopyEngines};

use crate::{
    context::{Context, Ways},
    error::Result,
    experiment::Experiment,
    outcome::{
        Figure, Landed, Outcome, Owner,
        Owner::{Guide, Pinlane},
    },
    plain::Plain,
    simulated,
    timeline::{Interval, Timeline},
    verdict::{Judgement, Verdict},
    workload::Tensors,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "overlap",
    claim: "Copies run beside other work only with a free copy engine, a side stream and a pinned source.",
    shows: "A copy and then a task of its length are enqueued; then a copy in each direction; then pinlane's transfer of pageable memory and a task. Events tell the time, pinlane's by its own trace.",
    run,
};

/// From this share on, two things count as overlapping.
const BESIDE: f64 = 0.5;
/// Up to this share, two things count as one after the other.
const APART: f64 = 0.2;
/// Each case is tried so often; the one in the middle counts.
const TRIES: usize = 5;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let tensors = context.workload.one(16 << 20)?;
    let source = tensors.bytes()?[0];
    let mut ways = context.ways();
    let mut timelines = Vec::new();
    let mut parts = Vec::new();

    ways.group(format!("a copy of {} to the device, then a task", tensors.label));
    for (side, pinned) in [(false, false), (false, true), (true, false), (true, true)] {
        let way = format!(
            "{} stream, {} source",
            if side { "side" } else { "same" },
            if pinned { "pinned" } else { "pageable" }
        );
        ways.begin(&way);
        let beside = middle_of(|| copy_then_task(&context.plain, source, side, pinned))?;
        timelines.push(add(&mut ways, Guide, &way, "task", &beside));
        parts.push(judge(&way, beside.share(), side && pinned));
    }

    ways.group(format!(
        "a copy of {} to the device and one from it",
        tensors.label
    ));
    let own = context.driver().properties().copy_engines;
    let mut engines = vec![(own, None)];
    if context.driver().properties().simulated {
        let other = if own == 1 {
            CopyEngines::Two
        } else {
            CopyEngines::One
        };
        let driver = simulated::driver_with_engines(other)?;
        engines.push((driver.properties().copy_engines, Some(Plain::new(&driver)?)));
    }
    for (count, plain) in &engines {
        let way = format!(
            "side streams, pinned, {count} copy engine{}",
            if *count == 1 { "" } else { "s" }
        );
        ways.begin(&way);
        let plain = plain.as_ref().unwrap_or(&context.plain);
        let beside = middle_of(|| both_directions(plain, source))?;
        timelines.push(add(&mut ways, Guide, &way, "copy from", &beside));
        parts.push(judge(&way, beside.share(), *count > 1));
    }

    ways.group(format!(
        "pinlane's transfer of {}, pageable, then a task",
        tensors.label
    ));
    let way = "transfer(device), task, wait()";
    ways.begin(way);
    let tries = (0..TRIES).filter_map(|_| transfer_then_task(context, &tensors).transpose());
    let tries = tries.collect::<Result<Vec<_>>>()?;
    let is_timed = !tries.is_empty();
    if is_timed {
        timelines.push(add(&mut ways, Pinlane, way, "task", &middle(tries)));
    }

    let mut outcome = Outcome::new(ways.into_rows(), Judgement::of_parts(&parts));
    if !is_timed {
        outcome = outcome.with_note(format!(
            "`{way}` has no row: in none of {TRIES} tries did the trace have the times of all copies."
        ));
    }
    Ok(timelines.into_iter().fold(outcome, Outcome::with_timeline))
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

/// Tries several times and keeps one of the tries.
fn middle_of(mut case: impl FnMut() -> Result<Beside>) -> Result<Beside> {
    let tries = (0..TRIES).map(|_| case()).collect::<Result<Vec<_>>>()?;
    Ok(middle(tries))
}

/// The try in the middle, or one whose bytes are wrong. There is at least one try.
fn middle(mut tries: Vec<Beside>) -> Beside {
    tries.sort_by(|a, b| a.share().total_cmp(&b.share()));
    let place = tries
        .iter()
        .position(|beside| !beside.verified)
        .unwrap_or(tries.len() / 2);
    tries.swap_remove(place)
}

/// Adds the row and returns what ran when.
fn add(ways: &mut Ways<'_>, owner: Owner, way: &str, other: &str, beside: &Beside) -> Timeline {
    let overlap = beside.share();
    ways.add(
        owner,
        way,
        Figure::Overlap { overlap },
        Landed::of_check(beside.verified),
    );
    let title = match owner {
        Guide => way.to_owned(),
        Pinlane => format!("pinlane: {way}"),
    };
    Timeline::new(title, &[(other, beside.other), ("copy to", beside.copy)])
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
        let end = stream.record(Timing::Enabled)?;
        Ok(Self { start, end })
    }

    fn length(&self) -> Result<Duration> {
        Ok(self.end.elapsed_since(&self.start)?)
    }

    /// When the work ran, which takes `alone` when nothing is in its way.
    fn since(&self, origin: &Event, alone: Duration) -> Result<Interval> {
        let start = self.start.elapsed_since(origin)?;
        let end = self.end.elapsed_since(origin)?;
        Ok(Interval {
            start: start.max(end.saturating_sub(alone)).as_secs_f64(),
            end: end.as_secs_f64(),
        })
    }
}

fn copy_then_task(plain: &Plain, source: &[u8], side: bool, pinned: bool) -> Result<Beside> {
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
    // The block may come from the cache while its last use is still enqueued on the current stream.
    plain.synchronize()?;
    let copy = || {
        Span::around(copies, || {
            let copy = MemCopy::to_device(landed.ptr(), from, source.len());
            // SAFETY: both ranges have that many bytes and live, unchanged, until `copies` is synchronised below,
            // whatever fails in between.
            unsafe { copies.copy(copy)? };
            Ok(())
        })
    };
    let alone = copy();
    copies.synchronize()?;
    let alone = alone?.length()?;

    let origin = compute.record(Timing::Enabled)?;
    let enqueued = copy().and_then(|copy| {
        let task = Span::around(compute, || Ok(driver.busy(alone, compute.raw())?))?;
        Ok((copy, task))
    });
    side_stream.synchronize().and(compute.synchronize())?;
    let (copy, task) = enqueued?;
    Ok(Beside {
        copy: copy.since(&origin, alone)?,
        other: task.since(&origin, alone)?,
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
    let copy_to = || {
        Span::around(to, || {
            let copy = MemCopy::to_device(landed.ptr(), block.as_ptr(), source.len());
            // SAFETY: both ranges have that many bytes and live, unchanged, until the stream is synchronised below,
            // whatever fails in between.
            unsafe { to.copy(copy)? };
            Ok(())
        })
    };
    let copy_from = || {
        Span::around(&from, || {
            let copy = MemCopy::to_host(back.as_ptr(), there.ptr(), source.len());
            // SAFETY: as above; no other copy touches these two ranges.
            unsafe { from.copy(copy)? };
            Ok(())
        })
    };
    let to_alone = copy_to();
    to.synchronize()?;
    let from_alone = copy_from();
    from.synchronize()?;
    let (to_alone, from_alone) = (to_alone?.length()?, from_alone?.length()?);

    let origin = to.record(Timing::Enabled)?;
    let (copy_to, copy_from) = (copy_to(), copy_from());
    from.synchronize().and(to.synchronize())?;
    Ok(Beside {
        copy: copy_to?.since(&origin, to_alone)?,
        other: copy_from?.since(&origin, from_alone)?,
        verified: plain.holds(&landed, source)? && !back.differs_now(source),
    })
}

/// Pinlane's copies as its own trace has them. `None` where it does not have the times of all; wrong bytes are told even so, as
/// beside nothing.
fn transfer_then_task(context: &Context<'_>, tensors: &Tensors) -> Result<Option<Beside>> {
    let tensor = &tensors.tensors[0];
    let (compute, driver) = (context.plain.stream(), context.driver());
    let began = Instant::now();
    tensor.transfer(context.device)?.wait()?;
    let alone = began.elapsed();

    let session = trace::start();
    // Fired when it has been waited for: what its event is to the device's times, this moment is to the trace's.
    let origin = compute.record(Timing::Enabled)?;
    compute.synchronize()?;
    let origin_is_at = session.elapsed();
    let transfer = tensor.transfer(context.device)?;
    let task = Span::around(compute, || Ok(driver.busy(alone, compute.raw())?));
    let landed = transfer.wait();
    compute.synchronize()?;
    let (task, landed) = (task?, landed?);
    let traced = session.finish();
    let spans = traced.devices().iter().flat_map(|device| &device.spans);
    let missed = traced.devices().iter().map(|device| device.missed).sum();
    let copy = from_first_to_last(spans.map(|span| (span.start, span.end)), missed, origin_is_at);
    let verified = context.engine_holds(&[landed], &tensors.bytes()?)?;
    let nothing = Interval { start: 0.0, end: 0.0 };
    let copy = copy.or_else(|| (!verified).then_some(nothing));
    let other = task.since(&origin, alone)?;
    Ok(copy.map(|copy| Beside {
        copy,
        other,
        verified,
    }))
}

/// From when the device began with the first copy to when it was done with the last, from `origin` on. `None` without copies, and
/// where the times of some were missed: those may have been the first or the last.
fn from_first_to_last(
    copies: impl Iterator<Item = (Duration, Duration)>,
    missed: u64,
    origin: Duration,
) -> Option<Interval> {
    let (start, end) = copies.reduce(|all, copy| (all.0.min(copy.0), all.1.max(copy.1)))?;
    let since_origin = |at: Duration| at.as_secs_f64() - origin.as_secs_f64();
    (missed == 0).then(|| Interval {
        start: since_origin(start),
        end: since_origin(end),
    })
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

    #[test]
    fn copies_have_a_place_only_where_the_trace_has_the_times_of_all() {
        let seconds = Duration::from_secs;
        let copies = [(seconds(5), seconds(6)), (seconds(3), seconds(4))];
        let place = |copies: &[_], missed| from_first_to_last(copies.iter().copied(), missed, seconds(2));
        let all = Interval { start: 1.0, end: 4.0 };
        assert_eq!(place(&copies, 0), Some(all));
        assert_eq!(place(&copies, 1), None);
        assert_eq!(place(&[], 0), None);
        assert_eq!(place(&[], 3), None);
    }

    #[test]
    fn of_the_tries_that_were_timed_the_one_in_the_middle_counts_or_one_that_is_wrong() {
        let beside = |end, verified| Beside {
            copy: Interval { start: 0.0, end: 1.0 },
            other: Interval {
                start: end - 1.0,
                end,
            },
            verified,
        };
        for count in 1..=TRIES {
            let tries = (0..count).map(|number| beside(1.0 + 0.1 * number as f64, true));
            let right: Vec<_> = tries.collect();
            assert!(middle(right).verified, "{count}");
        }
        let share = middle(vec![beside(2.0, true), beside(1.0, true), beside(1.5, true)]).share();
        assert_eq!(share, 0.5);
        assert!(!middle(vec![beside(1.0, true), beside(2.0, false)]).verified);
    }
}
