//! Measures ways for threads to write one new file in memory: what `FileSink` chooses from.
//!
//!     memory_files FOLDER [MEBIBYTES]
//!
//! FOLDER is on a tmpfs, such as /dev/shm. For each number of threads and way: the best of three runs, what it took of all
//! processors together, and how often a thread had to wait for another. What the machine does not allow is left out with the
//! reason. `several files` is one file for each thread.

use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    ptr::{self, NonNull},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a thread writes at a time: a slot of the engine's.
const BLOCK: usize = 4 << 20;
const RUNS: usize = 3;

/// The file's blocks, and how they get there.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Write,
    WriteSeveral,
    Reserve,
    Faults,
    Populated,
    HugePages,
    VmWrite,
    UserFault,
}

const WAYS: [(Way, &str); 8] = [
    (Way::Write, "pwrite"),
    (Way::WriteSeveral, "pwrite, several files"),
    (Way::Reserve, "fallocate, and nothing written"),
    (Way::Faults, "mapping, copied to"),
    (Way::Populated, "mapping, populated and copied to"),
    (Way::HugePages, "the same, huge pages advised"),
    (Way::VmWrite, "mapping, process_vm_writev"),
    (Way::UserFault, "mapping, userfaultfd copy"),
];

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("which folder? memory_files FOLDER [MIB]")?;
    let mib: usize = arguments.next().map_or(Ok(2048), |number| number.parse())?;
    let blocks = (mib << 20).div_ceil(BLOCK);
    let processors = thread::available_parallelism()?.get();
    let told = |path| fs::read_to_string(path).map_or("unknown".to_owned(), |text| text.trim().to_owned());
    println!(
        "{mib} MiB in {folder}, {processors} processors, Linux {}, huge pages in files in memory: {}",
        told("/proc/sys/kernel/osrelease"),
        told("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
    );
    let mut threads = 1;
    while threads <= processors.max(2) {
        for (way, name) in WAYS {
            match best(way, Path::new(&folder), threads, blocks) {
                Ok(taken) => {
                    let bytes = (blocks * BLOCK) as f64 / 1e9;
                    println!(
                        "{threads:2} threads  {name:34} {:6.2} GB/s  {:.3} s of processors for each GB  {:6} waits",
                        bytes / taken.seconds,
                        taken.processor / bytes,
                        taken.waits
                    );
                }
                Err(error) => println!("{threads:2} threads  {name:34} {error}"),
            }
        }
        threads *= 2;
    }
    Ok(())
}

struct Taken {
    seconds: f64,
    processor: f64,
    waits: i64,
}

fn best(way: Way, folder: &Path, threads: usize, blocks: usize) -> Outcome<Taken> {
    let count = if way == Way::WriteSeveral { threads } else { 1 };
    let paths: Vec<_> = (0..count)
        .map(|number| folder.join(format!("memory_files-{number}.bin")))
        .collect();
    let mut best: Option<Taken> = None;
    for _ in 0..RUNS {
        let files: Vec<File> = paths
            .iter()
            .map(|path| {
                let mut options = OpenOptions::new();
                let file = options
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(path)?;
                file.set_len((blocks * BLOCK) as u64)?;
                Ok(file)
            })
            .collect::<io::Result<_>>()?;
        let taken = run(way, &files, threads, blocks);
        for path in &paths {
            fs::remove_file(path)?;
        }
        let taken = taken?;
        if best.as_ref().is_none_or(|best| taken.seconds < best.seconds) {
            best = Some(taken);
        }
    }
    best.ok_or_else(|| "no run".into())
}

