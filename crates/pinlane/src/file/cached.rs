//! Whether a range of a file is in the page cache, without reading it and without having the kernel read ahead.
//!
//! What is there is copied at the speed of memory; what is not is better read past the cache, in long pieces. Only a part
//! from the middle of a range is asked about: a question takes half a microsecond to several, by the size of the kernel's
//! pages, and a range is either there or not but for its ends, mostly.

use std::{fs::File, ops::Range, os::fd::AsRawFd, ptr};

use rustix::{
    fs,
    mm::{self, MapFlags, ProtFlags},
    param::page_size,
};

/// What is asked about at most, in bytes.
const SAMPLE: u64 = 64 << 10;

/// The number of `cachestat`, one for all architectures.
const CACHESTAT: libc::c_long = 451;

/// What `cachestat` is asked.
#[repr(C)]
struct CacheRange {
    start: u64,
    bytes: u64,
}

/// What it answers, in pages.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether most of `range` is in the page cache. What the kernel does not tell counts as being there.
pub(crate) fn is_cached(file: &File, range: Range<u64>) -> bool {
    let sample = sample(range);
    let pages = (sample.end - sample.start) / page_size() as u64;
    pages_cached(file, &sample)
        .or_else(|| pages_mapped(file, &sample))
        .is_none_or(|cached| 2 * cached >= pages)
}

/// Whether the file lies in memory itself, so that there is no faster way than through the page cache.
pub(crate) fn is_in_memory(file: &File) -> bool {
    fs::fstatfs(file).is_ok_and(|system| [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC].contains(&system.f_type))
}

/// Whole pages from the middle of a range.
fn sample(range: Range<u64>) -> Range<u64> {
    let page = page_size() as u64;
    let skipped = (range.end - range.start).saturating_sub(SAMPLE) / 2;
    let start = (range.start + skipped) / page * page;
    let end = (range.end - skipped).next_multiple_of(page);
    start..end
}

/// By `cachestat`, since Linux 6.5.
fn pages_cached(file: &File, range: &Range<u64>) -> Option<u64> {
    let asked = CacheRange {
        start: range.start,
        bytes: range.end - range.start,
    };
    let mut answer = CacheStat::default();
    // SAFETY: the call reads the one and writes the other, which have the layout that it defines.
    let told = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const asked,
            &raw mut answer,
            0 as libc::c_uint,
        )
    };
    (told == 0).then_some(answer.cached)
}

/// By a mapping that nobody touches: it asks which pages reading it would find.
fn pages_mapped(file: &File, range: &Range<u64>) -> Option<u64> {
    let bytes = usize::try_from(range.end - range.start).ok()?;
    let mut resident = vec![0_u8; bytes / page_size()];
    // SAFETY: a new mapping, whose bytes are never accessed, so that a file which shrinks does no harm; `resident` has a
    // byte for each of its pages; it is unmapped once, here.
    let told = unsafe {
        let mapping = mm::mmap(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ,
            MapFlags::SHARED,
            file,
            range.start,
        )
        .ok()?;
        let told = libc::mincore(mapping, bytes, resident.as_mut_ptr().cast());
        mm::munmap(mapping, bytes).ok()?;
        told
    };
    (told == 0).then(|| resident.iter().filter(|&&page| page & 1 == 1).count() as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{Advice, fadvise};

    use super::*;

    #[test]
    fn a_sample_is_whole_pages_from_the_middle_and_the_whole_of_a_short_range() {
        let page = page_size() as u64;
        assert_eq!(sample(1..page + 1), 0..2 * page);
        assert_eq!(sample(page..2 * page), page..2 * page);
        let long = sample(0..100 * SAMPLE);
        assert!(long.start > 49 * SAMPLE && long.end < 51 * SAMPLE, "{long:?}");
    }

    #[test]
    fn what_was_just_written_is_cached_and_what_was_dropped_from_the_cache_is_not_by_either_way_of_asking() {
        // In the build's folder: a temporary one may lie in memory, from where nothing is ever dropped.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let bytes = 1 << 20;
        file.write_all(&vec![1; bytes]).unwrap();
        file.sync_all().unwrap();
        let all = 0..bytes as u64;
        let pages = all.end / page_size() as u64;
        assert!(is_cached(&file, all.clone()));
        assert_eq!(pages_mapped(&file, &all), Some(pages));
        if is_in_memory(&file) {
            return;
        }
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let left = pages_mapped(&file, &all).unwrap();
        assert_eq!(is_cached(&file, all), left > pages / 2);
    }
}
