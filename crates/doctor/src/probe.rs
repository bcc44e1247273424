//! Reading and measuring a machine: what the kernel tells, and short measurements by the engine itself.
//!
//! What the kernel tells is read below a root folder, so that tests can make a machine up. Nothing here judges, and nothing
//! fails: what a machine does not tell, or refuses, is a fact too.

mod accelerators;
mod disk;
mod groups;
mod hardware;
mod host;
mod load;
mod memory;
mod python;
mod ring;
mod surroundings;
mod system;

use std::time::{Duration, Instant};

use pinlane::MemcpyRate;

use self::load::Load;
use crate::Facts;
pub use system::System;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only this device, which may be a simulated one. `None` for all GPUs.
    pub device: Option<String>,
}

/// How long all of it may take. What is measured last, the GPUs after the first, is left out when it is over.
const PATIENCE: Duration = Duration::from_millis(3500);

/// Bytes that are copied to measure memory: more than most processors' caches hold.
const COPIED: usize = 128 << 20;
/// How often.
const COPIES: usize = 3;

/// Looks at this machine: in a few seconds, during which nothing else should run.
#[must_use]
pub fn probe(options: &Options) -> Facts {
    let started = Instant::now();
    let system = System::this();
    let load = Load::now(&system);
    let mut facts = traced("system", || described(&system));
    facts.python = traced("python", python::find);
    facts.io_uring = traced("io_uring", ring::tried);
    facts.disk = traced("disk", || disk::measure(&system, &std::env::temp_dir()));
    // Rates that could not be measured are not there: a system that starts no thread shows itself elsewhere.
    facts.memcpy = traced("memcpy", || {
        MemcpyRate::measure(COPIED, COPIES).unwrap_or_default()
    });
    accelerators::measure(&mut facts.accelerators, options, started + PATIENCE);
    facts.busy_elsewhere = load.of_others_since(&system);
    facts
}

/// Looks at one thing, as a step of a trace.
fn traced<T>(name: &'static str, look: impl FnOnce() -> T) -> T {
    let _span = pinlane::trace::span(name);
    look()
}

/// What the kernel tells, without measuring anything.
#[must_use]
pub fn described(system: &System) -> Facts {
    let groups = groups::of(system);
    Facts {
        host: host::read(system, &groups),
        memory: memory::read(system, &groups),
        surroundings: surroundings::read(system),
        accelerators: hardware::read(system),
        ..Facts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{system::made_up::machine, *};
    use crate::{Severity, judge};

    #[test]
    fn what_the_kernel_of_a_made_up_machine_tells_is_what_is_judged() {
        let (_folder, system) = machine(&[
            (".dockerenv", ""),
            (
                "proc/sys/kernel/osrelease",
                "5.15.167.4-microsoft-standard-WSL2\n",
            ),
            ("proc/self/status", "Cpus_allowed_list:\t0-7\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/memory.max", "134217728\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
            (
                "sys/kernel/mm/transparent_hugepage/enabled",
                "always madvise [never]\n",
            ),
            ("dev/dxg", ""),
        ]);
        let mut facts = described(&system);
        assert_eq!(facts.surroundings.container.as_deref(), Some("docker"));
        facts.accelerators.absent = Some("the driver library can't be loaded".to_owned());
        let findings = judge(&facts);
        let found: Vec<_> = findings.iter().map(|found| (found.id, found.severity)).collect();
        assert_eq!(found[0], ("gpu-unusable", Severity::Wrong));
        for id in [
            ("no-large-pages", Severity::Wrong),
            ("memory-limit", Severity::Wrong),
            ("processor-quota", Severity::Note),
            ("wsl", Severity::Note),
        ] {
            assert!(found.contains(&id), "{id:?} is missing: {found:?}");
        }
    }
}
