//! Both directions at once.

use pinlane::{Device, Tree};

use super::{Context, Draft, Unit, judge::Asked::OfLimit, time, work};
use crate::{
    cell::{Direction, Memory},
    error::Result,
    landed::Landed,
    ways::PINLANE,
};

pub(super) fn bidirectional(context: &Context<'_>) -> Result<Draft> {
    let rig = context.rig;
    let there = work::one_gib(Direction::H2d, Memory::Pageable, context.scale);
    let back = work::one_gib(Direction::D2h, Memory::Pageable, context.scale);
    let there = rig.sources(there, rig.device())?;
    let back = rig.sources(back, rig.device())?;
    let both = || {
        let up = there.tensors().transfer(rig.device())?;
        let down = back.tensors().transfer(&Device::host())?;
        Ok((up.wait()?, down.wait()?))
    };
    let (up, down) = both()?;
    rig.check(&there, PINLANE, Landed::OnDevice(up))?;
    let down = Landed::OnHost {
        pageable: down,
        pinned: Vec::new(),
    };
    rig.check(&back, PINLANE, down)?;
    let seconds = time(context.effort, both)?;
    let bytes = there.cell.total() + back.cell.total();
    Ok(Draft::new(bytes as f64 / seconds / 1e9, Unit::GigabytesPerSecond)
        .limit(context.link.both)
        .asked([OfLimit(0.9)])
        .detail("into fresh pageable memory"))
}
