//! How much is pinned at the most, however much is moved.

use std::time::{Duration, Instant};

use pinlane::{Device, PinnedUsage, Tensor, Tree};
use pinlane_driver::sync::Arc;

use super::{
    Context, Draft, Unit,
    judge::Asked::{Also, AtMost},
    work,
};
use crate::{
    cell::{Direction, Memory},
    error::Result,
    landed::Landed,
    ways::{PINLANE, Sources},
};

/// No round begins after this, however little was moved; the figure does not hold then.
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
    Ok(draft(pinned, moved, context.peak_bytes))
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

/// What was pinned while `moved` bytes were moved, of the `asked` ones. A peak of less would not say much.
fn draft(pinned: PinnedUsage, moved: u64, asked: u64) -> Draft {
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let budget = mebibytes(pinned.budget);
    Draft::new(mebibytes(pinned.peak), Unit::Mebibytes)
        .limit(budget)
        .asked([AtMost(budget), Also("all of it moved", moved >= asked)])
        .detail(format!(
            "{:.1} of {:.1} GB moved, there and back",
            moved as f64 / 1e9,
            asked as f64 / 1e9
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_within_the_budget_holds_only_when_all_that_was_asked_for_was_moved() {
        let judge = |peak, moved| {
            let pinned = PinnedUsage {
                budget: 256 << 20,
                peak,
                ..PinnedUsage::default()
            };
            draft(pinned, moved, 1_000_000_000_000).judge("pinned-peak")
        };
        assert_eq!(judge(256 << 20, 1_000_000_000_000).holds, Some(true));
        assert_eq!(judge((256 << 20) + 1, 1_000_000_000_000).holds, Some(false));
        let cut_short = judge(1 << 20, 999_000_000_000);
        assert_eq!(cut_short.holds, Some(false));
        assert_eq!(cut_short.detail, "999.0 of 1000.0 GB moved, there and back");
    }
}
