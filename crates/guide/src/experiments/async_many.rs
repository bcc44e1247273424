//! Do many non-blocking copies with one synchronisation beat many blocking ones?

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    outcome::{Outcome, Owner::Guide},
    verdict::Judgement,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "async-many",
    claim: "Many to(device, non_blocking=True) and one synchronisation beat as many blocking to(device).",
    shows: "A list of small tensors, one call each; pinlane moves the list as one transfer.",
    run,
};

fn run(context: &Context<'_>) -> Result<Outcome> {
    let list = context.workload.many_small()?;
    let sources = list.bytes()?;
    let mut ways = context.ways();
    ways.group(&list.label);
    let blocking = ways.time(
        Guide,
        "to(device)",
        || context.plain.to_each(&sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    let non_blocking = ways.time(
        Guide,
        "to(device, non_blocking=True), one sync",
        || context.plain.to_each_non_blocking(&sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    let engine = ways.time_moving(
        "to(device) of the list",
        &list.tensors,
        context.device,
        |landed| context.engine_holds(landed, &sources),
    )?;
    let judgement = Judgement::faster("non-blocking against blocking", &non_blocking, &blocking);
    let pinlane = Judgement::faster(
        "pinlane's one transfer against non-blocking",
        &engine,
        &non_blocking,
    );
    Ok(Outcome::new(ways.into_rows(), judgement.because(&pinlane.reason)))
}
