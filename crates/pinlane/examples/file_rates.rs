//! Measures files on a device's machine: the engine beside threads that only read or write, in turns.
//!
//!     file_rates FOLDER [DEVICE [GIBIBYTES]]
//!
//! Every figure is the best and the median of five runs. What the device holds is compared with the file once.

use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    num::NonZeroU64,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use pinlane::{DType, Device, FileAccess, FileSink, FileSource, Tensor, Tree};
use rustix::fs::{Advice, fadvise};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SHARDS: usize = 4;
const RUNS: usize = 5;
const MIB: usize = 1 << 20;
/// Where tensors begin in a file: behind a header whose length is no multiple of anything.
const HEADER: u64 = 8 + 31_416;
/// What a raw reader or writer does at a time, and how many there are.
const BLOCK: usize = 4 * MIB;
const THREADS: usize = 12;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(
        arguments
            .next()
            .ok_or("which folder? file_rates FOLDER [DEVICE [GIB]]")?,
    );
    let device = match arguments.next() {
        Some(name) => Device::open(&name)?,
        None => Device::preferred()?,
    };
    let gib: usize = arguments.next().map_or(Ok(7), |number| number.parse())?;
    fs::create_dir_all(&folder)?;
    println!(
        "{device}, {}, {gib} GiB in {SHARDS} files of {}",
        device
            .driver()
            .map_or("the host".to_owned(), |driver| driver.properties().name.clone()),
        folder.display()
    );
    let shards = layer_sizes(gib << 30);
    save(&folder, &device, &shards)?;
    load(&folder, &device, &shards)?;
    small(&folder, &device)?;
    for shard in 0..SHARDS {
        fs::remove_file(path(&folder, shard))?;
    }
    Ok(())
}

fn path(folder: &Path, shard: usize) -> PathBuf {
    folder.join(format!("file_rates-{shard}.bin"))
}

/// The bytes of each tensor of each shard: the layers of a model of eight billion parameters, again and again.
fn layer_sizes(bytes: usize) -> Vec<Vec<usize>> {
    let layer = [
        32 * MIB,
        8 * MIB,
        8 * MIB,
        32 * MIB,
        112 * MIB,
        112 * MIB,
        112 * MIB,
        8192,
        8192,
    ];
    let per_shard = bytes / SHARDS;
    let fill = |_| {
        let mut left = per_shard;
        let sizes = layer.iter().cycle().map_while(|&size| {
            let size = size.min(left);
            left -= size;
            (size > 0).then_some(size)
        });
        sizes.collect()
    };
    (0..SHARDS).map(fill).collect()
}

/// Where tensors of these sizes lie in a file, one behind the other.
fn offsets(sizes: &[usize]) -> Vec<u64> {
    let mut end = HEADER;
    let place = |&size: &usize| {
        end += size as u64;
        end - size as u64
    };
    sizes.iter().map(place).collect()
}

fn save(folder: &Path, device: &Device, shards: &[Vec<usize>]) -> Outcome<()> {
    let mut tensors: Vec<Tensor> = Vec::new();
    for (seed, &size) in shards.iter().flatten().enumerate() {
        let here = Tensor::rand(DType::F32, &[size / 4], seed as u64)?;
        tensors.push(here.to(device)?);
    }
    let bytes: usize = shards.iter().flatten().sum();
    let mut engine = Vec::new();
    let mut raw = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        raw_write(folder, bytes / SHARDS)?;
        raw.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let mut places = Vec::new();
        let mut sinks = Vec::new();
        for (shard, sizes) in shards.iter().enumerate() {
            let length = HEADER + sizes.iter().sum::<usize>() as u64;
            let sink = FileSink::create(path(folder, shard), length)?;
            places.extend(offsets(sizes).into_iter().map(|offset| (sink.clone(), offset)));
            sinks.push(sink);
        }
        tensors.write_to(&places)?;
        sinks.iter().try_for_each(FileSink::sync)?;
        engine.push(start.elapsed().as_secs_f64());
    }
    report("save, synced", bytes, &mut engine);
    report("threads that write, direct where they can", bytes, &mut raw);
    Ok(())
}

