//! The disk that temporary files are on: a small file is written, and read by the engine's own readers.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use pinlane::{DType, Device, FileAccess, FileSource, Tree as _};
use procfs_core::MountEntry;

use super::System;
use crate::Disk;

/// The most that is written.
const BYTES: usize = 32 << 20;
/// What is written before the clock is looked at.
const PIECE: usize = 4 << 20;
/// Reads from the page cache after one that makes the memory for all of them: a disk needs no such.
const WARM_RUNS: usize = 3;
/// When no more is written.
const PATIENCE: Duration = Duration::from_millis(400);

/// Measures the disk of `folder`, and leaves nothing behind.
pub(super) fn measure(system: &System, folder: &Path) -> Disk {
    let mut disk = Disk {
        folder: folder.to_owned(),
        file_system: system
            .parse("proc/self/mounts")
            .and_then(|mounts: Vec<MountEntry>| {
                let folder = folder.canonicalize().ok()?;
                file_system(&mounts, &folder).map(str::to_owned)
            }),
        ..Disk::default()
    };
    if let Err(reason) = fill(&mut disk) {
        disk.refused = Some(reason);
    }
    disk
}

fn fill(disk: &mut Disk) -> Result<(), String> {
    let refused =
        |error: io::Error| format!("writing a temporary file in {}: {error}", disk.folder.display());
    let mut file = tempfile::Builder::new()
        .prefix("pinlane-doctor-")
        .tempfile_in(&disk.folder)
        .map_err(refused)?;
    let (bytes, took) = write(file.as_file_mut()).map_err(refused)?;
    disk.bytes = bytes as u64;
    disk.written = Some(rate(bytes, took));
    let read = |access, runs| read(file.path(), bytes, access, runs).map_err(|error| error.to_string());
    // What was written is in the page cache.
    disk.cached = Some(read(FileAccess::Buffered, 1 + WARM_RUNS)?);
    if disk.file_system.as_deref() == Some("tmpfs") {
        return Err("there is no way past the page cache to a file in memory".to_owned());
    }
    disk.direct = Some(read(FileAccess::Direct, 1)?);
    Ok(())
}

/// Writes pieces, each to the disk, until there are enough or it took too long.
fn write(file: &mut File) -> io::Result<(usize, Duration)> {
    // No two pages alike, so that a disk that compresses or finds twins has to write them.
    let mut state = 1_u64;
    let piece: Vec<u8> = (0..PIECE / 8)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()
        })
        .collect();
    let start = Instant::now();
    let mut bytes = 0;
    while bytes < BYTES && (bytes == 0 || start.elapsed() < PATIENCE) {
        file.write_all(&piece)?;
        file.sync_data()?;
        bytes += PIECE;
    }
    Ok((bytes, start.elapsed()))
}

/// Reads the file to the host in pieces, which the engine's threads share, and gives the best rate of so many runs.
fn read(path: &Path, bytes: usize, access: FileAccess, runs: usize) -> pinlane::Result<f64> {
    let file = FileSource::open_with(path, access)?;
    let pieces = (0..bytes / PIECE)
        .map(|piece| file.tensor((piece * PIECE) as u64, DType::U8, &[PIECE]))
        .collect::<pinlane::Result<Vec<_>>>()?;
    let run = || {
        let start = Instant::now();
        let there = pieces.to(&Device::host())?;
        let took = start.elapsed();
        drop(there);
        Ok(rate(bytes, took))
    };
    let rates: Vec<f64> = (0..runs).map(|_| run()).collect::<pinlane::Result<_>>()?;
    Ok(rates.into_iter().fold(0.0, f64::max))
}

fn rate(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64().max(1e-9)
}

/// The type of the file system that `folder` is on: that of the longest mount point above it, the last of several.
fn file_system<'a>(mounts: &'a [MountEntry], folder: &Path) -> Option<&'a str> {
    let above = mounts.iter().filter(|mount| folder.starts_with(&mount.fs_file));
    let nearest = above.max_by_key(|mount| Path::new(&mount.fs_file).components().count())?;
    Some(&nearest.fs_vfstype)
}

#[cfg(test)]
mod tests {
    use super::{super::system::made_up::machine, *};

    const MOUNTS: &str = "\
overlay / overlay rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/sda1 /data ext4 rw 0 0
/dev/sdb1 /data xfs rw 0 0
";

    #[test]
    fn a_folder_is_on_the_nearest_mount_above_it_and_the_last_of_those() {
        let (_folder, system) = machine(&[("proc/self/mounts", MOUNTS)]);
        let mounts: Vec<MountEntry> = system.parse("proc/self/mounts").unwrap();
        for (folder, kind) in [
            ("/tmp/x", "tmpfs"),
            ("/data/y/z", "xfs"),
            ("/tmpfiles", "overlay"),
            ("/", "overlay"),
        ] {
            assert_eq!(file_system(&mounts, Path::new(folder)), Some(kind), "{folder}");
        }
        assert_eq!(file_system(&[], Path::new("/")), None);
    }

    #[test]
    fn a_disk_is_measured_and_nothing_is_left_on_it() {
        let (folder, system) = machine(&[]);
        let disk = measure(&system, folder.path());
        assert!(
            disk.bytes > 0 && disk.written > Some(0.0) && disk.cached > Some(0.0),
            "{disk:?}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_can_not_be_written_is_a_fact() {
        let (folder, system) = machine(&[]);
        let disk = measure(&system, &folder.path().join("missing"));
        assert_eq!((disk.bytes, disk.written), (0, None));
        assert!(disk.refused.unwrap().contains("missing"));
    }
}
