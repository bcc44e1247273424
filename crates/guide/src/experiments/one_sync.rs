//! Is it the one synchronisation, instead of one for each tensor, that makes non-blocking copies faster?

use pinlane::Tree as _;

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    operations::OperationTable,
    outcome::{
        Figure, Outcome,
        Owner::{self, Guide, Pinlane},
    },
    units,
    verdict::{Judgement, Verdict},
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "one-sync",
    claim: "Non-blocking copies are faster because one synchronisation replaces one for each tensor.",
    shows: "The operations of both ways and of pinlane's: how often each was called, and where the time went.",
    run,
};

fn run(context: &Context<'_>) -> Result<Outcome> {
    let list = context.workload.many_small()?;
    let sources = list.bytes()?;
    let count = sources.len() as u64;
    let mut ways = context.ways();
    ways.group(&list.label);
    let mut waits = |owner: Owner, way: &str, table: &OperationTable, verified: bool| {
        let figure = Figure::Count {
            count: table.calls("wait"),
            of: count,
            counted: "possible waits",
        };
        ways.add(owner, way, figure, Some(verified));
    };

    // A first round of each fills the caches: what is compared is the steady state.
    context.plain.to_each(&sources)?;
    let (landed, blocking) = context.recorder.record(|| context.plain.to_each(&sources));
    waits(
        Guide,
        "to(device)",
        &blocking,
        context.plain_holds(&landed?, &sources)?,
    );

    context.plain.to_each_non_blocking(&sources)?;
    let (landed, non_blocking) = context
        .recorder
        .record(|| context.plain.to_each_non_blocking(&sources));
    waits(
        Guide,
        "to(device, non_blocking=True), one sync",
        &non_blocking,
        context.plain_holds(&landed?, &sources)?,
    );

    list.tensors.to(context.device)?;
    let (landed, engine) = context.recorder.record(|| list.tensors.to(context.device));
    waits(
        Pinlane,
        "to(device) of the list",
        &engine,
        context.engine_holds(&landed?, &sources)?,
    );

    let judgement = judge(&blocking, &non_blocking);
    Ok(Outcome::new(ways.into_rows(), judgement)
        .with_table("the guide's to(device) of each tensor", blocking)
        .with_table(
            "the guide's to(device, non_blocking=True) of each tensor, one synchronisation",
            non_blocking,
        )
        .with_table("pinlane's to(device) of the list", engine))
}

/// The claim holds where the waits are fewer, time is saved, and at least half of what is saved was spent waiting.
fn judge(blocking: &OperationTable, non_blocking: &OperationTable) -> Judgement {
    let waited = |table: &OperationTable| table.get("wait").map_or(0.0, |wait| wait.total_seconds);
    let saved = blocking.self_seconds() - non_blocking.self_seconds();
    let saved_waiting = waited(blocking) - waited(non_blocking);
    let fewer = non_blocking.calls("wait") < blocking.calls("wait");
    let faster = Verdict::of_speedup(blocking.self_seconds() / non_blocking.self_seconds());
    let verdict = match faster {
        Verdict::Holds if fewer => Verdict::of_fact(saved_waiting >= 0.5 * saved),
        Verdict::Holds => Verdict::DoesNotHold,
        other => other,
    };
    Judgement::new(
        verdict,
        format!(
            "{} waits took {}, {} took {}; of {} in all, non-blocking saves {}",
            blocking.calls("wait"),
            units::time(waited(blocking)),
            non_blocking.calls("wait"),
            units::time(waited(non_blocking)),
            units::time(blocking.self_seconds()),
            if saved > 0.0 {
                units::time(saved)
            } else {
                "nothing".to_owned()
            },
        ),
    )
}

#[cfg(test)]
mod tests {
    use crate::operations::Operation;

    use super::*;

    fn table(wait_calls: u64, wait_seconds: f64, copy_seconds: f64) -> OperationTable {
        let operation = |name: &str, seconds, calls| Operation {
            name: name.to_owned(),
            self_seconds: seconds,
            total_seconds: seconds,
            calls,
        };
        OperationTable {
            operations: vec![
                operation("wait", wait_seconds, wait_calls),
                operation("copy", copy_seconds, 1000),
            ],
        }
    }

    #[test]
    fn the_claim_holds_only_when_the_time_saved_is_waiting_time() {
        let blocking = table(1000, 0.008, 0.002);
        assert_eq!(judge(&blocking, &table(1, 0.001, 0.002)).verdict, Verdict::Holds);
        assert_eq!(
            judge(&table(1000, 0.001, 0.009), &table(1, 0.001, 0.002)).verdict,
            Verdict::DoesNotHold
        );
        assert_eq!(
            judge(&blocking, &table(1000, 0.001, 0.002)).verdict,
            Verdict::DoesNotHold
        );
        assert_eq!(
            judge(&blocking, &table(1, 0.008, 0.002)).verdict,
            Verdict::Depends
        );
        assert_eq!(
            judge(&blocking, &table(1, 0.018, 0.002)).verdict,
            Verdict::DoesNotHold
        );
    }
}
