//! Does a loader's pinning thread hide what pinning costs?

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use pinlane::Tensor;

use crate::{
    context::Context,
    error::{Error, Result},
    experiment::Experiment,
    outcome::{
        Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::{DeviceBlock, Plain},
    verdict::Judgement,
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "pin-thread",
    claim: "A thread of the loader that pins batches ahead of time hides what pinning costs.",
    shows: "Batches go to the device; each is worked on for about as long as its copy takes, and the step waits for that.",
    run,
};

/// How many batches may wait, pinned or on their way.
const DEPTH: usize = 2;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let list = context.workload.batches()?;
    let batches: Vec<_> = list
        .bytes()?
        .chunks(list.tensors.len().div_ceil(8))
        .map(<[_]>::to_vec)
        .collect();
    let tensors: Vec<_> = list
        .tensors
        .chunks(list.tensors.len().div_ceil(8))
        .map(<[_]>::to_vec)
        .collect();
    let plain = &context.plain;
    let work = time_of_copy(plain, &batches[0])?;
    let step = || -> Result<()> {
        context.driver().busy(work, plain.stream().raw())?;
        plain.synchronize()
    };
    let holds = |landed: &Vec<Vec<DeviceBlock>>| -> Result<bool> {
        let mut holds = landed.len() == batches.len();
        for (blocks, sources) in landed.iter().zip(&batches) {
            holds &= context.plain_holds(blocks, sources)?;
        }
        Ok(holds)
    };

    let mut ways = context.ways();
    ways.group(format!("{} in {} batches", list.label, batches.len()));
    let unpinned = ways.time(
        Guide,
        "no pinning: to(device)",
        || no_pinning(plain, &batches, step),
        holds,
    )?;
    let inline = ways.time(
        Guide,
        "pinning in the loop",
        || pin_inline(plain, &batches, step),
        holds,
    )?;
    let threaded = ways.time(
        Guide,
        "a pinning thread",
        || pin_thread(plain, &batches, step),
        holds,
    )?;
    let engine = ways.time(
        Pinlane,
        "prefetch(batches, device, 2)",
        || {
            pinlane::prefetch(tensors.clone(), context.device, DEPTH)
                .map(|batch| {
                    let batch = batch?;
                    step()?;
                    Ok(batch)
                })
                .collect::<Result<Vec<Vec<Tensor>>>>()
        },
        |landed| {
            let mut holds = landed.len() == batches.len();
            for (tensors, sources) in landed.iter().zip(&batches) {
                holds &= context.engine_holds(tensors, sources)?;
            }
            Ok(holds)
        },
    )?;
    let judgement = Judgement::faster("a pinning thread against pinning in the loop", &threaded, &inline)
        .because(&Judgement::faster("against no pinning", &threaded, &unpinned).reason)
        .because(
            &Judgement::faster(
                "pinlane's prefetch against the pinning thread",
                &engine,
                &threaded,
            )
            .reason,
        );
    Ok(Outcome::new(ways.into_rows(), judgement))
}

fn time_of_copy(plain: &Plain, batch: &[&[u8]]) -> Result<Duration> {
    let blocks = plain.pin_each(batch)?;
    plain.pinned_to_each_non_blocking(&blocks)?;
    let began = Instant::now();
    plain.pinned_to_each_non_blocking(&blocks)?;
    Ok(began.elapsed())
}

fn no_pinning(
    plain: &Plain,
    batches: &[Vec<&[u8]>],
    step: impl Fn() -> Result<()>,
) -> Result<Vec<Vec<DeviceBlock>>> {
    batches
        .iter()
        .map(|batch| {
            let landed = plain.to_each(batch)?;
            step()?;
            Ok(landed)
        })
        .collect()
}

fn pin_inline(
    plain: &Plain,
    batches: &[Vec<&[u8]>],
    step: impl Fn() -> Result<()>,
) -> Result<Vec<Vec<DeviceBlock>>> {
    batches
        .iter()
        .map(|batch| {
            let landed = batch
                .iter()
                .map(|source| plain.pinned_to_non_blocking(&plain.pin_memory(source)?))
                .collect::<Result<_>>()?;
            step()?;
            Ok(landed)
        })
        .collect()
}

fn pin_thread(
    plain: &Plain,
    batches: &[Vec<&[u8]>],
    step: impl Fn() -> Result<()>,
) -> Result<Vec<Vec<DeviceBlock>>> {
    thread::scope(|scope| {
        let (sender, pinned) = mpsc::sync_channel(DEPTH);
        let pinning = scope.spawn(move || {
            for batch in batches {
                // The loop has given up when nobody receives; its error is the one that counts.
                if sender.send(plain.pin_each(batch)).is_err() {
                    break;
                }
            }
        });
        let landed = pinned
            .into_iter()
            .map(|batch| {
                let landed = batch?
                    .iter()
                    .map(|block| plain.pinned_to_non_blocking(block))
                    .collect::<Result<_>>()?;
                step()?;
                Ok(landed)
            })
            .collect();
        pinning.join().map_err(|_| Error::ThreadPanicked("pinning"))?;
        landed
    })
}
