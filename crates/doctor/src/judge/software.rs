//! What runs around pinlane: Windows' Subsystem for Linux, containers, the page cache, torch.

use super::{CLEARLY, Cost, Finding, Severity, gpu::real};
use crate::{
    Facts, Rates as _, Torch,
    units::{rate, size},
};

/// What torch's loader processes want at least, to send batches through.
const SHARED: u64 = 1 << 30;
/// The page cache is read by several threads: less than this part of what they copy with is a file system's doing.
const CACHE: f64 = 0.25;
/// A disk that carries so many times less than the link is far below it: what a single fast disk reaches is not.
const FAR_BELOW: f64 = 10.0;
/// The oldest torch whose GPU tensors the Python package moves.
const OLDEST_TORCH: (u32, u32) = (2, 4);

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let found = [
        wsl(facts),
        shared_memory(facts),
        page_cache(facts),
        disk(facts),
        torch(facts),
    ];
    found.into_iter().flatten().collect()
}

fn wsl(facts: &Facts) -> Option<Finding> {
    facts.surroundings.wsl.then(|| Finding {
        id: "wsl",
        severity: Severity::Note,
        cost: Cost::Unknown,
        title: "this is Windows' Subsystem for Linux".to_owned(),
        reason: "Windows caps how much memory can be pinned here, and tells nothing of the link's generation and width"
            .to_owned(),
        fix: "raise `memory` in .wslconfig where pinning is refused; for full speed use Linux itself".to_owned(),
        by_itself: "it pins little (its budget), and goes on through fewer slots where that is refused".to_owned(),
    })
}

fn shared_memory(facts: &Facts) -> Option<Finding> {
    let container = facts.surroundings.container.as_deref()?;
    let bytes = facts.surroundings.shared_memory.filter(|&bytes| bytes < SHARED)?;
    Some(Finding {
        id: "little-shared-memory",
        severity: Severity::Note,
        cost: Cost::Nothing,
        title: format!("/dev/shm of this container ({container}) holds {}", size(bytes)),
        reason: "torch's loader processes send batches through it, and die with a bus error when it is full".to_owned(),
        fix: "`--shm-size=8g` or `--ipc=host` for a container, an `emptyDir` of medium Memory at /dev/shm for a pod".to_owned(),
        by_itself: "batches of `pinlane.collate` do not lie in /dev/shm, and are not counted against it".to_owned(),
    })
}

fn page_cache(facts: &Facts) -> Option<Finding> {
    let (cached, copied) = (facts.disk.cached?, facts.memcpy.best()?);
    let times = CACHE * copied / cached;
    (times > CLEARLY).then(|| Finding {
        id: "slow-page-cache",
        severity: Severity::Wrong,
        cost: Cost::times(times, "reading files that were read before"),
        title: format!("files in the page cache of {} are read slowly", facts.disk.folder.display()),
        reason: format!(
            "{} from the page cache, where memory is copied with {}: the file system ({}) or a sandbox takes the calls",
            rate(cached),
            rate(copied),
            facts.disk.file_system.as_deref().unwrap_or("of an unknown type")
        ),
        fix: "put checkpoints on a local file system or in /dev/shm".to_owned(),
        by_itself: "it reads with few long calls, and several threads".to_owned(),
    })
}

/// A disk that carries so little that the link does not matter for what comes from it.
fn disk(facts: &Facts) -> Option<Finding> {
    let direct = facts.disk.direct.filter(|&direct| direct > 0.0)?;
    let rates = real(facts).filter_map(|device| Some((device.measured?.to_device, device.name.as_str())));
    let (link, device) = rates.max_by(|one, other| one.0.total_cmp(&other.0))?;
    let times = link / direct;
    (times > FAR_BELOW).then(|| Finding {
        id: "slow-disk",
        severity: Severity::Note,
        cost: Cost::times(times, "loading files that were not read before"),
        title: format!(
            "the disk of {} reads far slower than the link of {device} carries",
            facts.disk.folder.display()
        ),
        reason: format!(
            "{} past the page cache, where the link carries {}: loading from it waits for the disk alone",
            rate(direct),
            rate(link)
        ),
        fix:
            "put checkpoints on a faster disk, or in memory (/dev/shm) where they are loaded again and again"
                .to_owned(),
        by_itself: "it reads ahead with several threads while the link carries what was read".to_owned(),
    })
}

/// A torch that does not fit.
fn torch(facts: &Facts) -> Option<Finding> {
    let python = facts.python.as_ref()?;
    let torch = python.torch.as_ref()?;
    let program = python.program.display();
    let wrong = |id, title: String, reason: String, fix: String| Finding {
        id,
        severity: Severity::Wrong,
        cost: Cost::Everything,
        title,
        reason,
        fix,
        by_itself: "the Rust API and this command do without torch".to_owned(),
    };
    // Without a GPU any torch will do.
    let device = real(facts).next()?;
    if torch.cuda.is_none() {
        return Some(wrong(
            "torch-without-cuda",
            format!("torch {} is built without CUDA", torch.version),
            format!("{program} would find no GPU, though {} is there", device.name),
            "install a build of torch for CUDA".to_owned(),
        ));
    }
    if let Some((needs, speaks)) = newer_than_driver(torch, device.library.as_deref()) {
        return Some(wrong(
            "torch-too-new",
            format!(
                "torch {} is built for CUDA {needs}, and the driver speaks {speaks}",
                torch.version
            ),
            format!(
                "a build for a later major version of CUDA than the driver's finds no GPU; asked of {program}"
            ),
            format!("update the NVIDIA driver, or install a build of torch for {speaks}"),
        ));
    }
    (version(&torch.version)? < OLDEST_TORCH).then(|| {
        let (major, minor) = OLDEST_TORCH;
        wrong(
            "torch-too-old",
            format!(
                "torch {} is older than pinlane's Python package wants",
                torch.version
            ),
            format!("it moves GPU tensors of torch {major}.{minor} and later; asked of {program}"),
            format!("install torch {major}.{minor} or later"),
        )
    })
}

/// The CUDA that torch needs and the one that the driver speaks, where they do not fit.
fn newer_than_driver<'a>(torch: &'a Torch, library: Option<&'a str>) -> Option<(&'a str, &'a str)> {
    let needs = torch.cuda.as_deref()?;
    let speaks = library?;
    let (needed, spoken) = (version(needs)?, version(speaks.rsplit(' ').next()?)?);
    // Within a major version newer builds run on older drivers.
    (needed.0 > spoken.0).then_some((needs, speaks))
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
