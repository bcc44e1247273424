//! What does pinned memory cost to allocate, and what does it take from others?

use pinlane::{DType, HostMemory, Tree as _};
use pinlane_driver::PinnedRange;

use crate::{
    context::{Context, Ways},
    error::Result,
    experiment::Experiment,
    outcome::{
        Figure, Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::{Pages, Plain},
    units,
    verdict::{Judgement, Verdict},
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "pinned-cost",
    claim: "Pinned memory is dear to allocate, and takes RAM from everything else.",
    shows: "Fresh pageable, fresh pinned and pooled pinned memory by size; then what pinning a list of tensors reserves.",
    run,
};

fn run(context: &Context<'_>) -> Result<Outcome> {
    let mut ways = context.ways();
    let mut parts = Vec::new();
    for bytes in context.pick(
        &[64 << 10, 1 << 20, 16 << 20][..],
        &[64 << 10, 1 << 20, 16 << 20, 256 << 20],
    ) {
        let bytes: usize = *bytes;
        let size = units::bytes(bytes as u64);
        ways.group(format!("{size} to write to"));
        let pageable = ways.time_unchecked(Guide, "pageable, fresh", || Ok(Pages::new(bytes)))?;
        let pinned = ways.time_unchecked(Guide, "pinned, fresh", || {
            let pages = Pages::new(bytes);
            // SAFETY: the pages are fresh, and live longer than the range, which is dropped first below.
            let range = unsafe { PinnedRange::new(context.driver(), pages.start(), pages.bytes())? };
            Ok((range, pages))
        })?;
        ways.time_unchecked(Guide, "pinned, from torch's kind of cache", || {
            context.plain.pinned_empty(bytes)
        })?;
        ways.time(
            Pinlane,
            "pinned, from the pool, zeroed",
            || Ok(HostMemory::Pinned(context.device).zeros(DType::U8, &[bytes])?),
            |tensor| Ok(tensor.as_bytes()?.iter().all(|byte| *byte == 0)),
        )?;
        parts.push(Judgement::faster(&size, &pageable, &pinned));
    }
    let dear = Judgement::of_parts(&parts).about("allocating pageable against pinned memory");
    let reserved = reserved(context, &mut ways)?;
    Ok(Outcome::new(
        ways.into_rows(),
        Judgement::of_parts(&[dear, reserved]),
    ))
}

/// Pins a list of tensors, drops it, and looks at what stays locked.
fn reserved(context: &Context<'_>, ways: &mut Ways<'_>) -> Result<Judgement> {
    let list = context.workload.fewer_large()?;
    let sources = list.bytes()?;
    let asked: u64 = sources.iter().map(|source| source.len() as u64).sum();
    ways.group(format!("pinning {}, {}", list.label, units::bytes(asked)));
    let plain = Plain::new(context.driver())?;
    let blocks = plain.pin_each(&sources)?;
    let while_used = plain.pinned_bytes();
    drop(blocks);
    let after = plain.pinned_bytes();
    let memory = |bytes| Figure::Memory {
        peak_pinned_bytes: bytes,
        peak_growth_bytes: None,
    };
    ways.add(Guide, "locked while they live", memory(while_used), None);
    ways.add(Guide, "locked when they are gone", memory(after), None);

    let leased = || context.device.stats().map_or(0, |stats| stats.pinned.leased);
    let before = leased();
    let tensors = list.tensors.pin_memory(context.device)?;
    let engine = leased().saturating_sub(before) as u64;
    drop(tensors);
    ways.add(Pinlane, "locked while they live", memory(engine), None);
    Ok(Judgement::new(
        Verdict::of_fact(after > 0),
        format!(
            "pinning {} locks {}, of which {} stay locked when the tensors are gone",
            units::bytes(asked),
            units::bytes(while_used),
            units::bytes(after)
        ),
    ))
}
