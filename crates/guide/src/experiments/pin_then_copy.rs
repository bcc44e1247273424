//! Does pinning by hand, right before the copy, pay?

use std::slice;

use pinlane::Tree as _;

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    outcome::{
        Outcome,
        Owner::{Guide, Pinlane},
    },
    verdict::Judgement,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "pin-then-copy",
    claim: "Calling pin_memory() right before to(device) is slower than to(device) alone.",
    shows: "One tensor of each size: pageable, pinned before, pinning alone, and pinning then copying.",
    run,
};

fn run(context: &Context<'_>) -> Result<Outcome> {
    let mut ways = context.ways();
    let mut parts = Vec::new();
    for single in context.workload.singles()? {
        let (tensor, sources) = (&single.tensors[0], single.bytes()?);
        ways.group(&single.label);
        let plain = ways.time(
            Guide,
            "to(device)",
            || context.plain.to(sources[0]),
            |landed| context.plain_holds(slice::from_ref(landed), &sources),
        )?;
        let block = context.plain.pin_memory(sources[0])?;
        ways.time(
            Guide,
            "to(device), pinned before",
            || context.plain.pinned_to(&block),
            |landed| context.plain_holds(slice::from_ref(landed), &sources),
        )?;
        drop(block);
        ways.time(
            Guide,
            "pin_memory() alone",
            || context.plain.pin_memory(sources[0]),
            |pinned| Ok(!pinned.differs_now(sources[0])),
        )?;
        let pin_then_copy = ways.time(
            Guide,
            "pin_memory().to(device)",
            || context.plain.pinned_to(&context.plain.pin_memory(sources[0])?),
            |landed| context.plain_holds(slice::from_ref(landed), &sources),
        )?;
        ways.time_moving("to(device)", tensor, context.device, |landed| {
            context.engine_holds(slice::from_ref(landed), &sources)
        })?;
        ways.time(
            Pinlane,
            "pin_memory().to(device)",
            || Ok(tensor.pin_memory(context.device)?.to(context.device)?),
            |landed| context.engine_holds(slice::from_ref(landed), &sources),
        )?;
        parts.push(Judgement::faster(&single.label, &plain, &pin_then_copy));
    }
    Ok(Outcome::new(
        ways.into_rows(),
        Judgement::of_parts(&parts).about("to() alone against pin_memory().to()"),
    ))
}
