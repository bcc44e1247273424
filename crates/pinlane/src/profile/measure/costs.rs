//! What is paid whatever the bytes: a way, a tensor, a copy. Each is found by the calls that it is to predict, which take turns
//! with others: in a loop of nothing but the same call, everything that it touches is in the nearest cache, and it takes two
//! thirds of the time that it takes in a program.

use pinlane_driver::sync::Duration;

use super::{
    Bench, Figures,
    clock::{Move, median, medians, tensors, time},
    rates::rate,
};
use crate::{
    Device, Direction, HostEnd, HostMemory, Placement, Profile, Result, Route, TransferOptions, Tree,
    Workload,
};

/// Bytes of a tensor that is all cost.
const TINY: usize = 64;
/// Tensors of the trees that show what one costs: so many that the way does not count, with the caches and beyond them.
const TREES: [usize; 2] = [1000, 10_000];
/// How many more copies show what one more costs.
const MORE: usize = 256;
/// What part of the longest tensor that is left to the driver shows how fast it copies such.
const PART: usize = 4;

/// What a program does between two transfers, as far as caches go: many calls of the driver, and memory taken and freed.
fn elsewhere(device: &Device) -> Result<Move> {
    let tree = tensors(HostMemory::Pageable, TREES[0], TINY)?;
    let one_by_one = TransferOptions::new().route(Route::Staged);
    Move::new(device, Direction::ToDevice, tree, Some(one_by_one))
}

fn direct() -> TransferOptions {
    TransferOptions::new().route(Route::Direct)
}

/// One tensor without bytes to speak of, by the short way and by the long way, in turns with other routes.
pub(super) fn ways(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let device = bench.device(profile)?;
    let one = tensors(HostMemory::Pinned(&device), 1, TINY)?;
    // A route that is forced takes a transfer.
    let forced = |route| {
        let options = TransferOptions::new().route(route);
        Move::new(&device, Direction::ToDevice, one.clone(), Some(options))
    };
    let (long, staged, plain) = (
        forced(Route::Direct)?,
        forced(Route::Staged)?,
        forced(Route::Plain)?,
    );
    let short = Move::new(&device, Direction::ToDevice, one.clone(), None)?;
    let [short, _, long, _] = medians(
        8 * bench.runs,
        [
            &mut || short.time(),
            &mut || staged.time(),
            &mut || long.time(),
            &mut || plain.time(),
        ],
    )?;
    (profile.short_copy, profile.latency) = (short, long);
    Ok(())
}

/// What one more tensor costs: in each direction, the mean of what it costs in trees of two sizes.
pub(super) fn tensors_in_trees(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let device = bench.device(&Profile {
        tensor_to_device: Duration::ZERO,
        tensor_to_host: Duration::ZERO,
        ..profile.clone()
    })?;
    let mut each = [Duration::ZERO; 2];
    for count in TREES {
        for (sum, one) in each.iter_mut().zip(each_of_a_tree(bench, &device, count)?) {
            *sum += one / TREES.len() as u32;
        }
    }
    [profile.tensor_to_device, profile.tensor_to_host] = each;
    Ok(())
}

/// What a tree of `count` tiny tensors takes to `device` and back beyond what is predicted there, where tensors cost nothing:
/// a tensor's share.
fn each_of_a_tree(bench: &Bench, device: &Device, count: usize) -> Result<[Duration; 2]> {
    let host = Device::host();
    // Where there is a kernel, each of those to the host has its entry in the kernel's table.
    let apart = match bench.driver.scatter_table() {
        Some(_) => Placement::Separate,
        None => Placement::Slab,
    };
    let tree = tensors(HostMemory::Pageable, count, TINY)?;
    let there = tree.to_with(device, &TransferOptions::new().placement(apart))?;
    let between = elsewhere(device)?;
    let [to_device, _, to_host, _] = medians(
        4 * bench.runs,
        [
            &mut || time(|| tree.to(device)),
            &mut || between.time(),
            &mut || time(|| there.to(&host)),
            &mut || between.time(),
        ],
    )?;
    let each = |took: Duration, direction, placement| -> Result<Duration> {
        let described = Workload::new(direction).placement(placement);
        let described = described.tensors(count, TINY as u64, HostEnd::Pageable)?;
        let without = described.plan(device, None)?.predicted();
        Ok(took.saturating_sub(without) / count as u32)
    };
    Ok([
        each(to_device, Direction::ToDevice, Placement::Slab)?,
        each(to_host, Direction::ToHost, apart)?,
    ])
}

/// What one more copy costs: what each of many tensors adds that are copied by themselves, but for the tensor.
pub(super) fn calls(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let device = bench.device(profile)?;
    let of = |count| {
        let tensors = tensors(HostMemory::Pinned(&device), count, TINY)?;
        Move::new(&device, Direction::ToDevice, tensors, Some(direct()))
    };
    let (one, many) = (of(1)?, of(1 + MORE)?);
    let [one, many] = medians(8 * bench.runs, [&mut || one.time(), &mut || many.time()])?;
    let one_more = many.saturating_sub(one) / MORE as u32;
    profile.copy_call = one_more.saturating_sub(profile.tensor_to_device);
    Ok(())
}

/// The driver's own way with a tensor that is left to it.
pub(super) fn small_plain(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let bytes = profile.plain_bytes / PART;
    if bytes <= TINY {
        // None is.
        return Ok(());
    }
    let device = bench.device(profile)?;
    let one = tensors(HostMemory::Pageable, 1, bytes)?;
    let there = Move::new(&device, Direction::ToDevice, one, None)?;
    let took = median(8 * bench.runs, || there.time())?;
    // Two clocks' noise must not make it faster than the link.
    profile.small_plain_bytes_per_second =
        rate(bytes, took.saturating_sub(profile.short_copy)).min(profile.link_bytes_per_second);
    Ok(())
}
