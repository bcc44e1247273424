//! How busy others keep the processors.

use std::time::{Duration, Instant};

use procfs_core::{ExplicitSystemInfo, FromRead as _, FromReadSI as _, KernelStats, process::Stat};
use rustix::param::{clock_ticks_per_second, page_size};

use super::System;

/// What processors have done since the system began, in the kernel's clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    /// By whoever it was, other guests of the host among them.
    all: u64,
    /// By this process and its children.
    own: u64,
}

/// A moment, and what processors have done by then.
pub(super) struct Load {
    at: Instant,
    ticks: Option<Ticks>,
}

impl Load {
    pub(super) fn now(system: &System) -> Self {
        Self {
            at: Instant::now(),
            ticks: ticks(system),
        }
    }

    /// How many processors' time others have used since.
    pub(super) fn of_others_since(&self, system: &System) -> Option<f64> {
        let since = self.at.elapsed();
        others(self.ticks?, ticks(system)?, since, clock_ticks_per_second())
    }
}

fn others(before: Ticks, after: Ticks, since: Duration, per_second: u64) -> Option<f64> {
    let all = after.all.checked_sub(before.all)?;
    let own = after.own.checked_sub(before.own)?;
    let seconds = all.saturating_sub(own) as f64 / per_second as f64;
    let others = seconds / since.as_secs_f64();
    others.is_finite().then_some(others)
}

fn ticks(system: &System) -> Option<Ticks> {
    let info = ExplicitSystemInfo {
        boot_time_secs: 0,
        ticks_per_second: clock_ticks_per_second(),
        page_size: page_size() as u64,
        is_little_endian: cfg!(target_endian = "little"),
    };
    let all = KernelStats::from_file(system.path("proc/stat"), &info)
        .ok()?
        .total;
    let own = Stat::from_file(system.path("proc/self/stat")).ok()?;
    let children = u64::try_from(own.cutime + own.cstime).ok()?;
    // What guests of this machine take is in `user`.
    let asides = [all.irq, all.softirq, all.steal].into_iter().flatten();
    Some(Ticks {
        all: all.user + all.nice + all.system + asides.sum::<u64>(),
        own: own.utime + own.stime + children,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::system::made_up::machine, *};

    #[test]
    fn what_others_used_is_all_but_what_was_idle_and_what_was_ours() {
        let of = |all: &str, own: &str| {
            let rest = "0 ".repeat(35);
            let (_folder, system) = machine(&[
                (
                    "proc/stat",
                    &format!("cpu  {all}\ncpu0 {all}\nctxt 1\nbtime 1\nprocesses 1\n"),
                ),
                (
                    "proc/self/stat",
                    &format!("7 (a (b) c) R 1 7 7 0 -1 4194304 100 0 0 0 {own} {rest}\n"),
                ),
            ]);
            ticks(&system)
        };
        let before = of("100 10 50 9000 70 1 2 3 40 0", "20 5 3 2");
        assert_eq!(before, Some(Ticks { all: 166, own: 30 }));
        let after = of("400 10 150 9999 80 1 2 103 90 0", "120 25 23 12");
        assert_eq!(after, Some(Ticks { all: 666, own: 180 }));
        // 500 ticks in all, 150 of them ours, within a second of 100 ticks.
        let used = others(before.unwrap(), after.unwrap(), Duration::from_secs(1), 100);
        assert_eq!(used, Some(3.5));
        let backwards = others(after.unwrap(), before.unwrap(), Duration::from_secs(1), 100);
        assert_eq!(backwards, None);
        assert_eq!(of("", "1 1 1 1"), None);
        assert_eq!(of("1 1 1 1 1 1 1 1 0 0", "x"), None);
        assert_eq!(ticks(&System::below("/nowhere")), None);
    }
}
