//! How busy others keep the processors.

use std::time::{Duration, Instant};

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
        others(
            self.ticks?,
            ticks(system)?,
            since,
            rustix::param::clock_ticks_per_second(),
        )
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
    let stat = system.read("proc/stat")?;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
    let all = stat.lines().next()?.strip_prefix("cpu ")?;
    let all: Vec<u64> = all
        .split_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let [user, nice, kernel, _, _, irq, softirq, steal] = *all.first_chunk()?;
    let own = system.read("proc/self/stat")?;
    // Behind the program's name, which may hold anything: its times and its children's are the 12th to the 15th there.
    let own = own.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    let own: Option<u64> = own.map(|number| number.parse::<u64>().ok()).sum();
    Some(Ticks {
        all: user + nice + kernel + irq + softirq + steal,
        own: own?,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::system::made_up::machine, *};

    #[test]
    fn what_others_used_is_all_but_what_was_idle_and_what_was_ours() {
        let of = |stat: &str, own: &str| {
            let (_folder, system) = machine(&[("proc/stat", stat), ("proc/self/stat", own)]);
            ticks(&system)
        };
        let own = |times: &str| format!("7 (a (b) c) R 1 7 7 0 -1 4194304 100 0 0 0 {times} 20 0 1 0 100\n");
        let before = of(
            "cpu  100 10 50 9000 70 1 2 3 40 0\ncpu0 1 2 3\n",
            &own("20 5 3 2"),
        );
        assert_eq!(before, Some(Ticks { all: 166, own: 30 }));
        let after = of("cpu  400 10 150 9999 80 1 2 103 90 0\n", &own("120 25 23 12"));
        assert_eq!(after, Some(Ticks { all: 666, own: 180 }));
        // 500 ticks in all, 150 of them ours, within a second of 100 ticks.
        let used = others(before.unwrap(), after.unwrap(), Duration::from_secs(1), 100);
        assert_eq!(used, Some(3.5));
        let backwards = others(after.unwrap(), before.unwrap(), Duration::from_secs(1), 100);
        assert_eq!(backwards, None);
        for (stat, own) in [
            ("", own("1 1 1 1")),
            ("cpu  1 2\n", own("1 1 1 1")),
            ("cpu  1 1 1 1 1 1 1 1\n", String::new()),
        ] {
            assert_eq!(of(stat, &own), None, "{stat:?} {own:?}");
        }
    }
}
