//! Is a non-blocking copy to the device safe when its source changes right after the call?

use pinlane::{Tensor, Tree as _};

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    outcome::{
        Figure, Landed, Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::Plain,
    verdict::{Judgement, Verdict},
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "h2d-mutation",
    claim: "A non-blocking copy to the device is safe, whatever happens after the call.",
    shows: "The source is overwritten right after the call: once it lies in pinned memory, once in pageable memory.",
    run,
};

const TRIES: usize = 100;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let one = context.workload.one(context.pick(1 << 20, 4 << 20))?;
    let before = one.bytes()?[0];
    // Every byte differs, so that no mixture of both can pass for the one that was sent.
    let after: Vec<u8> = before.iter().map(|byte| !byte).collect();
    let mut ways = context.ways();
    ways.group(format!("{} to the device, {TRIES} tries", one.label));

    let way = "pinned source, changed after the call";
    ways.begin(way);
    let corrupt_pinned = change_pinned(&context.plain, before, &after)?;
    ways.add(Guide, way, corrupt(corrupt_pinned), Landed::Counted);

    let way = "pageable source, changed after the call";
    ways.begin(way);
    let corrupt_pageable = change_pageable(&context.plain, before, &after)?;
    let landed = Landed::of_check(corrupt_pageable == 0);
    ways.add(Guide, way, corrupt(corrupt_pageable), landed);

    let way = "pinned tensor, write tried after transfer()";
    ways.begin(way);
    let tried = try_to_change(context, before, &after)?;
    let refused = count(tried.refused, "writes were refused");
    ways.add(Pinlane, way, refused, Landed::Nothing);
    let landed = Landed::of_check(tried.corrupt == 0);
    ways.add(Pinlane, way, corrupt(tried.corrupt), landed);

    // One way that is not safe is enough: the claim makes no exception.
    let judgement = Judgement::new(
        Verdict::of_fact(corrupt_pinned + corrupt_pageable == 0),
        format!(
            "pinned, {corrupt_pinned} of {TRIES} copies were corrupt; pageable, {corrupt_pageable}; with pinlane, {}, \
             and it refused {} of {TRIES} writes",
            tried.corrupt, tried.refused,
        ),
    );
    Ok(Outcome::new(ways.into_rows(), judgement))
}

fn count(count: usize, counted: &'static str) -> Figure {
    Figure::Count {
        count: count as u64,
        of: TRIES as u64,
        counted,
    }
}

fn corrupt(copies: usize) -> Figure {
    count(copies, "copies were corrupt")
}

fn change_pinned(plain: &Plain, before: &[u8], after: &[u8]) -> Result<usize> {
    let mut corrupt = 0;
    for _ in 0..TRIES {
        let source = plain.pin_memory(before)?;
        let block = plain.pinned_to_non_blocking(&source)?;
        // SAFETY: no slice of the block lives and no other thread has it. The device may still read it: whether that
        // spoils the copy is the question.
        unsafe { source.overwrite(after) };
        plain.synchronize()?;
        corrupt += usize::from(!plain.holds(&block, before)?);
    }
    Ok(corrupt)
}

fn change_pageable(plain: &Plain, before: &[u8], after: &[u8]) -> Result<usize> {
    let mut source = before.to_vec();
    let mut corrupt = 0;
    for _ in 0..TRIES {
        source.copy_from_slice(before);
        // SAFETY: the source is pageable, so it is free to change as soon as the call returns.
        let block = unsafe { plain.to_non_blocking(&source)? };
        source.copy_from_slice(after);
        plain.synchronize()?;
        corrupt += usize::from(!plain.holds(&block, before)?);
    }
    Ok(corrupt)
}

/// What came of trying to write to a tensor whose transfer is on its way.
#[derive(Default)]
struct Tried {
    refused: usize,
    corrupt: usize,
}

fn try_to_change(context: &Context<'_>, before: &[u8], after: &[u8]) -> Result<Tried> {
    let mut tried = Tried::default();
    for _ in 0..TRIES {
        let mut source = Tensor::from_slice(before, &[before.len()])?.pin_memory(context.device)?;
        let transfer = source.transfer(context.device)?;
        match source.as_mut_slice::<u8>() {
            Ok(slice) => slice.copy_from_slice(after),
            Err(pinlane::Error::Shared) => tried.refused += 1,
            Err(error) => return Err(error.into()),
        }
        let landed = transfer.wait()?;
        tried.corrupt += usize::from(!context.engine_holds(&[landed], &[before])?);
    }
    Ok(tried)
}
