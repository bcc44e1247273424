//! How much memory this process takes while something runs.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::error::{Error, Result};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_micros(500);

/// Runs `work` and returns what it returned, with the bytes by which the process grew at its peak meanwhile; `None`
/// where the system does not tell.
///
/// # Errors
///
/// The error of `work`.
pub(crate) fn peak_growth<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Option<u64>)> {
    give_back_free_memory();
    let before = resident_bytes();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = None;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(resident_bytes());
                thread::sleep(INTERVAL);
            }
            peak.max(resident_bytes())
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let peak = watch.join().map_err(|_| Error::ThreadPanicked("memory watch"))?;
        let growth = peak.zip(before).map(|(peak, before)| peak.saturating_sub(before));
        Ok((result?, growth))
    })
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
        let written = || (0..4096).map(|_| vec![1_u8; 16 << 10]).collect::<Vec<_>>().len();
        written();
        let (count, growth) = peak_growth(|| Ok(written())).unwrap();
        assert_eq!(count, 4096);
        if let Some(growth) = growth {
            assert!(growth >= 48 << 20, "grew by {growth} bytes only");
        }
    }

    #[test]
    fn an_error_of_the_work_comes_through() {
        let result = peak_growth(|| Err::<(), _>(Error::ThreadPanicked("test")));
        assert!(matches!(result, Err(Error::ThreadPanicked("test"))));
    }
}
