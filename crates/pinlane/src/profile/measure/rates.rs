//! The rates of the link and of host memory.

use pinlane_driver::sync::{Duration, available_parallelism, thread};

use super::{
    Bench, Figures, MemcpyRate,
    clock::{Move, median, medians, tensors, time},
};
use crate::{Direction, Error, HostMemory, Profile, Result, Route, TransferOptions};

/// How often each thread copies its share: starting the thread must not count.
const PASSES: usize = 2;

pub(super) fn rate(bytes: usize, time: Duration) -> f64 {
    // A clock that is too coarse for it must not make a rate infinite.
    bytes as f64 / time.max(Duration::from_nanos(1)).as_secs_f64()
}

/// Pinned memory to the device, and the device to pinned memory.
pub(super) fn link(bench: &Bench, profile: &mut Profile, figures: &mut Figures) -> Result<()> {
    let device = bench.device(profile)?;
    // Half of the budget, at most, is there for pinned tensors; one goes and one comes.
    let bytes = (bench.large / 4).min(bench.budget / 4).max(1);
    let direct = || Some(TransferOptions::new().route(Route::Direct).pinned_result());
    let pinned = HostMemory::Pinned(&device);
    let there = Move::new(&device, Direction::ToDevice, tensors(pinned, 1, bytes)?, direct())?;
    let back = Move::new(
        &device,
        Direction::ToHost,
        tensors(HostMemory::Pageable, 1, bytes)?,
        direct(),
    )?;
    let [there, back] = medians(bench.runs, [&mut || there.time(), &mut || back.time()])?;
    figures.link_to_device_bytes_per_second = rate(bytes, there);
    figures.link_to_host_bytes_per_second = rate(bytes, back);
    profile.link_bytes_per_second = rate(bytes, there.max(back));
    Ok(())
}

/// Copies within host memory by threads.
pub(super) fn memcpy(bench: &Bench, profile: &mut Profile, figures: &mut Figures) -> Result<()> {
    figures.memcpy = MemcpyRate::measure(bench.large, bench.runs)?;
    profile.memcpy_bytes_per_second = figures.memcpy[0].bytes_per_second;
    Ok(())
}

impl MemcpyRate {
    /// Measures copies within host memory by one thread, two, four and so on up to the cores that this process may use, each
    /// with memory of its own: `bytes` in all, which should be more than the processor's caches hold. The median of `runs`
    /// or a few more, the better of two where there are six.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] where the system starts no thread.
    pub fn measure(bytes: usize, runs: usize) -> Result<Vec<Self>> {
        let cores = available_parallelism().map_or(1, usize::from);
        let counts = std::iter::successors(Some(1), |threads| Some(threads * 2))
            .take_while(|&threads| threads < cores)
            .chain([cores]);
        let of = |threads| {
            let mut shares: Vec<Share> = (0..threads).map(|_| Share::new(bytes / threads)).collect();
            let copied = PASSES * shares.iter().map(|share| share.from.len()).sum::<usize>();
            let took = median(runs, || {
                let work = std::mem::take(&mut shares);
                time(|| {
                    shares = copy_all(work)?;
                    Ok(())
                })
            })?;
            Ok(Self {
                threads,
                bytes_per_second: rate(copied, took),
            })
        };
        counts.map(of).collect()
    }
}

/// What one thread copies.
struct Share {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Share {
    /// Written, so that every page is there.
    fn new(bytes: usize) -> Self {
        Self {
            from: vec![1; bytes],
            to: vec![2; bytes],
        }
    }
}

/// Copies each share on a thread of its own.
fn copy_all(shares: Vec<Share>) -> Result<Vec<Share>> {
    const NAME: &str = "pinlane-memcpy";
    let threads = shares.into_iter().map(|mut share| {
        let copy = move || {
            for _ in 0..PASSES {
                share.to.copy_from_slice(std::hint::black_box(&share.from));
                std::hint::black_box(&mut share.to);
            }
            share
        };
        thread::Builder::new().name(NAME.to_owned()).spawn(copy)
    });
    // All are started before one is waited for, and all are waited for before an error is told.
    let threads: Vec<_> = threads.collect();
    let shares: Vec<_> = threads
        .into_iter()
        .map(|thread| {
            let thread = thread.map_err(|source| Error::Thread {
                name: NAME.to_owned(),
                source,
            })?;
            Ok(thread
                .join()
                .expect("copying between vectors of one length does not panic"))
        })
        .collect();
    shares.into_iter().collect()
}

/// The driver's own way with one large pageable tensor.
pub(super) fn plain(bench: &Bench, profile: &mut Profile, _: &mut Figures) -> Result<()> {
    let device = bench.device(profile)?;
    let bytes = bench.large / 4;
    let plain = TransferOptions::new().route(Route::Plain);
    let pageable = tensors(HostMemory::Pageable, 1, bytes)?;
    let there = Move::new(&device, Direction::ToDevice, pageable, Some(plain))?;
    profile.plain_bytes_per_second = rate(bytes, median(bench.runs, || there.time())?);
    Ok(())
}
