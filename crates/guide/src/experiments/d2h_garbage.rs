//! Does reading the result of a non-blocking copy to the host give garbage?

use pinlane::{Device, Tensor, Tree as _};

use crate::{
    context::{Context, Ways},
    error::Result,
    experiment::Experiment,
    outcome::{
        Figure, Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::DeviceBlock,
    verdict::{Judgement, Verdict},
    workload::Tensors,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "d2h-garbage",
    claim: "A non-blocking copy to the host that is read without a synchronisation holds garbage; with one, never.",
    shows: "Two tensors go to the host in turns, so that what an earlier copy left behind can't pass for the right bytes.",
    run,
};

const TRIES: usize = 100;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let pair = Tensors::of_floats(2, context.pick(250_000, 1_000_000))?;
    let sources = pair.bytes()?;
    let blocks = context.plain.to_each(&sources)?;
    let mut ways = context.ways();
    ways.group(format!("device to host, {TRIES} tries"));

    let way = "to(cpu, non_blocking=True), read at once";
    ways.begin(way);
    let (garbage, landed_late) = read_at_once(context, &blocks, &sources)?;
    add(&mut ways, way, garbage, landed_late);

    let way = "to(cpu, non_blocking=True), synchronise, read";
    ways.begin(way);
    let garbage_after_sync = read_after_sync(context, &blocks, &sources)?;
    add(&mut ways, way, garbage_after_sync, garbage_after_sync == 0);

    let way = "transfer(host).wait()";
    ways.begin(way);
    let garbage_of_engine = pinlane(context, &pair.tensors, &sources)?;
    ways.add(
        Pinlane,
        way,
        count(garbage_of_engine),
        Some(garbage_of_engine == 0),
    );

    let judgement = Judgement::new(
        Verdict::of_parts([
            Verdict::of_fact(garbage > 0),
            Verdict::of_fact(garbage_after_sync == 0),
        ]),
        format!(
            "garbage in {garbage} of {TRIES} tries without a synchronisation, in {garbage_after_sync} with one, in \
             {garbage_of_engine} with pinlane"
        ),
    );
    Ok(Outcome::new(ways.into_rows(), judgement).with_note(
        "pinlane's types can't express the mistake: a Transfer has no way to its tensor but wait() and await.",
    ))
}

fn add(ways: &mut Ways<'_>, way: &str, garbage: usize, verified: bool) {
    ways.add(Guide, way, count(garbage), Some(verified));
}

fn count(garbage: usize) -> Figure {
    Figure::Count {
        count: garbage as u64,
        of: TRIES as u64,
        counted: "reads gave garbage",
    }
}

/// How many reads gave garbage, and whether the right bytes were there in the end, every time.
fn read_at_once(context: &Context<'_>, blocks: &[DeviceBlock], sources: &[&[u8]]) -> Result<(usize, bool)> {
    let (mut garbage, mut landed_late) = (0, true);
    for turn in 0..TRIES {
        let host = context.plain.to_host_non_blocking(&blocks[turn % 2])?;
        garbage += usize::from(host.differs_now(sources[turn % 2]));
        context.plain.synchronize()?;
        landed_late &= !host.differs_now(sources[turn % 2]);
    }
    Ok((garbage, landed_late))
}

fn read_after_sync(context: &Context<'_>, blocks: &[DeviceBlock], sources: &[&[u8]]) -> Result<usize> {
    let mut garbage = 0;
    for turn in 0..TRIES {
        let host = context.plain.to_host_non_blocking(&blocks[turn % 2])?;
        context.plain.synchronize()?;
        garbage += usize::from(host.differs_now(sources[turn % 2]));
    }
    Ok(garbage)
}

fn pinlane(context: &Context<'_>, pair: &[Tensor], sources: &[&[u8]]) -> Result<usize> {
    let on_device = pair.to_vec().to(context.device)?;
    let mut garbage = 0;
    for turn in 0..TRIES {
        let host = on_device[turn % 2].transfer(&Device::host())?.wait()?;
        garbage += usize::from(host.as_bytes()? != sources[turn % 2]);
    }
    Ok(garbage)
}
