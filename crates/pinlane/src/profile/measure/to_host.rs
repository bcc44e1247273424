//! What is found by bringing tensors back to the host: the lanes of that direction, and which pieces a kernel gathers.

use pinlane_driver::sync::available_parallelism;

use super::{
    Bench, Figures, Trial,
    clock::{median, medians, tensors, time},
    sizes::{Race, choose, crossover},
};
use crate::{
    Device, HostMemory, Placement, Profile, Result, Tensor, TransferOptions, Tree, memory::recycled,
};

/// As few lanes as reach the best rate, unless the assumed number does. Less than half of those is not tried: it takes long,
/// and was never the best.
pub(super) fn lanes(bench: &Bench, profile: &mut Profile, figures: &mut Figures) -> Result<()> {
    let cores = available_parallelism().map_or(1, usize::from);
    let assumed = profile.lanes_to_host;
    let mut counts = vec![1, 2, 4, 6, 8, 12, 16, 24];
    counts.retain(|&lanes| lanes <= cores && 2 * lanes >= assumed);
    counts.push(assumed);
    counts.sort_unstable();
    counts.dedup();
    let trials = counts.into_iter().map(|lanes_to_host| {
        let make = Profile {
            lanes_to_host,
            ..profile.clone()
        };
        try_out(bench, &make)
    });
    let trials = trials.collect::<Result<Vec<_>>>()?;
    profile.lanes_to_host = choose(&trials, (assumed, profile.slot_bytes)).lanes;
    figures.trials_to_host = trials;
    Ok(())
}

/// How fast an engine of this make is into fresh memory, which all of its lanes write, and into memory that exists, which half
/// of them do: one after the other.
fn try_out(bench: &Bench, make: &Profile) -> Result<Trial> {
    let device = bench.device(make)?;
    let there = tensors(HostMemory::Pageable, 1, bench.large)?.to(&device)?;
    let mut existing = tensors(HostMemory::Pageable, 1, bench.large)?;
    let _fresh = NothingKept::new();
    let took = median(bench.runs, || {
        let into_fresh = time(|| there.to(&Device::host()))?;
        Ok(into_fresh + time(|| there.copy_into(&mut existing))?)
    })?;
    let settled = device.profile().unwrap_or(make);
    Ok(Trial {
        lanes: settled.lanes_to_host,
        slot_bytes: settled.slot_bytes,
        bytes_per_second: 2.0 * bench.large as f64 / took.as_secs_f64(),
    })
}

/// While it lives, no pageable memory is kept for the next result.
struct NothingKept {
    limit: usize,
}

impl NothingKept {
    fn new() -> Self {
        let limit = recycled::limit();
        recycled::set_limit(0);
        Self { limit }
    }
}

impl Drop for NothingKept {
    fn drop(&mut self) {
        recycled::set_limit(self.limit);
    }
}

/// Pieces of one transfer: more than it takes for a kernel to be worth its launch.
const PIECES: usize = 64;

/// Up to which size a kernel gathers tensors that lie apart as fast as they are copied one by one.
pub(super) fn gathered(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    if bench.driver.scatter_table().is_none() {
        return Ok(());
    }
    let with = |gathered_run_bytes| {
        bench.device(&Profile {
            gathered_run_bytes,
            ..profile.clone()
        })
    };
    let (gathered, copied) = (with(bench.large)?, with(0)?);
    let sizes = std::iter::successors(Some(1 << 10), |bytes| Some(bytes * 2));
    let sizes = sizes.take_while(|bytes| bytes * PIECES <= bench.large.min(32 << 20));
    let race = |bytes| {
        let pieces = tensors(HostMemory::Pageable, PIECES, bytes)?;
        let (first, second) = (apart(&pieces, &gathered)?, apart(&pieces, &copied)?);
        let times = medians(
            4 * bench.runs,
            [&mut || time(|| first.to(&Device::host())), &mut || {
                time(|| second.to(&Device::host()))
            }],
        )?;
        Ok(Race {
            bytes,
            seconds: times.map(|time| time.as_secs_f64()),
        })
    };
    let races = sizes.map(race).collect::<Result<Vec<_>>>()?;
    profile.gathered_run_bytes = crossover(&races, profile.gathered_run_bytes);
    Ok(())
}

/// The tensors on `device`, each in an allocation of its own.
fn apart(tensors: &Vec<Tensor>, device: &Device) -> Result<Vec<Tensor>> {
    tensors.to_with(device, &TransferOptions::new().placement(Placement::Separate))
}
