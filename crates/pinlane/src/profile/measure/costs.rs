//! What is paid whatever the bytes: a way, a tensor, a copy, a kernel, lanes. Each is found by the calls that it is to predict, made
//! again and again, less what is foreseen of them without it.

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
/// Bytes of a tensor that the caller's thread copies out of a slot.
const EMPTIED: usize = 64 << 10;
/// No thread copies faster, whatever two clocks say.
const FASTEST: f64 = 100e9;
/// Tensors of the trees that show what one costs: in the nearest caches, and two tenfolds beyond.
const TREE: usize = 1000;
const FOREST: usize = 100 * TREE;
const TENFOLDS: u32 = 2;
/// How many more copies show what one more costs.
const MORE: usize = 256;
/// Bytes of a copy that shows what its start costs.
const STARTED: usize = 128 << 10;
/// Tensors that a kernel gathers, and the bytes of each that show its rate.
const GATHERED: usize = 16;
const GATHERED_BYTES: usize = 256 << 10;
/// What part of a transfer that shows rates shows what lanes cost.
const RAMPING: usize = 16;
/// What part of the longest tensor that is left to the driver shows how fast it copies such.
const PART: usize = 4;

fn direct() -> TransferOptions {
    TransferOptions::new().route(Route::Direct)
}

/// One tensor without bytes to speak of, by the short way and by the long way, and a longer one by the short way.
pub(super) fn ways(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let device = bench.device(profile)?;
    let pinned = |bytes| tensors(HostMemory::Pinned(&device), 1, bytes);
    let to_device = |tensors, options| Move::new(&device, Direction::ToDevice, tensors, options);
    let bytes = STARTED.min(bench.budget / 8).max(1);
    let short = to_device(pinned(TINY)?, None)?;
    let longer = to_device(pinned(bytes)?, None)?;
    // A route that is forced takes a transfer.
    let long = to_device(pinned(TINY)?, Some(direct()))?;
    let [short, longer, long] = medians(
        16 * bench.runs,
        [&mut || short.time(), &mut || longer.time(), &mut || long.time()],
    )?;
    (profile.short_copy, profile.latency) = (short, long);
    let link = Duration::from_secs_f64(bytes as f64 / profile.link_bytes_per_second);
    profile.copy_start = longer.saturating_sub(short).saturating_sub(link);
    Ok(())
}

/// What a caller's own thread copies out of a slot: a tensor of the host's less the same in pinned memory, which no thread copies.
pub(super) fn cached(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let device = bench.device(profile)?;
    let bytes = EMPTIED.min(profile.slot_bytes);
    let one = || tensors(HostMemory::Pageable, 1, bytes);
    let emptied = Move::new(&device, Direction::ToHost, one()?, None)?;
    let pinned = TransferOptions::new().pinned_result();
    let pinned = Move::new(&device, Direction::ToHost, one()?, Some(pinned))?;
    let [emptied, pinned] = medians(8 * bench.runs, [&mut || emptied.time(), &mut || pinned.time()])?;
    let copied = emptied.saturating_sub(pinned);
    if copied.is_zero() {
        // Two clocks' noise: it stays as assumed.
        return Ok(());
    }
    // Noise must not make it slower than out of memory either.
    let fastest = rate(bytes, copied).min(FASTEST);
    profile.cached_bytes_per_second = fastest.max(profile.memcpy_bytes_per_second);
    Ok(())
}

/// What one more tensor costs in each direction, in a tree of so many that the way does not count, and beyond the caches.
pub(super) fn tensors_in_trees(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let device = bench.device(&Profile {
        tensor_to_device: Duration::ZERO,
        tensor_to_host: Duration::ZERO,
        tensor_tenfold: Duration::ZERO,
        gather_start: Duration::ZERO,
        ..profile.clone()
    })?;
    let few = each_of_a_tree(bench, &device, TREE)?;
    let many = each_of_a_tree(bench, &device, FOREST)?;
    [profile.tensor_to_device, profile.tensor_to_host] = few;
    let more = many.iter().zip(few).map(|(many, few)| many.saturating_sub(few));
    profile.tensor_tenfold = more.sum::<Duration>() / (few.len() as u32 * TENFOLDS);
    Ok(())
}

