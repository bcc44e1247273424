//! Memory and its limits.

use procfs_core::{
    Meminfo,
    process::{LimitValue, Limits},
};

use super::{System, groups::Groups};
use crate::Memory;

pub(super) fn read(system: &System, groups: &Groups) -> Memory {
    let info: Option<Meminfo> = system.parse("proc/meminfo");
    let limits: Option<Limits> = system.parse("proc/self/limits");
    let of = |field: fn(&Meminfo) -> Option<u64>| info.as_ref().and_then(field);
    Memory {
        total: of(|info| Some(info.mem_total)),
        available: of(|info| info.mem_available),
        limit: groups.memory(system),
        huge_pages: system
            .read("sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|text| chosen(&text).map(str::to_owned)),
        reserved_huge_pages: of(|info| info.hugepages_total),
        huge_page_bytes: of(|info| info.hugepagesize),
        locked_limit: limits.map(|limits| match limits.max_locked_memory.soft_limit {
            LimitValue::Unlimited => None,
            LimitValue::Value(bytes) => Some(bytes),
        }),
    }
}

/// `madvise` in `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{groups, system::made_up::machine},
        *,
    };

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max file size             unlimited            unlimited            bytes
Max data size             unlimited            unlimited            bytes
Max stack size            8388608              unlimited            bytes
Max core file size        0                    unlimited            bytes
Max resident set          unlimited            unlimited            bytes
Max processes             96245                96245                processes
Max open files            1024                 1048576              files
Max locked memory         LOCKED               8388608              bytes
Max address space         unlimited            unlimited            bytes
Max file locks            unlimited            unlimited            locks
Max pending signals       96245                96245                signals
Max msgqueue size         819200               819200               bytes
Max nice priority         0                    0
Max realtime priority     0                    0
Max realtime timeout      unlimited            unlimited            us
";

    fn memory(files: &[(&str, &str)]) -> Memory {
        let (_folder, system) = machine(files);
        read(&system, &groups::of(&system))
    }

    #[test]
    fn the_limit_of_locked_memory_is_the_soft_one() {
        let locked =
            |text: &str| memory(&[("proc/self/limits", &LIMITS.replace("LOCKED", text))]).locked_limit;
        assert_eq!(locked("65536"), Some(Some(65536)));
        assert_eq!(locked("unlimited"), Some(None));
        assert_eq!(memory(&[]).locked_limit, None);
    }

    #[test]
    fn large_pages_are_given_as_the_word_in_brackets_says() {
        for (text, word) in [
            ("[always] madvise never\n", Some("always")),
            ("always [madvise] never\n", Some("madvise")),
            ("always madvise [never]\n", Some("never")),
            ("always\n", None),
        ] {
            let memory = memory(&[("sys/kernel/mm/transparent_hugepage/enabled", text)]);
            assert_eq!(memory.huge_pages.as_deref(), word);
        }
    }

    #[test]
    fn what_memory_there_is_is_told_in_bytes() {
        let info = "\
MemTotal:       1000 kB
MemFree:         500 kB
MemAvailable:    800 kB
Buffers:           0 kB
Cached:            0 kB
SwapCached:        0 kB
Active:            0 kB
Inactive:          0 kB
SwapTotal:         0 kB
SwapFree:          0 kB
Dirty:             0 kB
Writeback:         0 kB
Mapped:            0 kB
Slab:              0 kB
Committed_AS:      0 kB
VmallocTotal:      0 kB
VmallocUsed:       0 kB
VmallocChunk:      0 kB
HugePages_Total:   3
Hugepagesize:   2048 kB
";
        let memory = memory(&[("proc/meminfo", info)]);
        assert_eq!((memory.total, memory.available), (Some(1_024_000), Some(819_200)));
        assert_eq!(
            (memory.reserved_huge_pages, memory.huge_page_bytes),
            (Some(3), Some(2 << 20))
        );
    }
}
