//! Is a non-blocking copy to the device safe when its source changes right after the call?

use pinlane::{Tensor, Tree as _};

use crate::{
    context::Context,
    error::Result,
    experiment::Experiment,
    outcome::{
        Figure, Outcome,
        Owner::{Guide, Pinlane},
    },
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
    let bytes = context.pick(1 << 20, 4 << 20);
    let mut ways = context.ways();
    ways.group(format!("host to device, {TRIES} tries"));

    let way = "pinned source, changed after the call";
    ways.begin(way);
    let corrupt_pinned = change_pinned(context, bytes)?;
    ways.add(Guide, way, count(corrupt_pinned, "copies were corrupt"), None);

    let way = "pageable source, changed after the call";
    ways.begin(way);
    let corrupt_pageable = change_pageable(context, bytes)?;
    ways.add(
        Guide,
        way,
        count(corrupt_pageable, "copies were corrupt"),
        Some(corrupt_pageable == 0),
    );

    let way = "pinned tensor, write tried after transfer()";
    ways.begin(way);
    let tried = try_to_change(context, bytes)?;
    ways.add(Pinlane, way, count(tried.refused, "writes were refused"), None);
    ways.add(
        Pinlane,
        way,
        count(tried.corrupt, "copies were corrupt"),
        Some(tried.corrupt == 0),
    );

    let judgement = Judgement::new(
        Verdict::of_parts([
            Verdict::of_fact(corrupt_pinned == 0),
            Verdict::of_fact(corrupt_pageable == 0),
        ]),
        format!(
            "of {TRIES} copies, {corrupt_pinned} were corrupt from pinned memory, {corrupt_pageable} from pageable \
             memory, {} with pinlane, which refused {} writes",
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

fn change_pinned(context: &Context<'_>, bytes: usize) -> Result<usize> {
    let (before, after) = (vec![0x11; bytes], vec![0xee; bytes]);
    let mut corrupt = 0;
    for _ in 0..TRIES {
        let source = context.plain.pin_memory(&before)?;
        let block = context.plain.pinned_to_non_blocking(&source)?;
        // SAFETY: no slice of the block lives and no other thread has it. The device may still read it: whether that
        // spoils the copy is the question.
        unsafe { source.overwrite(&after) };
        context.plain.synchronize()?;
        corrupt += usize::from(!context.plain.holds(&block, &before)?);
    }
    Ok(corrupt)
}

fn change_pageable(context: &Context<'_>, bytes: usize) -> Result<usize> {
    let before = vec![0x11; bytes];
    let mut source = before.clone();
    let mut corrupt = 0;
    for _ in 0..TRIES {
        source.fill(0x11);
        // SAFETY: the source is pageable, so it is free to change as soon as the call returns.
        let block = unsafe { context.plain.to_non_blocking(&source)? };
        source.fill(0xee);
        context.plain.synchronize()?;
        corrupt += usize::from(!context.plain.holds(&block, &before)?);
    }
    Ok(corrupt)
}

/// What came of trying to write to a tensor whose transfer is on its way.
#[derive(Default)]
struct Tried {
    refused: usize,
    corrupt: usize,
}

fn try_to_change(context: &Context<'_>, bytes: usize) -> Result<Tried> {
    let before = vec![0x11_u8; bytes];
    let mut tried = Tried::default();
    for _ in 0..TRIES {
        let mut source = Tensor::from_vec(before.clone(), &[bytes])?.pin_memory(context.device)?;
        let transfer = source.transfer(context.device)?;
        match source.as_mut_slice::<u8>() {
            Ok(slice) => slice.fill(0xee),
            Err(pinlane::Error::Shared) => tried.refused += 1,
            Err(error) => return Err(error.into()),
        }
        let landed = transfer.wait()?;
        tried.corrupt += usize::from(!context.engine_holds(&[landed], &[&before])?);
    }
    Ok(tried)
}
