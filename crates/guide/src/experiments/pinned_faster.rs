//! Is a pinned source faster than a pageable one?

use std::slice;

use pinlane::Tree as _;

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    outcome::{Outcome, Owner::Guide},
    verdict::Judgement,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "pinned-faster",
    claim: "A tensor in pinned memory reaches the device faster than one in pageable memory.",
    shows: "One tensor of each size, blocking, from both kinds of memory.",
    run,
};

fn run(context: &Context<'_>) -> Result<Outcome> {
    let mut ways = context.ways();
    let mut parts = Vec::new();
    for single in context.workload.singles()? {
        let (tensor, sources) = (&single.tensors[0], single.bytes()?);
        ways.group(&single.label);
        let pageable = ways.time(
            Guide,
            "to(device), pageable",
            || context.plain.to(sources[0]),
            |landed| context.plain_holds(slice::from_ref(landed), &sources),
        )?;
        let block = context.plain.pin_memory(sources[0])?;
        let pinned = ways.time(
            Guide,
            "to(device), pinned",
            || context.plain.pinned_to(&block),
            |landed| context.plain_holds(slice::from_ref(landed), &sources),
        )?;
        ways.time_moving("to(device), pageable", tensor, context.device, |landed| {
            context.engine_holds(slice::from_ref(landed), &sources)
        })?;
        let tensor = tensor.pin_memory(context.device)?;
        ways.time_moving("to(device), pinned", &tensor, context.device, |landed| {
            context.engine_holds(slice::from_ref(landed), &sources)
        })?;
        parts.push(Judgement::faster(&single.label, &pinned, &pageable));
    }
    Ok(Outcome::new(
        ways.into_rows(),
        Judgement::of_parts(&parts).about("pinned against pageable"),
    ))
}
