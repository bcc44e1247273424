//! Pageable host memory to the device, beside torch's `.to`.

use super::{
    Context, Draft, Unit,
    judge::Asked::{self, AtLeast, AtMost, Beats, OfLimit},
    race_plain, work,
};
use crate::{
    cell::{Cell, Direction, Memory},
    error::Result,
    ways::PlainCall,
};

/// Torch's `.to`, and the same calls in this process where torch was not measured.
const TO: &[&str] = &["torch_to", "plain_to"];
/// Torch's `.to(non_blocking=True)`, and the same.
const NON_BLOCKING: &[&str] = &["torch_non_blocking", "plain_non_blocking"];

pub(super) fn pageable_1gib(context: &Context<'_>) -> Result<Draft> {
    let cell = work::one_gib(Direction::H2d, Memory::Pageable, context.scale);
    rate(
        context,
        "h2d-pageable-1gib",
        cell,
        [OfLimit(0.95), Beats(5.5, TO)],
    )
}

pub(super) fn tree_100x1m(context: &Context<'_>) -> Result<Draft> {
    let cell = work::hundred_of_1m_floats(context.scale);
    rate(context, "h2d-tree-100x1m", cell, [OfLimit(0.95), Beats(5.5, TO)])
}

pub(super) fn pageable_16mib(context: &Context<'_>) -> Result<Draft> {
    let cell = work::one_of_16_mib(context.scale);
    rate(
        context,
        "h2d-pageable-16mib",
        cell,
        [AtLeast(40.0), Beats(3.0, TO)],
    )
}

pub(super) fn small_1000(context: &Context<'_>) -> Result<Draft> {
    let cell = work::thousand_of_1000_floats(Direction::H2d);
    let sources = context.rig.sources(cell, context.rig.device())?;
    let (pinlane, plain) = race_plain(context, &sources, PlainCall::NonBlocking)?;
    Ok(Draft::new(pinlane * 1e3, Unit::Milliseconds)
        .peer("plain_non_blocking", plain * 1e3)
        .peers(context.peers, "h2d-small-1000", cell.total())
        .asked([AtMost(0.22), Beats(45.0, NON_BLOCKING)]))
}

fn rate(context: &Context<'_>, id: &str, cell: Cell, asked: [Asked; 2]) -> Result<Draft> {
    let sources = context.rig.sources(cell, context.rig.device())?;
    let (pinlane, plain) = race_plain(context, &sources, PlainCall::Blocking)?;
    let rate = |seconds: f64| cell.total() as f64 / seconds / 1e9;
    Ok(Draft::new(rate(pinlane), Unit::GigabytesPerSecond)
        .limit(context.link.h2d)
        .peer("plain_to", rate(plain))
        .peers(context.peers, id, cell.total())
        .asked(asked))
}
