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

/// What is measured is done in so many places, and the best of them counts: where nobody else slowed it down.
const PLACES: usize = 5;
/// A way is warm when it has run for so long, or so often: what predictions are of is a call that is made again and again.
const WARM_AFTER: Duration = Duration::from_millis(2);
const WARM_WITHIN: usize = 1000;

/// The median of about `runs` times of each, taken in turn, on the processor that was best for it.
pub(super) fn medians<const N: usize>(
    runs: usize,
    mut ways: [&mut dyn FnMut() -> Result<Duration>; N],
) -> Result<[Duration; N]> {
    let places = runs.clamp(1, PLACES);
    let mut processors = Processors::of_this_thread(places);
    let mut best = [Duration::MAX; N];
    for _ in 0..places {
        processors.visit_next();
        warm_up(&mut ways)?;
        let found = medians_here(runs.div_ceil(places), &mut ways)?;
        for (best, found) in best.iter_mut().zip(found) {
            *best = found.min(*best);
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
    for _ in 0..runs {
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
    fn the_best_place_counts() {
        // One run to warm up in each place, and one that counts.
        let mut times = [9, 5, 9, 4, 9, 7].map(Duration::from_millis).into_iter();
        let found = medians(3, [&mut || Ok(times.next().unwrap())]).unwrap();
        assert_eq!(found, [Duration::from_millis(4)]);
        assert!(times.next().is_none());
    }
}
