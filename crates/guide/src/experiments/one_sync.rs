//! Is it the one synchronisation, instead of one for each tensor, that makes non-blocking copies faster?

use pinlane::{
    Tree as _,
    trace::{self, OperationTable},
};

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    outcome::{
        Figure, Landed, Outcome,
        Owner::{self, Guide, Pinlane},
    },
    timer::Measurement,
    units,
    verdict::{Judgement, Verdict},
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "one-sync",
    claim: "Non-blocking copies are faster because one synchronisation replaces one for each tensor.",
    shows: "The operations of both ways and of pinlane's: how often each was called, and where the time went.",
    run,
};

/// How often each way is recorded.
const ROUNDS: usize = 5;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let list = context.workload.many_small()?;
    let sources = list.bytes()?;
    let count = sources.len() as u64;
    let mut ways = context.ways();
    ways.group(&list.label);
    let mut waits = |owner: Owner, way: &str, rounds: &Rounds| {
        let figure = Figure::Count {
            count: rounds.middle.calls("wait"),
            of: count,
            counted: "possible waits",
        };
        ways.add(owner, way, figure, Landed::of_check(rounds.verified));
    };

    let blocking = rounds(
        || context.plain.to_each(&sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    waits(Guide, "to(device)", &blocking);
    let non_blocking = rounds(
        || context.plain.to_each_non_blocking(&sources),
        |landed| context.plain_holds(landed, &sources),
    )?;
    waits(Guide, "to(device, non_blocking=True), one sync", &non_blocking);
    let engine = rounds(
        || Ok(list.tensors.to(context.device)?),
        |landed| context.engine_holds(landed, &sources),
    )?;
    waits(Pinlane, "to(device) of the list", &engine);

    let judgement = judge(&blocking, &non_blocking);
    Ok(Outcome::new(ways.into_rows(), judgement)
        .with_table("the guide's to(device) of each tensor", blocking.middle)
        .with_table(
            "the guide's to(device, non_blocking=True) of each tensor, one synchronisation",
            non_blocking.middle,
        )
        .with_table("pinlane's to(device) of the list", engine.middle))
}

/// What several rounds of one way took.
struct Rounds {
    /// The operations of the round in the middle.
    middle: OperationTable,
    /// The time of each round's operations.
    time: Measurement,
    /// Whether every round landed the right bytes.
    verified: bool,
}

/// Records [`ROUNDS`] of `way`. One before them fills the caches: what is compared is the steady state.
fn rounds<T>(way: impl Fn() -> Result<T>, check: impl Fn(&T) -> Result<bool>) -> Result<Rounds> {
    let mut verified = check(&way()?)?;
    let mut tables = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let (landed, table) = trace::record(&way);
        verified &= check(&landed?)?;
        tables.push(table);
    }
    Ok(Rounds::of(tables, verified))
}

impl Rounds {
    fn of(mut tables: Vec<OperationTable>, verified: bool) -> Self {
        tables.sort_by(|a, b| a.self_seconds().total_cmp(&b.self_seconds()));
        let seconds = tables.iter().map(OperationTable::self_seconds).collect();
        Self {
            time: Measurement::of_samples(seconds, 1),
            middle: tables.swap_remove(tables.len() / 2),
            verified,
        }
    }
}

/// The claim holds where the waits are fewer, time is saved, and at least half of what is saved was spent waiting.
fn judge(blocking: &Rounds, non_blocking: &Rounds) -> Judgement {
    let faster = Judgement::faster(
        "non-blocking against blocking",
        &non_blocking.time,
        &blocking.time,
    );
    let (blocking, non_blocking) = (&blocking.middle, &non_blocking.middle);
    let waited = |table: &OperationTable| table.get("wait").map_or(0.0, |wait| wait.total_seconds);
    let saved = blocking.self_seconds() - non_blocking.self_seconds();
    let saved_waiting = waited(blocking) - waited(non_blocking);
    let fewer = non_blocking.calls("wait") < blocking.calls("wait");
    let verdict = match faster.verdict {
        Verdict::Holds if fewer => Verdict::of_fact(saved_waiting >= 0.5 * saved),
        Verdict::Holds => Verdict::DoesNotHold,
        other => other,
    };
    Judgement::new(
        verdict,
        format!(
            "{}; {} waits took {}, {} took {}; of {} in all, non-blocking saves {}",
            faster.reason,
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
    use pinlane::trace::Operation;

    use super::*;

    fn rounds(wait_calls: u64, wait_seconds: f64, copy_seconds: f64) -> Rounds {
        let operation = |name: &str, seconds, calls| Operation {
            name: name.to_owned(),
            self_seconds: seconds,
            total_seconds: seconds,
            calls,
        };
        let table = OperationTable {
            operations: vec![
                operation("wait", wait_seconds, wait_calls),
                operation("copy", copy_seconds, 1000),
            ],
        };
        Rounds::of(vec![table; ROUNDS], true)
    }

    #[test]
    fn the_claim_holds_only_when_the_time_saved_is_waiting_time() {
        let blocking = rounds(1000, 0.008, 0.002);
        assert_eq!(judge(&blocking, &rounds(1, 0.001, 0.002)).verdict, Verdict::Holds);
        assert_eq!(
            judge(&rounds(1000, 0.001, 0.009), &rounds(1, 0.001, 0.002)).verdict,
            Verdict::DoesNotHold
        );
        assert_eq!(
            judge(&blocking, &rounds(1000, 0.001, 0.002)).verdict,
            Verdict::DoesNotHold
        );
        assert_eq!(
            judge(&blocking, &rounds(1, 0.008, 0.002)).verdict,
            Verdict::Depends
        );
        assert_eq!(
            judge(&blocking, &rounds(1, 0.018, 0.002)).verdict,
            Verdict::DoesNotHold
        );
    }
}
