//! How much is pinned at the most, however much is moved.

use std::time::{Duration, Instant};

use pinlane::{Device, PinnedUsage, Tensor, Tree};
use pinlane_driver::sync::Arc;

use super::{Context, Draft, Unit, judge::Asked::AtMost, work};
use crate::{
    cell::{Direction, Memory},
    error::Result,
    landed::Landed,
    ways::{PINLANE, Sources},
};

/// The longest that is moved, however little it was.
const LONGEST: Duration = Duration::from_secs(45);

pub(super) fn pinned_peak(context: &Context<'_>) -> Result<Draft> {
    let rig = context.rig;
    let device = Device::with_options(Arc::clone(rig.driver()), &rig.options())?;
    let cell = work::one_gib(Direction::H2d, Memory::Pageable, context.scale);
    let sources = rig.sources(cell, &device)?;
    // There and back again: both directions go through the same slots.
    let there_and_back = || -> Result<_> {
        let there = sources.tensors().to(&device)?;
        let back = there.to(&Device::host())?;
        Ok((there, back))
    };
    let began = Instant::now();
    check(context, &sources, there_and_back()?)?;
    let once = 2 * cell.total() as u64;
    let mut moved = once;
    let mut last = None;
    while moved < context.peak_bytes && began.elapsed() < LONGEST {
        // One round's memory is given back before the next one's is taken.
        drop(last.take());
        last = Some(there_and_back()?);
        moved += once;
    }
    if let Some(last) = last {
        check(context, &sources, last)?;
    }
    let pinned = device.stats().map(|stats| stats.pinned).unwrap_or_default();
    Ok(draft(pinned, moved))
}

/// Refuses what one round has landed with wrong bytes, there or back.
fn check(
    context: &Context<'_>,
    sources: &Sources<'_>,
    (there, back): (Vec<Tensor>, Vec<Tensor>),
) -> Result<()> {
    context.rig.check(sources, PINLANE, Landed::OnDevice(there))?;
    let back = Landed::OnHost {
        pageable: back,
        pinned: Vec::new(),
    };
    context.rig.check(sources, PINLANE, back)
}

/// What was pinned while `moved` bytes were moved.
fn draft(pinned: PinnedUsage, moved: u64) -> Draft {
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let budget = mebibytes(pinned.budget);
    Draft::new(mebibytes(pinned.peak), Unit::Mebibytes)
        .limit(budget)
        .asked([AtMost(budget)])
        .detail(format!("{:.1} GB moved, there and back", moved as f64 / 1e9))
}
