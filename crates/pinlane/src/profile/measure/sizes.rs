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
    settle(profile, &best);
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
    settle(profile, &best);
    Ok(())
}

/// Goes on with the make of a trial.
fn settle(profile: &mut Profile, trial: &Trial) {
    profile.lanes = trial.lanes;
    profile.slot_bytes = trial.slot_bytes;
    // Of two measurements the link's may be the slower, by noise.
    profile.staged_bytes_per_second = trial.bytes_per_second.min(profile.link_bytes_per_second);
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

/// The assumed trial if it is among the best, else the first that is.
pub(super) fn choose(trials: &[Trial], assumed: (usize, usize)) -> Trial {
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
    let races = races(bench, 256, Direction::ToDevice, [&by_driver, &staged])?;
    profile.plain_bytes = crossover(&races, profile.plain_bytes);
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
    let mut both = Vec::new();
    for direction in [Direction::ToDevice, Direction::ToHost] {
        both.extend(races(bench, 16 << 10, direction, [&alone, &by_lanes])?);
    }
    profile.inline_bytes = crossover(&both, profile.inline_bytes);
    Ok(())
}

/// What work of one size takes on two devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Race {
    pub(super) bytes: usize,
    pub(super) seconds: [f64; 2],
}

impl Race {
    /// How much longer than the faster one this device takes, as a logarithm: what is twice as long weighs as much wherever
    /// it is.
    fn loss(&self, device: usize) -> f64 {
        let fastest = self.seconds[0].min(self.seconds[1]);
        (self.seconds[device] / fastest).ln()
    }
}

/// Races of two devices, by doubling from `smallest` bytes.
fn races(bench: &Bench, smallest: usize, direction: Direction, devices: [&Device; 2]) -> Result<Vec<Race>> {
    let largest = (16 << 20).min(bench.large);
    let sizes = std::iter::successors(Some(smallest), |bytes| Some(bytes * 2));
    let sizes = sizes.take_while(|&bytes| bytes <= largest);
    let race = |bytes| {
        let one = tensors(HostMemory::Pageable, 1, bytes)?;
        let [first, second] = devices.map(|device| Move::new(device, direction, one.clone(), None));
        let (first, second) = (first?, second?);
        let times = medians(4 * bench.runs, [&mut || first.time(), &mut || second.time()])?;
        Ok(Race {
            bytes,
            seconds: times.map(|time| time.as_secs_f64()),
        })
    };
    sizes.map(race).collect()
}

/// Up to which size the first device should have the work: where all sizes together lose least. A single size is noise
/// as often as not, so what is assumed stays unless another is clearly better, in the mean of the sizes between the two.
pub(super) fn crossover(races: &[Race], assumed: usize) -> usize {
    let loss = |most: usize| -> f64 {
        let device = |race: &Race| usize::from(race.bytes > most);
        races.iter().map(|race| race.loss(device(race))).sum()
    };
    let sizes = races.iter().map(|race| race.bytes);
    let best = std::iter::once(0)
        .chain(sizes)
        .min_by(|&a, &b| loss(a).total_cmp(&loss(b)));
    best.filter(|&best| {
        let between = best.min(assumed) + 1..=best.max(assumed);
        let sizes = races.iter().filter(|race| between.contains(&race.bytes)).count();
        loss(assumed) > loss(best) + sizes as f64 * CLEARLY.ln()
    })
    .unwrap_or(assumed)
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

    /// Races of sizes that double from 1 on, by how much longer the first device takes.
    fn races(ratios: &[f64]) -> Vec<Race> {
        let race = |(power, &ratio): (usize, &f64)| Race {
            bytes: 1 << power,
            seconds: [ratio, 1.0],
        };
        ratios.iter().enumerate().map(race).collect()
    }

    #[test]
    fn work_crosses_over_where_all_sizes_together_lose_least() {
        let clear = races(&[0.5, 0.6, 0.8, 1.5, 2.0]);
        for assumed in [0, 1, 16] {
            assert_eq!(crossover(&clear, assumed), 4);
        }
        let odd = races(&[0.5, 1.3, 0.6, 0.8, 2.0, 0.9, 3.0]);
        assert_eq!(crossover(&odd, 64), 8, "one that is out of line moves nothing");
        assert_eq!(crossover(&races(&[2.0, 3.0]), 1), 0);
        assert_eq!(crossover(&races(&[0.5, 0.5]), 0), 2);
    }

    #[test]
    fn what_is_assumed_of_a_crossover_stays_unless_another_is_clearly_better() {
        let close = races(&[0.9, 1.02, 0.99, 1.03, 2.0]);
        for assumed in [1, 4, 8] {
            assert_eq!(crossover(&close, assumed), assumed);
        }
        assert_eq!(crossover(&close, 16), 1);
        assert_eq!(crossover(&[], 5), 5);
    }
}
