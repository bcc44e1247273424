//! What moving costs the processor, beside what the memcpy in it costs anyway.

use std::{thread, time::Duration};

use pinlane::{DType, HostMemory, Tree};

use super::{
    Context, Draft, Unit,
    judge::Asked::{Also, AtMost},
    work,
};
use crate::{
    cell::{Direction, Memory},
    error::Result,
    landed::Landed,
    processor,
    ways::PINLANE,
};

/// How often the bytes are moved.
const MOVES: usize = 8;
/// How long the engine is watched doing nothing.
const IDLE: Duration = Duration::from_millis(500);
/// The share of a core that is nothing.
const NOTHING: f64 = 0.01;

pub(super) fn cpu_per_gb(context: &Context<'_>) -> Result<Draft> {
    let rig = context.rig;
    let cell = work::one_gib(Direction::H2d, Memory::Pageable, context.scale);
    let sources = rig.sources(cell, rig.device())?;
    let landed = Landed::OnDevice(sources.tensors().to(rig.device())?);
    rig.check(&sources, PINLANE, landed)?;

    let (moving, last) = processor::of(|| -> Result<_> {
        for _ in 1..MOVES {
            drop(sources.tensors().to(rig.device())?);
        }
        Ok(sources.tensors().to(rig.device())?)
    });
    rig.check(&sources, PINLANE, Landed::OnDevice(last?))?;
    let (idle, ()) = processor::of(|| thread::sleep(IDLE));

    let mut pinned = HostMemory::Pinned(rig.roomy()).zeros(DType::U8, &[cell.bytes])?;
    let target = pinned.as_mut_slice::<u8>()?;
    let source = sources.expected[0];
    let (copying, ()) = processor::of(|| {
        for _ in 0..MOVES {
            std::hint::black_box(&mut *target).copy_from_slice(source);
        }
    });

    let gigabytes = (MOVES * cell.bytes) as f64 / 1e9;
    let per_gigabyte = |time: Duration| time.as_secs_f64() * 1e3 / gigabytes;
    let idle = idle.as_secs_f64() / IDLE.as_secs_f64();
    Ok(Draft::new(moving.as_secs_f64() / copying.as_secs_f64(), Unit::Times)
        .asked([AtMost(1.2), Also("none while idle", idle < NOTHING)])
        .detail(format!(
            "{:.1} ms of processor time for each GB, a single thread's memcpy {:.1} ms; {:.2}% of a core while idle",
            per_gigabyte(moving),
            per_gigabyte(copying),
            idle * 1e2,
        )))
}
