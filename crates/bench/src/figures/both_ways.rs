//! Both directions at once.

use pinlane::{DType, Device, Tensor, TransferOptions, Tree};

use super::{Context, Draft, NothingKept, Unit, judge::Asked::OfLimit, work};
use crate::{
    cell::{Direction, Memory},
    error::Result,
    landed::Landed,
    rounds::Repeated,
    ways::{PINLANE, Sources},
};

/// Two transfers, started together. Towards the host they land in pageable memory that was touched; into fresh memory,
/// whose pages the kernel has to make first, is told beside it.
pub(super) fn bidirectional(context: &Context<'_>) -> Result<Draft> {
    let rig = context.rig;
    let there = work::one_gib(Direction::H2d, Memory::Pageable, context.scale);
    let back = work::one_gib(Direction::D2h, Memory::Pageable, context.scale);
    let there = rig.sources(there, rig.device())?;
    let back = rig.sources(back, rig.device())?;
    let touched = into_touched(context, &there, &back)?;
    let fresh = into_fresh(context, &there, &back)?;
    let bytes = there.cell.total() + back.cell.total();
    let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
    Ok(Draft::new(rate(touched), Unit::GigabytesPerSecond)
        .limit(context.link.both)
        .peers(context.peers, "bidirectional", bytes)
        .asked([OfLimit(0.9)])
        .detail(format!(
            "into touched pageable memory; {:.1} GB/s into fresh memory",
            rate(fresh)
        )))
}

/// Seconds of both, towards the host into memory that exists and was touched.
fn into_touched(context: &Context<'_>, there: &Sources<'_>, back: &Sources<'_>) -> Result<f64> {
    let device = context.rig.device();
    let mut landed_before = None;
    let mut repeated = Repeated::new(context.effort);
    while !repeated.is_over() {
        let into = match landed_before.take() {
            Some(into) => into,
            None => vec![Tensor::ones(DType::F32, &[back.cell.bytes / size_of::<f32>()])?],
        };
        let (up, down) = repeated.run(|| {
            let up = there.tensors().transfer(device)?;
            let down = back.tensors().transfer_into(into, &TransferOptions::new())?;
            Ok((up.wait()?, down.wait()?))
        })?;
        if repeated.is_first_or_last() {
            check(context, (there, up), (back, down))?;
        } else {
            landed_before = Some(down);
        }
    }
    Ok(repeated.median())
}

/// Seconds of both, towards the host into memory that the kernel gives for it.
fn into_fresh(context: &Context<'_>, there: &Sources<'_>, back: &Sources<'_>) -> Result<f64> {
    let _nothing_kept = NothingKept::new();
    let mut repeated = Repeated::new(context.effort);
    while !repeated.is_over() {
        let (up, down) = repeated.run(|| {
            let up = there.tensors().transfer(context.rig.device())?;
            let down = back.tensors().transfer(&Device::host())?;
            Ok((up.wait()?, down.wait()?))
        })?;
        if repeated.is_first_or_last() {
            check(context, (there, up), (back, down))?;
        }
    }
    Ok(repeated.median())
}

/// Refuses what one round has landed with wrong bytes, whichever way.
fn check(
    context: &Context<'_>,
    (there, up): (&Sources<'_>, Vec<Tensor>),
    (back, down): (&Sources<'_>, Vec<Tensor>),
) -> Result<()> {
    context.rig.check(there, PINLANE, Landed::OnDevice(up))?;
    let down = Landed::OnHost {
        pageable: down,
        pinned: Vec::new(),
    };
    context.rig.check(back, PINLANE, down)
}
