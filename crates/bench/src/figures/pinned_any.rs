//! What is pinned already, of any size, into memory that exists, beside the driver's bare call and a wait.

use pinlane::{DType, HostMemory, Tensor, Tree};
use pinlane_driver::{DeviceMemory, MemCopy, Stream};
use pinlane_guide::units;

use super::{Context, Draft, Unit, judge::Asked::AtMost, work};
use crate::{
    cell::{Cell, Direction},
    error::Result,
    landed::Landed,
    lent::Lent,
    rounds::take_turns,
    ways::PINLANE,
};

pub(super) fn pinned_any(context: &Context<'_>) -> Result<Draft> {
    let mut ratios = Vec::new();
    for direction in Direction::ALL {
        for cell in work::pinned_of_any_size(direction, context.scale) {
            let ratio = match direction {
                Direction::H2d => to_device(context, cell)?,
                Direction::D2h => to_host(context, cell)?,
            };
            ratios.push((ratio, cell));
        }
    }
    ratios.sort_by(|a, b| b.0.total_cmp(&a.0));
    let listed = ratios.iter().take(3).map(|(ratio, cell)| {
        let size = units::bytes(cell.bytes as u64);
        format!("{ratio:.3} at {size} {}", cell.direction)
    });
    let listed: Vec<String> = listed.collect();
    let worst = ratios.first().map_or(f64::NAN, |(ratio, _)| *ratio);
    Ok(Draft::new(worst, Unit::Times)
        .asked([AtMost(1.03)])
        .detail(format!("the worst: {}", listed.join(", "))))
}

/// What part of a figure's time each of the many sizes has.
const PART: u32 = 5;

fn to_device(context: &Context<'_>, cell: Cell) -> Result<f64> {
    let rig = context.rig;
    let sources = rig.sources(cell, rig.roomy())?;
    // Other bytes are there before, so that those of the source can only come from the copies.
    let mut there = rig.sources(cell, rig.roomy())?.tensors().to(rig.roomy())?;
    let memory = DeviceMemory::new(rig.driver(), cell.bytes)?;
    let copy = MemCopy::to_device(memory.ptr(), sources.expected[0].as_ptr(), cell.bytes);
    // The tensors keep the source's bytes alive.
    let ends = (memory, sources.tensors().clone());
    let ratio = ratio(context, ends, copy, || {
        Ok(sources.tensors()[0].copy_into(&mut there[0])?)
    })?;
    rig.check(&sources, PINLANE, Landed::OnDevice(there))?;
    Ok(ratio)
}

fn to_host(context: &Context<'_>, cell: Cell) -> Result<f64> {
    let rig = context.rig;
    let sources = rig.sources(cell, rig.roomy())?;
    let source = &sources.pinned_tensors()[0];
    let empty = || HostMemory::Pinned(rig.roomy()).empty(DType::F32, &[cell.bytes / size_of::<f32>()]);
    let (mut back, mut bare): (Tensor, Tensor) = (empty()?, empty()?);
    let there = source
        .device_ptr()
        .expect("a source of this direction lies on the device");
    let copy = MemCopy::to_host(bare.as_mut_slice::<f32>()?.as_mut_ptr().cast(), there, cell.bytes);
    let ends = (bare, source.clone());
    let ratio = ratio(context, ends, copy, || Ok(source.copy_into(&mut back)?))?;
    let landed = Landed::OnHost {
        pageable: Vec::new(),
        pinned: vec![back],
    };
    rig.check(&sources, PINLANE, landed)?;
    Ok(ratio)
}

/// How much longer `pinlane` takes than the bare copy, whose `ends` nobody else uses.
fn ratio<T>(
    context: &Context<'_>,
    ends: T,
    copy: MemCopy,
    mut pinlane: impl FnMut() -> Result<()>,
) -> Result<f64> {
    let mut lent = Lent::new(ends, [Stream::new(context.rig.driver())?]);
    let mut bare = || {
        lent.during(|_, [stream]| {
            // SAFETY: both ends have that many bytes, live until `during` has waited, and are written by nobody else
            // meanwhile.
            unsafe { stream.copy(copy)? };
            Ok(())
        })
    };
    let [pinlane, bare] = take_turns(context.effort.part(PART), [&mut pinlane, &mut bare])?;
    Ok(pinlane / bare)
}
