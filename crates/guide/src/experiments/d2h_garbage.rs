//! Does reading the result of a non-blocking copy to the host give garbage?

use pinlane::{Device, Tensor, Tree as _};

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    outcome::{
        Figure, Landed, Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::{DeviceBlock, Plain},
    verdict::{Judgement, Verdict},
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "d2h-garbage",
    claim: "A non-blocking copy to the host that is read without a synchronisation holds garbage; with one, never.",
    shows: "One tensor goes to the host; before each try, every byte of the memory where it lands is made a wrong one.",
    run,
};

const TRIES: usize = 100;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let one = context.workload.one(context.pick(1_000_000, 4_000_000))?;
    let source = one.bytes()?[0];
    let mut ways = context.ways();
    ways.group(format!("{} to the host, {TRIES} tries", one.label));

    let way = "to(cpu, non_blocking=True), read at once";
    ways.begin(way);
    let block = context.plain.to(source)?;
    let (garbage, landed_late) = read_at_once(&context.plain, &block, source)?;
    ways.add(Guide, way, count(garbage), Landed::of_check(landed_late));

    let way = "to(cpu, non_blocking=True), synchronise, read";
    ways.begin(way);
    let garbage_after_sync = read_after_sync(&context.plain, &block, source)?;
    let landed = Landed::of_check(garbage_after_sync == 0);
    ways.add(Guide, way, count(garbage_after_sync), landed);

    let way = "transfer(host).wait()";
    ways.begin(way);
    let garbage_of_engine = pinlane(context, &one.tensors[0], source)?;
    let landed = Landed::of_check(garbage_of_engine == 0);
    ways.add(Pinlane, way, count(garbage_of_engine), landed);

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

fn count(garbage: usize) -> Figure {
    Figure::Count {
        count: garbage as u64,
        of: TRIES as u64,
        counted: "reads gave garbage",
    }
}

/// Puts wrong bytes where the next copy to the host lands, so that what an earlier one left there can't pass for right:
/// the cache lends the block that was dropped first, and there is only this one of its size.
fn spoil(plain: &Plain, wrong: &[u8]) -> Result<()> {
    let next = plain.pinned_empty(wrong.len())?;
    // SAFETY: the block was just lent, so no slice of it lives and the device is done with it.
    unsafe { next.overwrite(wrong) };
    Ok(())
}

/// As many bytes, each another one.
fn wrong(source: &[u8]) -> Vec<u8> {
    source.iter().map(|byte| !byte).collect()
}

/// How many reads gave garbage, and whether the right bytes were there in the end, every time.
fn read_at_once(plain: &Plain, block: &DeviceBlock, source: &[u8]) -> Result<(usize, bool)> {
    let wrong = wrong(source);
    let (mut garbage, mut landed_late) = (0, true);
    for _ in 0..TRIES {
        spoil(plain, &wrong)?;
        let host = plain.to_host_non_blocking(block)?;
        garbage += usize::from(host.differs_now(source));
        plain.synchronize()?;
        landed_late &= !host.differs_now(source);
    }
    Ok((garbage, landed_late))
}

fn read_after_sync(plain: &Plain, block: &DeviceBlock, source: &[u8]) -> Result<usize> {
    let wrong = wrong(source);
    let mut garbage = 0;
    for _ in 0..TRIES {
        spoil(plain, &wrong)?;
        let host = plain.to_host_non_blocking(block)?;
        plain.synchronize()?;
        garbage += usize::from(host.differs_now(source));
    }
    Ok(garbage)
}

fn pinlane(context: &Context<'_>, tensor: &Tensor, source: &[u8]) -> Result<usize> {
    let on_device = tensor.to(context.device)?;
    let mut garbage = 0;
    for _ in 0..TRIES {
        let host = on_device.transfer(&Device::host())?.wait()?;
        garbage += usize::from(host.as_bytes()? != source);
    }
    Ok(garbage)
}
