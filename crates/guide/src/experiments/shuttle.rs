//! Do pinned buffers that are kept for ever, as a shuttle for pageable tensors, help?

use pinlane::{Device, DeviceOptions, Tree as _};
use pinlane_driver::{MemCopy, sync::Arc};

use crate::{
    context::{Context, Ways},
    error::Result,
    experiment::Experiment,
    outcome::{
        Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::{DeviceBlock, PinnedBlock, Plain},
    verdict::{Judgement, Verdict},
    workload::Tensors,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "shuttle",
    claim: "Keeping pinned buffers for ever, to shuttle pageable tensors through, does not help.",
    shows: "One thread with one buffer against to(device); then pinlane's lanes, which are such shuttles, many and overlapped.",
    run,
};

fn run(context: &Context<'_>) -> Result<Outcome> {
    let mut ways = context.ways();
    let mut parts = Vec::new();
    for list in context.workload.lists()? {
        parts.push(shuttles(context, &mut ways, &list)?);
    }
    Ok(Outcome::new(ways.into_rows(), Judgement::of_parts(&parts)))
}

fn shuttles(context: &Context<'_>, ways: &mut Ways<'_>, list: &Tensors) -> Result<Judgement> {
    let sources = list.bytes()?;
    ways.group(&list.label);
    let plain = ways.time(
        Guide,
        "to(device)",
        || context.plain.to_each(&sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    let largest = sources.iter().map(|source| source.len()).max().unwrap_or(0);
    let buffer = context.plain.pinned_empty(largest)?;
    let one = ways.time(
        Guide,
        "one thread, one buffer for ever",
        || shuttle(&context.plain, &buffer, &sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    let one_lane = DeviceOptions {
        lanes: Some(1),
        slots_per_lane: Some(1),
        ..DeviceOptions::default()
    };
    let one_lane = Device::with_options(Arc::clone(context.driver()), &one_lane)?;
    ways.time(
        Pinlane,
        "to(device), 1 lane, 1 slot",
        || Ok(list.tensors.to(&one_lane)?),
        |landed| context.engine_holds(landed, &sources),
    )?;
    let lanes = ways.time(
        Pinlane,
        "to(device), all lanes",
        || Ok(list.tensors.to(context.device)?),
        |landed| context.engine_holds(landed, &sources),
    )?;
    let one = plain.median_seconds / one.median_seconds;
    let lanes = plain.median_seconds / lanes.median_seconds;
    Ok(Judgement::new(
        judge(one, lanes),
        format!(
            "{}: one buffer {one:.2}x, lanes {lanes:.2}x as fast as to(device)",
            list.label
        ),
    ))
}

/// The claim says that no shuttle helps: it falls as soon as one is faster than the plain way.
fn judge(one: f64, lanes: f64) -> Verdict {
    match Verdict::of_speedup(one.max(lanes)) {
        Verdict::Holds => Verdict::DoesNotHold,
        Verdict::DoesNotHold => Verdict::Holds,
        Verdict::Depends => Verdict::Depends,
    }
}

/// Each tensor through `buffer`, which is free again only when its copy is done.
fn shuttle(plain: &Plain, buffer: &PinnedBlock, sources: &[&[u8]]) -> Result<Vec<DeviceBlock>> {
    sources
        .iter()
        .map(|source| {
            assert!(
                source.len() <= buffer.bytes(),
                "the buffer holds the largest tensor"
            );
            let landed = plain.device_empty(source.len())?;
            // SAFETY: the buffer is long enough, nobody else has it, and the copy of the tensor before is done. The
            // buffer and the device block outlive the copy, which is done when the stream is synchronised.
            unsafe {
                buffer
                    .as_ptr()
                    .copy_from_nonoverlapping(source.as_ptr(), source.len());
                plain
                    .stream()
                    .copy(MemCopy::to_device(landed.ptr(), buffer.as_ptr(), source.len()))?;
            }
            plain.synchronize()?;
            Ok(landed)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_falls_when_any_shuttle_is_faster() {
        assert_eq!(judge(0.9, 2.0), Verdict::DoesNotHold);
        assert_eq!(judge(1.2, 0.5), Verdict::DoesNotHold);
        assert_eq!(judge(0.9, 0.8), Verdict::Holds);
        assert_eq!(judge(1.0, 0.8), Verdict::Depends);
    }
}