fn run(way: Way, files: &[File], threads: usize, blocks: usize) -> Outcome<Taken> {
    // A source for each thread, as each lane has slots.
    let sources = vec![vec![7_u8; BLOCK]; threads];
    let (before, start) = (usage(), Instant::now());
    let mapped = match way {
        Way::Write | Way::WriteSeveral | Way::Reserve => None,
        _ => Some(Mapped::of(&files[0], blocks * BLOCK, way)?),
    };
    if way == Way::Reserve {
        // SAFETY: plain numbers.
        let refused = unsafe { libc::posix_fallocate(files[0].as_raw_fd(), 0, (blocks * BLOCK) as i64) };
        if refused != 0 {
            return Err(io::Error::from_raw_os_error(refused).into());
        }
    } else {
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            for (worker, source) in sources.iter().enumerate() {
                let file = &files[worker % files.len()];
                let (next, failed, mapped) = (&next, &failed, mapped.as_ref());
                scope.spawn(move || {
                    loop {
                        let block = next.fetch_add(1, Ordering::Relaxed);
                        if block >= blocks {
                            return;
                        }
                        let done = match mapped {
                            Some(mapped) => mapped.write(source, block * BLOCK),
                            None => file.write_all_at(source, (block * BLOCK) as u64),
                        };
                        if let Err(error) = done {
                            next.store(blocks, Ordering::Relaxed);
                            failed.lock().expect("nobody panics").get_or_insert(error);
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner()? {
            return Err(error.into());
        }
    }
    drop(mapped);
    let (seconds, after) = (start.elapsed().as_secs_f64(), usage());
    Ok(Taken {
        seconds,
        processor: after.0 - before.0,
        waits: after.1 - before.1,
    })
}

/// A whole file, mapped.
struct Mapped {
    start: NonNull<u8>,
    bytes: usize,
    way: Way,
    faults: Option<OwnedFd>,
}

// SAFETY: blocks of it are written by one thread each, and the file is this program's.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn of(file: &File, bytes: usize, way: Way) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut mapped = Self {
            start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            bytes,
            way,
            faults: None,
        };
        if way == Way::HugePages {
            mapped.advise(0, bytes, libc::MADV_HUGEPAGE)?;
        }
        if way == Way::UserFault {
            mapped.faults = Some(mapped.take_faults()?);
        }
        Ok(mapped)
    }

    /// Has this process answer for the pages that are missing, so that it may fill them by [`COPY`](faults::COPY).
    fn take_faults(&self) -> io::Result<OwnedFd> {
        // SAFETY: makes a descriptor, which is owned from here on.
        let faults = unsafe {
            let raw = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | faults::USER_ONLY);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw as i32)
        };
        ioctl(&faults, faults::API, &mut [faults::VERSION, 0, 0])?;
        let (start, bytes) = (self.start.as_ptr().expose_provenance() as u64, self.bytes as u64);
        ioctl(&faults, faults::REGISTER, &mut [start, bytes, faults::MISSING, 0])?;
        Ok(faults)
    }

    fn write(&self, from: &[u8], at: usize) -> io::Result<()> {
        assert!(at + from.len() <= self.bytes);
        // SAFETY: inside the mapping.
        let to = unsafe { self.start.add(at) };
        match (&self.faults, self.way) {
            (Some(faults), _) => {
                let from_address = from.as_ptr().expose_provenance() as u64;
                let to_address = to.as_ptr().expose_provenance() as u64;
                ioctl(
                    faults,
                    faults::COPY,
                    &mut [to_address, from_address, from.len() as u64, 0, 0],
                )?;
            }
            (None, Way::VmWrite) => {
                let parts = [from.as_ptr().cast_mut(), to.as_ptr()].map(|base| libc::iovec {
                    iov_base: base.cast(),
                    iov_len: from.len(),
                });
                // SAFETY: reads what is borrowed, writes a block of the mapping that is this thread's.
                let written =
                    unsafe { libc::process_vm_writev(libc::getpid(), &parts[0], 1, &parts[1], 1, 0) };
                if usize::try_from(written) != Ok(from.len()) {
                    return Err(io::Error::last_os_error());
                }
            }
            (None, way) => {
                if way != Way::Faults {
                    self.advise(at, from.len(), libc::MADV_POPULATE_WRITE)?;
                }
                // SAFETY: a block of the mapping that is this thread's; the file is as long, and stays so.
                unsafe { to.as_ptr().copy_from_nonoverlapping(from.as_ptr(), from.len()) };
            }
        }
        self.advise(at, from.len(), libc::MADV_DONTNEED)
    }

    fn advise(&self, at: usize, bytes: usize, advice: i32) -> io::Result<()> {
        // SAFETY: inside the mapping; what is let go of stays in the file.
        let refused = unsafe { libc::madvise(self.start.add(at).as_ptr().cast(), bytes, advice) };
        if refused == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped once, unmapped once.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// `linux/userfaultfd.h`.
mod faults {
    pub(super) const USER_ONLY: i32 = 1;
    pub(super) const VERSION: u64 = 0xAA;
    pub(super) const MISSING: u64 = 1;
    pub(super) const API: u64 = 0xC018_AA3F;
    pub(super) const REGISTER: u64 = 0xC020_AA00;
    pub(super) const COPY: u64 = 0xC028_AA03;
}

fn ioctl<const N: usize>(file: &OwnedFd, request: u64, argument: &mut [u64; N]) -> io::Result<()> {
    // SAFETY: each request above reads and writes as many words as it is given here.
    let refused = unsafe { libc::ioctl(file.as_raw_fd(), request, argument.as_mut_ptr()) };
    if refused == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Seconds of processors, and how often a thread gave its own up to wait.
fn usage() -> (f64, i64) {
    // SAFETY: numbers alone, for which zeros are good, and which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_nvcsw)
}