fn load(folder: &Path, device: &Device, shards: &[Vec<usize>]) -> Outcome<()> {
    let bytes: usize = shards.iter().flatten().sum();
    let open = |access| -> Outcome<Vec<Tensor>> {
        let mut tensors = Vec::new();
        for (shard, sizes) in shards.iter().enumerate() {
            let file = FileSource::open_with(path(folder, shard), access)?;
            for (&size, offset) in sizes.iter().zip(offsets(sizes)) {
                tensors.push(file.tensor(offset, DType::U8, &[size])?);
            }
        }
        Ok(tensors)
    };
    let timed = |access| -> Outcome<f64> {
        let start = Instant::now();
        let there = open(access)?.to(device)?;
        let seconds = start.elapsed().as_secs_f64();
        drop(there);
        Ok(seconds)
    };
    for shard in 0..SHARDS {
        fs::read(path(folder, shard))?;
    }
    let mut warm = Vec::new();
    for _ in 0..RUNS {
        warm.push(timed(FileAccess::Auto)?);
    }
    report("load, in the page cache", bytes, &mut warm);
    let (mut cold, mut direct, mut buffered) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        forget(folder)?;
        direct.push(raw_read(folder)?);
        forget(folder)?;
        cold.push(timed(FileAccess::Auto)?);
        forget(folder)?;
        buffered.push(timed(FileAccess::Buffered)?);
    }
    report("load, not in the page cache", bytes, &mut cold);
    report("load, not in the page cache, through it", bytes, &mut buffered);
    report("threads that read, direct where they can", bytes, &mut direct);
    let mut to_host = Vec::new();
    open(FileAccess::Buffered)?.to(&Device::host())?;
    for _ in 0..RUNS {
        let tensors = open(FileAccess::Auto)?;
        let start = Instant::now();
        tensors.to(&Device::host())?;
        to_host.push(start.elapsed().as_secs_f64());
    }
    report("load to the host, in the page cache", bytes, &mut to_host);
    let last = open(FileAccess::Auto)?.pop().ok_or("no tensor")?;
    let (there, here) = (last.to(device)?.to(&Device::host())?, last.to(&Device::host())?);
    assert!(
        there.as_bytes()? == here.as_bytes()?,
        "what is on the device is not what the file holds"
    );
    Ok(())
}

/// 20,000 tensors of 8 KiB in one file.
fn small(folder: &Path, device: &Device) -> Outcome<()> {
    let (count, size) = (20_000, 8 << 10);
    let path = folder.join("file_rates-small.bin");
    fs::write(&path, vec![1; HEADER as usize + count * size])?;
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        let file = FileSource::open(&path)?;
        let tensors = (0..count).map(|index| file.tensor(HEADER + (index * size) as u64, DType::U8, &[size]));
        let tensors: Vec<_> = tensors.collect::<Result<_, _>>()?;
        let there = tensors.to(device)?;
        seconds.push(start.elapsed().as_secs_f64());
        drop(there);
    }
    report("load 20,000 tensors of 8 KiB", count * size, &mut seconds);
    fs::remove_file(path)?;
    Ok(())
}

/// Has what is cached of the files dropped; files in memory stay.
fn forget(folder: &Path) -> Outcome<()> {
    for shard in 0..SHARDS {
        let file = File::open(path(folder, shard))?;
        file.sync_all()?;
        fadvise(&file, 0, None::<NonZeroU64>, Advice::DontNeed)?;
    }
    Ok(())
}

fn open_raw(path: &Path, options: &mut OpenOptions) -> Outcome<File> {
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
    Ok(direct.or_else(|_| options.open(path))?)
}

/// Reads all files by blocks, in threads; how long that took.
fn raw_read(folder: &Path) -> Outcome<f64> {
    let start = Instant::now();
    for_blocks(folder, OpenOptions::new().read(true), |file, block, offset| {
        file.read_at(block, offset).map(drop)
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// Writes files of `bytes` bytes by blocks, in threads, and syncs them.
fn raw_write(folder: &Path, bytes: usize) -> Outcome<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true);
    for shard in 0..SHARDS {
        let file = options.clone().truncate(true).open(path(folder, shard))?;
        file.set_len(bytes.next_multiple_of(BLOCK) as u64)?;
    }
    for_blocks(folder, options, |file, block, offset| {
        file.write_all_at(block, offset)
    })?;
    for shard in 0..SHARDS {
        File::open(path(folder, shard))?.sync_all()?;
    }
    Ok(())
}

fn for_blocks(
    folder: &Path,
    options: &mut OpenOptions,
    act: impl Fn(&File, &mut [u8], u64) -> std::io::Result<()> + Sync,
) -> Outcome<()> {
    let mut blocks = Vec::new();
    let mut files = Vec::new();
    for shard in 0..SHARDS {
        let file = open_raw(&path(folder, shard), options)?;
        let bytes = file.metadata()?.len();
        blocks.extend((0..bytes).step_by(BLOCK).map(|offset| (offset, shard)));
        files.push(file);
    }
    blocks.sort_unstable();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let work = || -> std::io::Result<()> {
            let mut memory = vec![1_u8; BLOCK + 4096];
            let start = memory.as_ptr().align_offset(4096);
            while let Some(&(offset, shard)) = blocks.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                act(&files[shard], &mut memory[start..][..BLOCK], offset)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no thread panics"));
        joined.collect::<std::io::Result<Vec<()>>>()
    })?;
    Ok(())
}

fn report(what: &str, bytes: usize, seconds: &mut [f64]) {
    seconds.sort_unstable_by(f64::total_cmp);
    let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
    let (best, median) = (seconds[0], seconds[seconds.len() / 2]);
    println!(
        "{what:<44} best {:6.2} GB/s ({:.1} ms), median {:6.2} GB/s ({:.1} ms)",
        rate(best),
        best * 1e3,
        rate(median),
        median * 1e3
    );
}
