//! What a plan may use on an engine at this moment: the same for real tensors and for described ones.

use pinlane_driver::{ErrorKind, ScatterTable};

use super::{
    Route,
    engine::Engine,
    plan::{Direction, Kind, Leaf, Means},
};
use crate::{
    Error, Result,
    memory::{buffer, recycled},
    units,
};

/// How many leaves stand for all, where it only matters about how many bytes there are.
pub(super) const LOOKED_AT: usize = 128;

/// Refuses what the device could never hold, because its plan might be more than the host can hold.
pub(super) fn check_fits(leaves: &[Leaf], engine: &Engine) -> Result<()> {
    let device = engine.driver.properties();
    let total = leaves
        .iter()
        .try_fold(0u64, |total, leaf| total.checked_add(leaf.bytes));
    if total.is_some_and(|total| total <= device.memory_bytes) {
        return Ok(());
    }
    let message = format!(
        "{} larger than the device's {} bytes; move some of them, or parts",
        units::counted(leaves.len() as u64, "tensor is", "tensors together are"),
        device.memory_bytes
    );
    let source = pinlane_driver::Error::new(ErrorKind::OutOfMemory, device.id, message);
    Err(Error::driver("making room for tensors on the device", source))
}

/// What the table of the driver's kernel for scattered pieces takes, where the plan may have some: the driver is not asked
/// else. `apart` says whether tensors land each in its own place on the device.
pub(super) fn scatter_table(
    engine: &Engine,
    direction: Direction,
    leaves: &[Leaf],
    apart: bool,
    route: Option<Route>,
) -> Option<ScatterTable> {
    let in_pieces = || match direction {
        Direction::ToHost => true,
        Direction::ToDevice => apart || leaves.iter().any(|leaf| leaf.kind == Kind::Pinned),
        Direction::OnDevice => false,
    };
    let wanted = match route {
        None => leaves.len() >= engine.profile.fewest_gathered(direction) && in_pieces(),
        Some(route) => route == Route::Gathered,
    };
    wanted.then(|| engine.driver.scatter_table()).flatten()
}

/// Whether a result of these leaves may stay in the slot that it lands in: large enough to be worth a slot, small enough for
/// it, and of many tensors.
pub(super) fn is_worth_a_slot(engine: &Engine, leaves: &[Leaf]) -> bool {
    let slot = engine.slots.slot_bytes() as u64;
    let padded = |sum: u64, leaf: &Leaf| sum.checked_add(leaf.bytes)?.checked_add(buffer::ALIGNMENT as u64);
    leaves.len() >= engine.profile.fewest_gathered(Direction::ToHost)
        && leaves
            .iter()
            .try_fold(0, padded)
            .is_some_and(|bytes| (slot / 32..=slot).contains(&bytes))
}

/// Whether a new result of tensors of so many bytes on the host lies in memory that nobody has written yet.
pub(super) fn lies_in_fresh_memory(bytes: impl ExactSizeIterator<Item = u64>) -> bool {
    // Of very many, the sum would take longer than it is worth.
    bytes.len() > LOOKED_AT || {
        let bytes = bytes.fold(0, u64::saturating_add);
        !recycled::has(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

/// What the planner may use on this engine.
pub(super) fn means<'a>(engine: &'a Engine, direction: Direction, leaves: &[Leaf]) -> Means<'a> {
    let from_files = || {
        let looked_at = leaves.iter().take(LOOKED_AT);
        let is_file = |leaf: &Leaf| matches!(leaf.kind, Kind::File { .. });
        looked_at.into_iter().any(is_file)
    };
    Means {
        profile: &engine.profile,
        lanes: match direction {
            Direction::ToDevice if from_files() => engine.profile.lanes_from_files,
            _ => engine.profile.lanes_for(direction),
        },
        slot_bytes: engine.slots.slot_bytes(),
        simulated: engine.driver.properties().simulated,
        lent: false,
        fresh: false,
        short: false,
        behind_event: false,
        scatter: None,
    }
}
