//! Timing transfers.

use pinlane_driver::sync::{Duration, Instant};

use crate::{DType, Device, Direction, HostMemory, Processors, Result, Tensor, TransferOptions, Tree};

/// How long `work` takes. What it gives is let go after the clock has stopped.
pub(super) fn time<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    let result = work()?;
    let took = start.elapsed();
    drop(result);
    Ok(took)
}

/// What is measured is done in so many places at most, and the best of them counts: where nobody else slowed it down.
const PLACES: usize = 5;
/// In each there are so many runs at least: the median of fewer is none.
const LEAST: usize = 3;
/// A way is warm when it has run for so long, or so often: what predictions are of is a call that is made again and again.
const WARM_AFTER: Duration = Duration::from_millis(2);
const WARM_WITHIN: usize = 1000;

/// The medians of `runs` times of each, or a few more, taken in turn: of those on several processors, in equal parts, the ones
/// with the least sum. What one takes more than another is so of one place.
pub(super) fn medians<const N: usize>(
    runs: usize,
    mut ways: [&mut dyn FnMut() -> Result<Duration>; N],
) -> Result<[Duration; N]> {
    let places = (runs / LEAST).clamp(1, PLACES);
    let mut processors = Processors::of_this_thread(places);
    let mut best = [Duration::ZERO; N];
    let mut least = Duration::MAX;
    for _ in 0..places {
        processors.visit_next();
        warm_up(&mut ways)?;
        let found = medians_here(runs.div_ceil(places), &mut ways)?;
        let sum = found.iter().sum();
        if sum < least {
            (best, least) = (found, sum);
        }
    }
    Ok(best)
}

fn warm_up<const N: usize>(ways: &mut [&mut dyn FnMut() -> Result<Duration>; N]) -> Result<()> {
    let mut ran = [Duration::ZERO; N];
    for _ in 0..WARM_WITHIN {
        for (way, ran) in ways.iter_mut().zip(&mut ran) {
            *ran += way()?;
        }
        if ran.iter().all(|ran| *ran >= WARM_AFTER) {
            break;
        }
    }
    Ok(())
}

fn medians_here<const N: usize>(
    runs: usize,
    ways: &mut [&mut dyn FnMut() -> Result<Duration>; N],
) -> Result<[Duration; N]> {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..runs.max(1) {
        for (way, times) in ways.iter_mut().zip(&mut times) {
            times.push(way()?);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times[(times.len() - 1) / 2]
    }))
}

/// The median time of one way.
pub(super) fn median(runs: usize, mut way: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let [median] = medians(runs, [&mut way])?;
    Ok(median)
}

/// `count` tensors of `bytes` bytes each. They are written, so that every page is there.
pub(super) fn tensors(memory: HostMemory<'_>, count: usize, bytes: usize) -> Result<Vec<Tensor>> {
    (0..count).map(|_| memory.full(DType::U8, &[bytes], 1)).collect()
}

/// Tensors, and where they are moved again and again.
pub(super) struct Move {
    tensors: Vec<Tensor>,
    to: Device,
    /// `None` for what a caller gets who asks for nothing.
    options: Option<TransferOptions>,
}

impl Move {
    /// `tensors`, which are on the host, on their way to `device`, or from there on their way back.
    pub(super) fn new(
        device: &Device,
        direction: Direction,
        tensors: Vec<Tensor>,
        options: Option<TransferOptions>,
    ) -> Result<Self> {
        Ok(match direction {
            Direction::ToHost => Self {
                tensors: tensors.to(device)?,
                to: Device::host(),
                options,
            },
            _ => Self {
                tensors,
                to: device.clone(),
                options,
            },
        })
    }

    /// How long it takes, until it is there.
    pub(super) fn time(&self) -> Result<Duration> {
        time(|| match &self.options {
            Some(options) => self.tensors.to_with(&self.to, options),
            None => self.tensors.to(&self.to),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_leaves_out_the_odd_and_what_ran_before_all_were_warm() {
        let mut first = [1, 1, 70, 5, 6].map(Duration::from_millis).into_iter();
        let mut second = [9, 9, 1, 2, 4].map(Duration::from_millis).into_iter();
        let mut ways: [&mut dyn FnMut() -> Result<Duration>; 2] =
            [&mut || Ok(first.next().unwrap()), &mut || {
                Ok(second.next().unwrap())
            }];
        warm_up(&mut ways).unwrap();
        let found = medians_here(3, &mut ways).unwrap();
        assert_eq!(found, [6, 2].map(Duration::from_millis));
        assert!(first.chain(second).next().is_none());
    }

    #[test]
    fn the_place_with_the_least_sum_counts() {
        // One run of each to warm up in each place, and three that count.
        let mut first = [9, 5, 5, 5, 9, 7, 7, 7].map(Duration::from_millis).into_iter();
        let mut second = [9, 6, 6, 6, 9, 3, 3, 3].map(Duration::from_millis).into_iter();
        let found = medians(
            6,
            [&mut || Ok(first.next().unwrap()), &mut || {
                Ok(second.next().unwrap())
            }],
        );
        assert_eq!(found.unwrap(), [7, 3].map(Duration::from_millis));
        assert!(first.chain(second).next().is_none());
    }
}
