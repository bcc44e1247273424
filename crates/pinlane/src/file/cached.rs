//! Whether a range of a file is in the page cache, without reading it.
//!
//! What is there is copied at the speed of memory; what is not is better read past the cache, in long pieces. Only a part
//! from the middle of a range is asked about: a question takes half a microsecond to several, by the size of the kernel's
//! pages, and a range is either there or not but for its ends, mostly.

use std::{fs::File, io::IoSliceMut, ops::Range, os::fd::AsRawFd};

use rustix::{
    fs::{self, Advice, fadvise},
    io::{Errno, ReadWriteFlags, preadv2},
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

/// Has the kernel read of a file what is asked for, at once, and nothing ahead: not what [`is_cached`] tries to read.
pub(crate) fn expect_questions(file: &File) {
    // Advice that is refused costs time and nothing else.
    let _refused = fadvise(file, 0, None, Advice::Random);
}

/// Whether most of `range` is in the page cache. What the kernel does not tell counts as being there.
pub(crate) fn is_cached(file: &File, range: Range<u64>) -> bool {
    let sample = sample(range);
    let pages = (sample.end - sample.start) / page_size() as u64;
    match pages_cached(file, &sample) {
        Some(cached) => 2 * cached >= pages,
        None => is_readable_at_once(file, sample.start + (sample.end - sample.start) / 2),
    }
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

/// By `cachestat`, since Linux 6.5; for some files it may be the owner's alone to ask.
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

/// By trying to read a byte without waiting for it. Where it is not there, the kernel begins to read its page.
fn is_readable_at_once(file: &File, at: u64) -> bool {
    let mut byte = [0];
    let read = preadv2(
        file,
        &mut [IoSliceMut::new(&mut byte)],
        at,
        ReadWriteFlags::NOWAIT,
    );
    !matches!(read, Err(Errno::AGAIN))
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
        expect_questions(&file);
        let all = 0..bytes as u64;
        assert!(is_cached(&file, all.clone()));
        assert!(is_readable_at_once(&file, 1234));
        if is_in_memory(&file) {
            return;
        }
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        // It is the kernel's to say whether it drops anything.
        let Some(left) = pages_cached(&file, &all) else {
            return;
        };
        assert_eq!(
            is_cached(&file, all.clone()),
            2 * left > all.end / page_size() as u64
        );
        if left == 0 {
            assert!(!is_readable_at_once(&file, all.end / 2));
            let begun = pages_cached(&file, &all).unwrap();
            assert!(begun <= 1, "asking had {begun} pages read");
        }
    }
}