/// What a tree of `count` tiny tensors takes to `device` and back beyond what is predicted there, where tensors cost nothing:
/// a tensor's share. Their bytes take a hundredth of it.
fn each_of_a_tree(bench: &Bench, device: &Device, count: usize) -> Result<[Duration; 2]> {
    let host = Device::host();
    // Where there is a kernel, each of those to the host has its entry in the kernel's table.
    let apart = match bench.driver.scatter_table() {
        Some(_) => Placement::Separate,
        None => Placement::Slab,
    };
    let tree = tensors(HostMemory::Pageable, count, TINY)?;
    let there = tree.to_with(device, &TransferOptions::new().placement(apart))?;
    let to_device = median(4 * bench.runs, || time(|| tree.to(device)))?;
    let to_host = median(4 * bench.runs, || time(|| there.to(&host)))?;
    let each = |took: Duration, direction, placement| -> Result<Duration> {
        let described = Workload::new(direction).placement(placement);
        let described = described.tensors(count, TINY as u64, HostEnd::Pageable)?;
        Ok(beyond(took, &described, device)? / count as u32)
    };
    Ok([
        each(to_device, Direction::ToDevice, Placement::Slab)?,
        each(to_host, Direction::ToHost, apart)?,
    ])
}

/// What `took` is longer than what is foreseen on `device`.
fn beyond(took: Duration, described: &Workload, device: &Device) -> Result<Duration> {
    Ok(took.saturating_sub(described.plan(device, None)?.predicted()))
}

/// What a kernel costs, and how fast it gathers: pinned tensors to the device, a few tiny ones and some longer ones.
pub(super) fn gathering(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    if bench.driver.scatter_table().is_none() {
        return Ok(());
    }
    let device = bench.device(&Profile {
        gather_start: Duration::ZERO,
        ..profile.clone()
    })?;
    let took = |count, bytes| {
        let pinned = tensors(HostMemory::Pinned(&device), count, bytes)?;
        let by_kernel = TransferOptions::new().route(Route::Gathered);
        let there = Move::new(&device, Direction::ToDevice, pinned, Some(by_kernel))?;
        median(8 * bench.runs, || there.time())
    };
    let described = |bytes| Workload::new(Direction::ToDevice).tensors(GATHERED, bytes, HostEnd::Pinned);
    let foreseen = |bytes| -> Result<Duration> {
        Ok(described(bytes)?
            .plan(&device, Some(Route::Gathered))?
            .predicted())
    };
    let tiny = took(GATHERED, TINY)?;
    profile.gather_start = tiny.saturating_sub(foreseen(TINY as u64)?);
    let bytes = GATHERED_BYTES.min(bench.budget / 4 / GATHERED).max(1);
    let longer = took(GATHERED, bytes)?.saturating_sub(tiny);
    // Two clocks' noise must not make it faster than the link.
    profile.gathered_bytes_per_second = rate(GATHERED * bytes, longer).min(profile.link_bytes_per_second);
    Ok(())
}

/// What lanes cost in each direction: one long tensor.
pub(super) fn ramps(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let device = bench.device(&Profile {
        ramp_to_device: Duration::ZERO,
        ramp_to_host: Duration::ZERO,
        ..profile.clone()
    })?;
    let bytes = bench.large / RAMPING;
    let whole = |direction| -> Result<Duration> {
        let tensor = tensors(HostMemory::Pageable, 1, bytes)?;
        let moved = Move::new(&device, direction, tensor, None)?;
        // Lanes and what they wake up to make these the most uneven of all times.
        let took = median(16 * bench.runs, || moved.time())?;
        let described = Workload::new(direction).tensors(1, bytes as u64, HostEnd::Pageable)?;
        let part = beyond(took, &described, &device)?;
        // Of so many bytes a part of it is paid.
        let unit = Profile {
            ramp_to_device: Duration::from_secs(1),
            ramp_to_host: Duration::from_secs(1),
            ..profile.clone()
        };
        Ok(part.div_f64(unit.ramp(direction, bytes as u64).as_secs_f64()))
    };
    let (to_device, to_host) = (whole(Direction::ToDevice)?, whole(Direction::ToHost)?);
    (profile.ramp_to_device, profile.ramp_to_host) = (to_device, to_host);
    Ok(())
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
        // None is. What is assumed must not be faster than the link that was found.
        let assumed = profile.small_plain_bytes_per_second;
        profile.small_plain_bytes_per_second = assumed.min(profile.link_bytes_per_second);
        return Ok(());
    }
    let device = bench.device(profile)?;
    let one = tensors(HostMemory::Pageable, 1, bytes)?;
    let there = Move::new(&device, Direction::ToDevice, one, None)?;
    let took = median(8 * bench.runs, || there.time())?;
    let fixed = profile.short_copy.saturating_add(profile.start_of(bytes as f64));
    // Two clocks' noise must not make it faster than the link.
    profile.small_plain_bytes_per_second =
        rate(bytes, took.saturating_sub(fixed)).min(profile.link_bytes_per_second);
    Ok(())
}
