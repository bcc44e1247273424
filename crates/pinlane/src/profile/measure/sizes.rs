//! Lanes and slots, and the sizes at which one way gets better than another: found by trying them.

use pinlane_driver::sync::available_parallelism;

use super::{
    Bench, Figures, Trial,
    clock::{Move, median, medians, tensors},
};
use crate::{Device, Direction, HostMemory, Profile, Result, Tensor};

/// What is faster than something simpler, or than what is assumed, is better only if that is more than noise: on a shared
/// machine the same trial differs by so much from run to run.
const CLEARLY: f64 = 1.08;

/// As few lanes as reach the best rate, unless the assumed number does: each costs a core while it copies.
pub(super) fn lanes(bench: &Bench, profile: &mut Profile, figures: &mut Figures) -> Result<()> {
    let cores = available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, 2, 4, 6, 8, 12, 16, 24];
    counts.retain(|&lanes| lanes <= cores);
    counts.push(profile.lanes);
    counts.sort_unstable();
    counts.dedup();
    let makes = counts.into_iter().map(|lanes| Profile {
        lanes,
        ..profile.clone()
    });
    let best = best_of(bench, profile, makes.collect(), figures)?;
    profile.lanes = best.lanes;
    profile.slot_bytes = best.slot_bytes;
    Ok(())
}

/// Slots as small as reach the best rate with these lanes, unless the assumed ones do: they are pinned for as long as the device is used.
pub(super) fn slots(bench: &Bench, profile: &mut Profile, figures: &mut Figures) -> Result<()> {
    let sizes = [512 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20];
    let fitting = sizes.into_iter().filter(|&bytes| bytes <= bench.budget / 2);
    let makes = fitting.map(|slot_bytes| Profile {
        slot_bytes,
        ..profile.clone()
    });
    let makes: Vec<_> = makes.collect();
    if makes.is_empty() {
        return Ok(());
    }
    let best = best_of(bench, profile, makes, figures)?;
    profile.lanes = best.lanes;
    profile.slot_bytes = best.slot_bytes;
    Ok(())
}

/// Tries each make, the cheapest first, and gives the assumed one if it is among the best, else the cheapest of them.
fn best_of(bench: &Bench, assumed: &Profile, makes: Vec<Profile>, figures: &mut Figures) -> Result<Trial> {
    let large = tensors(HostMemory::Pageable, 1, bench.large)?;
    let trials = makes
        .iter()
        .map(|make| try_out(bench, make, large.clone()))
        .collect::<Result<Vec<_>>>()?;
    figures.trials.extend_from_slice(&trials);
    Ok(choose(&trials, (assumed.lanes, assumed.slot_bytes)))
}

fn choose(trials: &[Trial], assumed: (usize, usize)) -> Trial {
    let best = trials
        .iter()
        .map(|trial| trial.bytes_per_second)
        .fold(0.0, f64::max);
    let mut good = trials
        .iter()
        .filter(|trial| trial.bytes_per_second * CLEARLY >= best);
    let is_assumed = |trial: &&Trial| (trial.lanes, trial.slot_bytes) == assumed;
    let cheapest = || {
        trials
            .iter()
            .find(|trial| trial.bytes_per_second * CLEARLY >= best)
    };
    *good
        .find(is_assumed)
        .or_else(cheapest)
        .expect("the best is as good as itself")
}

/// How fast an engine of this make is, and of which make it is in the end: the budget may not allow all.
fn try_out(bench: &Bench, make: &Profile, large: Vec<Tensor>) -> Result<Trial> {
    let device = bench.device(make)?;
    let there = Move::new(&device, Direction::ToDevice, large, None)?;
    let took = median(bench.runs, || there.time())?;
    let settled = device.profile().unwrap_or(make);
    Ok(Trial {
        lanes: settled.lanes,
        slot_bytes: settled.slot_bytes,
        bytes_per_second: bench.large as f64 / took.as_secs_f64(),
    })
}

/// Up to which size one pageable tensor gets to the device as fast when it is left to the driver. To the host, a caller
/// who waits is given a slot at these sizes.
pub(super) fn plain(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let with = |plain_bytes| {
        bench.device(&Profile {
            plain_bytes,
            ..profile.clone()
        })
    };
    let (by_driver, staged) = (with(usize::MAX)?, with(0)?);
    profile.plain_bytes = crossover(bench, 256, Direction::ToDevice, [&by_driver, &staged])?;
    Ok(())
}

/// Up to which size the caller's own thread is as fast as the lanes, in both directions.
pub(super) fn inline(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let with = |inline_bytes| {
        bench.device(&Profile {
            inline_bytes,
            plain_bytes: 0,
            ..profile.clone()
        })
    };
    let (alone, by_lanes) = (with(usize::MAX)?, with(0)?);
    let largest = |direction| crossover(bench, 16 << 10, direction, [&alone, &by_lanes]);
    profile.inline_bytes = largest(Direction::ToDevice)?.min(largest(Direction::ToHost)?);
    Ok(())
}

/// The largest size up to which the second device is not clearly faster than the first with one pageable tensor, by
/// doubling from `smallest`; 0 where it always is.
fn crossover(bench: &Bench, smallest: usize, direction: Direction, devices: [&Device; 2]) -> Result<usize> {
    let largest = (16 << 20).min(bench.large);
    let sizes = std::iter::successors(Some(smallest), |bytes| Some(bytes * 2));
    last_win(sizes.take_while(|&bytes| bytes <= largest), |bytes| {
        let one = tensors(HostMemory::Pageable, 1, bytes)?;
        let [first, second] = devices.map(|device| Move::new(device, direction, one.clone(), None));
        let (first, second) = (first?, second?);
        let [first, second] = medians(4 * bench.runs, [&mut || first.time(), &mut || second.time()])?;
        Ok(first <= second.mul_f64(CLEARLY))
    })
}

/// The last of `sizes` that wins, before two in a row that don't: one alone may be noise.
fn last_win(
    sizes: impl Iterator<Item = usize>,
    mut wins: impl FnMut(usize) -> Result<bool>,
) -> Result<usize> {
    let (mut last, mut lost) = (0, 0);
    for bytes in sizes {
        if wins(bytes)? {
            (last, lost) = (bytes, 0);
        } else {
            lost += 1;
        }
        if lost == 2 {
            break;
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_assumed_stays_if_it_is_as_good_as_the_best_and_else_the_cheapest_that_is() {
        let trials = [10.0, 50.0, 50.5, 49.0, 40.0].map(|bytes_per_second| Trial {
            lanes: bytes_per_second as usize,
            slot_bytes: 1 << 20,
            bytes_per_second,
        });
        assert_eq!(choose(&trials, (49, 1 << 20)).lanes, 49);
        assert_eq!(choose(&trials, (40, 1 << 20)).lanes, 50);
        assert_eq!(choose(&trials, (49, 2 << 20)).lanes, 50);
    }

    #[test]
    fn one_loss_is_noise_and_two_are_the_end() {
        let last = |wins: [bool; 6]| {
            let mut wins = wins.into_iter();
            last_win(1..=6, |_| Ok(wins.next().unwrap())).unwrap()
        };
        assert_eq!(last([true, false, true, true, false, false]), 4);
        assert_eq!(last([true, true, false, false, true, true]), 2);
        assert_eq!(last([false, false, true, true, true, true]), 0);
        assert_eq!(last([true; 6]), 6);
    }
}
