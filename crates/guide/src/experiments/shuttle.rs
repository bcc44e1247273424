//! Do pinned buffers that are kept for ever, as a shuttle for pageable tensors, help?

use pinlane::{Device, DeviceOptions};
use pinlane_driver::sync::Arc;

use crate::{
    context::{Context, Ways},
    error::Result,
    experiment::Experiment,
    outcome::{Outcome, Owner::Guide},
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
    let one = ways.time(
        Guide,
        "one thread, one buffer for ever",
        || context.plain.shuttle_each(&sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    let one_lane = DeviceOptions {
        lanes: Some(1),
        slots_per_lane: Some(1),
        ..DeviceOptions::default()
    };
    let one_lane = Device::with_options(Arc::clone(context.driver()), &one_lane)?;
    ways.time_moving("to(device), 1 lane, 1 slot", &list.tensors, &one_lane, |landed| {
        context.engine_holds(landed, &sources)
    })?;
    let lanes = ways.time_moving("to(device), all lanes", &list.tensors, context.device, |landed| {
        context.engine_holds(landed, &sources)
    })?;
    let helps = [
        Judgement::faster("one buffer against to(device)", &one, &plain),
        Judgement::faster("lanes against to(device)", &lanes, &plain),
    ];
    Ok(judge(&helps).about(&list.label))
}

/// The claim says that no shuttle helps: it falls as soon as one of them `helps`.
fn judge(helps: &[Judgement]) -> Judgement {
    let any = |verdict| helps.iter().any(|judgement| judgement.verdict == verdict);
    let verdict = if any(Verdict::Holds) {
        Verdict::DoesNotHold
    } else if any(Verdict::Depends) {
        Verdict::Depends
    } else {
        Verdict::Holds
    };
    Judgement::new(verdict, Judgement::of_parts(helps).reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_falls_when_any_shuttle_is_faster() {
        use Verdict::{Depends, DoesNotHold, Holds};
        let verdict = |helps: [Verdict; 2]| judge(&helps.map(|helps| Judgement::new(helps, ""))).verdict;
        assert_eq!(verdict([DoesNotHold, Holds]), DoesNotHold);
        assert_eq!(verdict([Holds, Depends]), DoesNotHold);
        assert_eq!(verdict([DoesNotHold, DoesNotHold]), Holds);
        assert_eq!(verdict([Depends, DoesNotHold]), Depends);
    }
}
