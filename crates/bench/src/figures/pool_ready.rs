//! How soon a pinned pool is ready.

use pinlane::{DType, Device, DeviceOptions, HostMemory};
use pinlane_driver::sync::Arc;

use super::{Context, Draft, Unit, judge::Asked::AtMost};
use crate::{error::Result, rounds::Repeated};

/// The least that an engine sets aside for its slots.
const SLOT: usize = 4 << 10;
/// One for each direction.
const SLOTS: usize = 2;

/// From an engine that has nothing to one that has leased the whole pool, in one lease that nobody has filled.
pub(super) fn pool_ready(context: &Context<'_>) -> Result<Draft> {
    let bytes = context.scale.bytes(128 << 20);
    let options = DeviceOptions {
        pinned_budget: Some(bytes + SLOTS * SLOT),
        lanes: Some(1),
        slots_per_lane: Some(1),
        slot_bytes: Some(SLOT),
        ..context.rig.options()
    };
    let mut repeated = Repeated::new(context.effort);
    while !repeated.is_over() {
        repeated.run(|| {
            let device = Device::with_options(Arc::clone(context.rig.driver()), &options)?;
            let pool = HostMemory::Pinned(&device).empty(DType::U8, &[bytes])?;
            Ok((pool, device))
        })?;
    }
    Ok(Draft::new(repeated.median() * 1e3, Unit::Milliseconds)
        .peers(context.peers, "pool-ready", bytes)
        .asked([AtMost(6.0)]))
}
