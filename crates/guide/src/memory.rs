//! How much memory this process takes while something runs.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    outcome::MemoryPoint,
};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_micros(500);

/// The most points that a curve keeps.
const POINTS: usize = 240;

/// By how much the process grew while something ran.
#[derive(Debug)]
pub(crate) struct Growth {
    /// At its peak; `None` where the system does not tell.
    pub(crate) peak: Option<u64>,
    /// Over time, without what was not to be counted.
    pub(crate) curve: Vec<MemoryPoint>,
}

/// Runs `work` and returns what it returned, with how the process grew meanwhile. The curve, not the peak, leaves out the bytes
/// that `uncounted` tells of each moment.
///
/// # Errors
///
/// The error of `work`.
pub(crate) fn growth<T>(
    work: impl FnOnce() -> Result<T>,
    uncounted: impl Fn() -> u64 + Sync,
) -> Result<(T, Growth)> {
    give_back_free_memory();
    let before = resident_bytes();
    let not_before = uncounted();
    let began = Instant::now();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut peak, mut curve) = (None, Vec::new());
            loop {
                let is_last = done.load(Ordering::Relaxed);
                let resident = resident_bytes();
                peak = peak.max(resident);
                if let Some(grown) = resident
                    .zip(before)
                    .map(|(now, before)| now.saturating_sub(before))
                {
                    let uncounted = uncounted().saturating_sub(not_before);
                    curve.push(MemoryPoint {
                        seconds: began.elapsed().as_secs_f64(),
                        bytes: grown.saturating_sub(uncounted),
                    });
                }
                if is_last {
                    return (peak, curve);
                }
                thread::sleep(INTERVAL);
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let (peak, curve) = watch.join().map_err(|_| Error::ThreadPanicked("memory watch"))?;
        let peak = peak.zip(before).map(|(peak, before)| peak.saturating_sub(before));
        let growth = Growth {
            peak,
            curve: thinned(curve),
        };
        Ok((result?, growth))
    })
}

/// At most [`POINTS`] of a curve: of neighbours, the highest, so that no peak is lost; and the last.
fn thinned(curve: Vec<MemoryPoint>) -> Vec<MemoryPoint> {
    let together = curve.len().div_ceil(POINTS).max(1);
    let highest = |part: &[MemoryPoint]| part.iter().max_by_key(|point| point.bytes).copied();
    let mut thin: Vec<_> = curve.chunks(together).filter_map(highest).collect();
    if let (Some(end), Some(kept)) = (curve.last(), thin.last())
        && end != kept
    {
        thin.push(*end);
    }
    thin
}

/// Returns what earlier work has freed to the system: reusing it would not show as growth.
fn give_back_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call only returns memory that the allocator holds free, and may be made at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The memory of the process that is in RAM, where `/proc` tells.
fn resident_bytes() -> Option<u64> {
    parse_resident(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn the_resident_size_is_read_from_the_status_file() {
        let status = "VmPeak:\t  100 kB\nVmRSS:\t   12345 kB\nThreads:\t1\n";
        assert_eq!(parse_resident(status), Some(12345 << 10));
        assert_eq!(parse_resident("VmPeak:\t  100 kB\n"), None);
    }

    #[test]
    fn memory_that_was_written_counts_at_the_peak_even_when_it_was_free_before() {
        // Blocks below the allocator's threshold for mapping, which it keeps when they are freed.
        let written = || (0..4096).map(|_| vec![1_u8; 16 << 10]).collect::<Vec<_>>();
        drop(written());
        let looks = AtomicU64::new(0);
        let work = || {
            let blocks = written();
            // Whoever watches has to see them: a look that begins from now on.
            let seen = looks.load(Ordering::Relaxed) + 2;
            while resident_bytes().is_some() && looks.load(Ordering::Relaxed) < seen {
                thread::sleep(INTERVAL);
            }
            Ok(blocks.len())
        };
        let look = || {
            looks.fetch_add(1, Ordering::Relaxed);
            0
        };
        let (count, growth) = growth(work, look).unwrap();
        assert_eq!(count, 4096);
        if let Some(peak) = growth.peak {
            assert!(peak >= 48 << 20, "grew by {peak} bytes only");
            assert!(growth.curve.iter().any(|point| point.bytes == peak));
        }
    }

    #[test]
    fn a_thinned_curve_keeps_its_peak_and_its_end() {
        let curve = |count: u64| {
            (0..count).map(|place| MemoryPoint {
                seconds: place as f64,
                bytes: if place == 777 { 1000 } else { place % 7 },
            })
        };
        let thin = thinned(curve(1001).collect());
        assert!(thin.len() <= POINTS + 1);
        assert!(thin.iter().any(|point| point.bytes == 1000));
        assert_eq!(thin.last().unwrap().seconds, 1000.0);
        assert_eq!(thinned(curve(3).collect()).len(), 3);
    }

    #[test]
    fn an_error_of_the_work_comes_through() {
        let result = growth(|| Err::<(), _>(Error::ThreadPanicked("test")), || 0);
        assert!(matches!(result, Err(Error::ThreadPanicked("test"))));
    }
}
