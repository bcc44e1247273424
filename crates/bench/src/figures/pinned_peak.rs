//! How much is pinned at the most, however much is moved.

use std::time::{Duration, Instant};

use pinlane::{Device, Tree};
use pinlane_driver::sync::Arc;

use super::{Context, Draft, Unit, judge::Asked::AtMost, work};
use crate::{
    cell::{Direction, Memory},
    error::Result,
    landed::Landed,
    ways::PINLANE,
};

/// The longest that is moved, however little it was.
const LONGEST: Duration = Duration::from_secs(45);

pub(super) fn pinned_peak(context: &Context<'_>) -> Result<Draft> {
    let rig = context.rig;
    let device = Device::with_options(Arc::clone(rig.driver()), &rig.options())?;
    let cell = work::one_gib(Direction::H2d, Memory::Pageable, context.scale);
    let sources = rig.sources(cell, &device)?;
    let began = Instant::now();
    let mut moved = 0;
    // There and back again: both directions go through the same slots.
    while moved < context.peak_bytes && began.elapsed() < LONGEST {
        let there = sources.tensors().to(&device)?;
        moved += cell.total() as u64;
        drop(there.to(&Device::host())?);
        moved += cell.total() as u64;
    }
    rig.check(
        &sources,
        PINLANE,
        Landed::OnDevice(sources.tensors().to(&device)?),
    )?;
    let pinned = device.stats().map(|stats| stats.pinned).unwrap_or_default();
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let budget = mebibytes(pinned.budget);
    Ok(Draft::new(mebibytes(pinned.peak), Unit::Mebibytes)
        .limit(budget)
        .asked([AtMost(budget)])
        .detail(format!("{:.1} GB moved, there and back", moved as f64 / 1e9)))
}
