//! Is a tree faster with one synchronisation at the end, and faster still when several threads pin it?

use pinlane::TensorMap;

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    outcome::{Outcome, Owner::Guide},
    timer::Measurement,
    verdict::Judgement,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "tree",
    claim: "A tree of tensors moves faster with one synchronisation at the end, and faster still when threads pin it.",
    shows: "Blocking, one synchronisation, 1 to 8 pinning threads; pinlane moves the tree as one transfer.",
    run,
};

fn run(context: &Context<'_>) -> Result<Outcome> {
    let list = context.workload.fewer_large()?;
    let sources = list.bytes()?;
    let plain = &context.plain;
    let mut ways = context.ways();
    ways.group(&list.label);
    let blocking = ways.time(
        Guide,
        "to(device, non_blocking=False)",
        || plain.to_each(&sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    let one_sync = ways.time(
        Guide,
        "to(device), one sync",
        || plain.to_each_non_blocking(&sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    let mut best = None;
    for threads in [1, 2, 4, 8] {
        let pinned = ways.time(
            Guide,
            &format!(
                "non_blocking_pin=True, {threads} thread{}",
                if threads == 1 { "" } else { "s" }
            ),
            || plain.pin_in_threads_then_to_each(&sources, threads),
            |landed| context.plain_holds(landed, &sources),
        )?;
        if best
            .as_ref()
            .is_none_or(|(_, fastest): &(usize, Measurement)| pinned.median_seconds < fastest.median_seconds)
        {
            best = Some((threads, pinned));
        }
    }
    let mut tree = TensorMap::new();
    for (place, tensor) in list.tensors.iter().enumerate() {
        tree.insert(place.to_string(), tensor.clone())?;
    }
    let engine = ways.time_moving("tree.to(device)", &tree, context.device, |landed| {
        let leaves: Vec<_> = landed.flatten().map(|(_, tensor)| tensor.clone()).collect();
        context.engine_holds(&leaves, &sources)
    })?;

    let mut parts = vec![Judgement::faster(
        "one sync against blocking",
        &one_sync,
        &blocking,
    )];
    if let Some((threads, pinned)) = &best {
        let about = format!("the best count of pinning threads ({threads}) against one sync");
        parts.push(Judgement::faster(&about, pinned, &one_sync));
    }
    let fastest = best.map_or(one_sync, |(_, pinned)| pinned);
    let pinlane = Judgement::faster("pinlane against the best pinning threads", &engine, &fastest);
    Ok(Outcome::new(
        ways.into_rows(),
        Judgement::of_parts(&parts).because(&pinlane.reason),
    ))
}
