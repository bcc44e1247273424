//! The six ways: pinned by hand, pageable or pinned before; blocking or not.

use pinlane::Tree as _;

use crate::{
    context::{Context, Ways},
    error::Result,
    experiment::Experiment,
    outcome::{Outcome, Owner::Guide},
    plain::{DeviceBlock, Plain},
    verdict::Judgement,
    workload::Tensors,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "synergies",
    claim: "From any memory non-blocking beats blocking; pinning by hand first costs more than it brings.",
    shows: "Pin then copy, pageable and pinned before, each blocking and not; pinlane from pageable and pinned memory.",
    run,
};

fn run(context: &Context<'_>) -> Result<Outcome> {
    let mut ways = context.ways();
    let mut parts = Vec::new();
    for list in context.workload.lists()? {
        parts.push(six_ways(context, &mut ways, &list)?);
    }
    Ok(Outcome::new(ways.into_rows(), Judgement::of_parts(&parts)))
}

fn six_ways(context: &Context<'_>, ways: &mut Ways<'_>, list: &Tensors) -> Result<Judgement> {
    let (plain, sources) = (&context.plain, list.bytes()?);
    ways.group(&list.label);
    let mut guide = |way: &str, run: &dyn Fn(&Plain) -> Result<Vec<DeviceBlock>>| {
        ways.time(
            Guide,
            way,
            || run(plain),
            |landed| context.plain_holds(landed, &sources),
        )
    };
    let pin = guide("pin_memory().to(device)", &|plain| {
        plain.pin_then_to_each(&sources)
    })?;
    let pin_async = guide("pin_memory().to(device, non_blocking=True)", &|plain| {
        plain.pin_then_to_each_non_blocking(&sources)
    })?;
    let pageable = guide("to(device)", &|plain| plain.to_each(&sources))?;
    let pageable_async = guide("to(device, non_blocking=True)", &|plain| {
        plain.to_each_non_blocking(&sources)
    })?;
    let blocks = plain.pin_each(&sources)?;
    let pinned = guide("pinned.to(device)", &|plain| plain.pinned_to_each(&blocks))?;
    let pinned_async = guide("pinned.to(device, non_blocking=True)", &|plain| {
        plain.pinned_to_each_non_blocking(&blocks)
    })?;
    drop(blocks);

    ways.time_moving(
        "to(device) of the list",
        &list.tensors,
        context.device,
        |landed| context.engine_holds(landed, &sources),
    )?;
    let tensors = list.tensors.pin_memory(context.device)?;
    ways.time_moving(
        "pinned: to(device) of the list",
        &tensors,
        context.device,
        |landed| context.engine_holds(landed, &sources),
    )?;

    Ok(Judgement::of_parts(&[
        Judgement::of_parts(&[
            Judgement::faster("pinned by hand", &pin_async, &pin),
            Judgement::faster("pageable", &pageable_async, &pageable),
            Judgement::faster("pinned before", &pinned_async, &pinned),
        ])
        .about("non-blocking against blocking"),
        Judgement::faster("not pinning against pinning by hand", &pageable_async, &pin_async),
    ])
    .about(&list.label))
}
