//! Both directions at once.

use pinlane::{DType, Device, Tensor, TransferOptions, Tree};

use super::{Context, Draft, NothingKept, Unit, judge::Asked::OfLimit, time, work};
use crate::{
    cell::{Direction, Memory},
    error::Result,
    landed::Landed,
    ways::PINLANE,
};

/// Two transfers, started together. Towards the host they land in pageable memory that was touched; into fresh memory,
/// whose pages the kernel has to make first, is told beside it.
pub(super) fn bidirectional(context: &Context<'_>) -> Result<Draft> {
    let rig = context.rig;
    let there = work::one_gib(Direction::H2d, Memory::Pageable, context.scale);
    let back = work::one_gib(Direction::D2h, Memory::Pageable, context.scale);
    let there = rig.sources(there, rig.device())?;
    let back = rig.sources(back, rig.device())?;
    let options = TransferOptions::new();

    let mut warm = vec![Tensor::ones(DType::F32, &[back.cell.bytes / size_of::<f32>()])?];
    let touched = time(context.effort, || {
        let up = there.tensors().transfer(rig.device())?;
        let down = back
            .tensors()
            .transfer_into(std::mem::take(&mut warm), &options)?;
        let up = up.wait()?;
        warm = down.wait()?;
        Ok(up)
    })?;
    let nothing_kept = NothingKept::new();
    let fresh = time(context.effort, || {
        let up = there.tensors().transfer(rig.device())?;
        let down = back.tensors().transfer(&Device::host())?;
        Ok((up.wait()?, down.wait()?))
    })?;
    drop(nothing_kept);

    rig.check(
        &there,
        PINLANE,
        Landed::OnDevice(there.tensors().to(rig.device())?),
    )?;
    let landed = Landed::OnHost {
        pageable: warm,
        pinned: Vec::new(),
    };
    rig.check(&back, PINLANE, landed)?;
    let rate = |seconds: f64| (there.cell.total() + back.cell.total()) as f64 / seconds / 1e9;
    Ok(Draft::new(rate(touched), Unit::GigabytesPerSecond)
        .limit(context.link.both)
        .asked([OfLimit(0.9)])
        .detail(format!(
            "into touched pageable memory; {:.1} GB/s into fresh memory",
            rate(fresh)
        )))
}
