//! The device to host memory: pinned, touched, fresh, or many small tensors.

use pinlane::{DType, Tensor, Tree};
use pinlane_driver::{MemCopy, Stream};

use super::{
    Context, Draft, NothingKept, Unit,
    judge::Asked::{AtLeast, AtMost, OfLimit},
    race_plain, work,
};
use crate::{
    cell::{Cell, Direction, Memory},
    error::Result,
    landed::Landed,
    lent::Lent,
    rounds::take_turns,
    ways::{PINLANE, PlainCall},
};

pub(super) fn small_1000(context: &Context<'_>) -> Result<Draft> {
    let cell = work::thousand_of_1000_floats(Direction::D2h);
    let (pinlane, plain) = race_to_host(context, cell)?;
    Ok(Draft::new(pinlane * 1e3, Unit::Milliseconds)
        .peer("plain_cpu", plain * 1e3)
        .peers(context.peers, "d2h-small-1000", cell.total())
        .asked([AtMost(0.12)]))
}

pub(super) fn pinned_1gib(context: &Context<'_>) -> Result<Draft> {
    let cell = work::one_gib(Direction::D2h, Memory::Pinned, context.scale);
    let draft = rate(context, "d2h-pinned-1gib", cell, "plain_non_blocking")?;
    Ok(draft.asked([OfLimit(0.95)]))
}

pub(super) fn fresh_1gib(context: &Context<'_>) -> Result<Draft> {
    let cell = work::one_gib(Direction::D2h, Memory::Pageable, context.scale);
    let (again, _) = race_to_host(context, cell)?;
    let _nothing_kept = NothingKept::new();
    let draft = rate(context, "d2h-fresh-1gib", cell, "plain_cpu")?;
    Ok(draft.asked([AtLeast(30.0)]).detail(format!(
        "{:.1} GB/s into memory that an earlier result has left",
        cell.total() as f64 / again / 1e9
    )))
}

/// Into pageable memory that exists and was touched, beside one driver call into it.
pub(super) fn warm_1gib(context: &Context<'_>) -> Result<Draft> {
    let rig = context.rig;
    let cell = work::one_gib(Direction::D2h, Memory::Pageable, context.scale);
    let sources = rig.sources(cell, rig.device())?;
    let mut warm = vec![Tensor::ones(DType::F32, &[cell.bytes / size_of::<f32>()])?];
    let mut plain = vec![1_u8; cell.bytes];
    let there = sources.tensors()[0].device_ptr();
    let there = there.expect("a source of this direction lies on the device");
    let copy = MemCopy::to_host(plain.as_mut_ptr(), there, cell.bytes);
    let mut plain = Lent::new(plain, [Stream::new(rig.driver())?]);
    let [pinlane, plain_copy] = take_turns(
        context.effort,
        [&mut || Ok(sources.tensors().copy_into(&mut warm)?), &mut || {
            plain.during(|_, [stream]| {
                // SAFETY: both ends have that many bytes and live until `during` has waited.
                unsafe { stream.copy(copy)? };
                Ok(())
            })
        }],
    )?;
    let landed = Landed::OnHost {
        pageable: warm,
        pinned: Vec::new(),
    };
    rig.check(&sources, PINLANE, landed)?;
    let rate = |seconds: f64| cell.total() as f64 / seconds / 1e9;
    Ok(Draft::new(rate(pinlane), Unit::GigabytesPerSecond)
        .limit(context.link.d2h)
        .peer("plain_copy", rate(plain_copy))
        .peers(context.peers, "d2h-warm-1gib", cell.total())
        .asked([AtLeast(48.0)]))
}

fn rate(context: &Context<'_>, id: &str, cell: Cell, peer: &str) -> Result<Draft> {
    let (pinlane, plain) = race_to_host(context, cell)?;
    let rate = |seconds: f64| cell.total() as f64 / seconds / 1e9;
    Ok(Draft::new(rate(pinlane), Unit::GigabytesPerSecond)
        .limit(context.link.d2h)
        .peer(peer, rate(plain))
        .peers(context.peers, id, cell.total()))
}

fn race_to_host(context: &Context<'_>, cell: Cell) -> Result<(f64, f64)> {
    let sources = context.rig.sources(cell, context.rig.device_for(cell))?;
    race_plain(context, &sources, PlainCall::NonBlocking)
}
