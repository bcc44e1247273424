//! The control groups of this process: the folders in which the kernel tells their limits.

use std::path::{Path, PathBuf};

use procfs_core::ProcessCGroups;

use super::System;

/// The folders of a controller, from the process's own group up to the root of what it sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    /// Of version 2, which has one hierarchy for all.
    unified: Vec<PathBuf>,
    /// Of version 1, for processor time.
    cpu: Vec<PathBuf>,
    /// Of version 1, for memory.
    memory: Vec<PathBuf>,
}

pub(super) fn of(system: &System) -> Groups {
    let mut groups = Groups::default();
    let Some(ProcessCGroups(entries)) = system.parse("proc/self/cgroup") else {
        return groups;
    };
    for entry in entries {
        let has = |controller: &str| entry.controllers.iter().any(|found| found == controller);
        if entry.controllers.is_empty() {
            // Beside version 1, version 2 is mounted below it.
            for mount in ["sys/fs/cgroup", "sys/fs/cgroup/unified"] {
                groups.unified.extend(upwards(mount, &entry.pathname));
            }
        }
        if has("cpu") {
            let mount = format!("sys/fs/cgroup/{}", entry.controllers.join(","));
            groups.cpu.extend(upwards(&mount, &entry.pathname));
            groups.cpu.extend(upwards("sys/fs/cgroup/cpu", &entry.pathname));
        }
        if has("memory") {
            groups
                .memory
                .extend(upwards("sys/fs/cgroup/memory", &entry.pathname));
        }
    }
    groups
}

/// `mount/a/b`, `mount/a`, `mount` for `/a/b`. In a container the upper ones may be all there is.
fn upwards(mount: &str, group: &str) -> Vec<PathBuf> {
    let own = Path::new(mount).join(group.trim_start_matches('/'));
    own.ancestors()
        .take_while(|folder| folder.starts_with(mount))
        .map(Path::to_owned)
        .collect()
}

impl Groups {
    /// How many cores' time the process gets: the least of its groups' limits.
    pub(super) fn processor_time(&self, system: &System) -> Option<f64> {
        let unified = self.unified.iter().filter_map(|folder| {
            let text = system.read(folder.join("cpu.max"))?;
            let (quota, period) = text.split_once(' ')?;
            // `max` is no limit.
            Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
        });
        let first = self.cpu.iter().filter_map(|folder| {
            let quota: f64 = system.read(folder.join("cpu.cfs_quota_us"))?.parse().ok()?;
            let period: f64 = system.read(folder.join("cpu.cfs_period_us"))?.parse().ok()?;
            // -1 is no limit.
            (quota > 0.0).then_some(quota / period)
        });
        unified
            .chain(first)
            .filter(|cores| cores.is_finite() && *cores > 0.0)
            .reduce(f64::min)
    }

    /// How much memory the process gets: the least of its groups' limits.
    pub(super) fn memory(&self, system: &System) -> Option<u64> {
        let limits = self.unified.iter().map(|folder| folder.join("memory.max")).chain(
            self.memory
                .iter()
                .map(|folder| folder.join("memory.limit_in_bytes")),
        );
        limits
            .filter_map(|path| system.read(path)?.parse::<u64>().ok())
            // Version 1 writes the largest number there is for no limit.
            .filter(|&bytes| bytes < i64::MAX as u64 / 2)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::system::made_up::machine, *};

    fn time(files: &[(&str, &str)]) -> Option<f64> {
        let (_folder, system) = machine(files);
        of(&system).processor_time(&system)
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let own = ("proc/self/cgroup", "0::/pod/box\n");
        assert_eq!(time(&[own]), None);
        assert_eq!(
            time(&[own, ("sys/fs/cgroup/pod/box/cpu.max", "max 100000\n")]),
            None
        );
        let limits = [
            own,
            ("sys/fs/cgroup/pod/box/cpu.max", "400000 100000\n"),
            ("sys/fs/cgroup/pod/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ];
        assert_eq!(time(&limits), Some(1.5));
    }

    #[test]
    fn a_container_that_sees_only_its_own_group_finds_it_at_the_root() {
        let limits = [
            ("proc/self/cgroup", "0::/kubepods/not/to/be/seen\n"),
            ("sys/fs/cgroup/cpu.max", "200000 100000\n"),
        ];
        assert_eq!(time(&limits), Some(2.0));
    }

    #[test]
    fn the_first_version_of_control_groups_is_read_too() {
        for (controllers, folder) in [("cpu,cpuacct", "cpu,cpuacct"), ("cpu", "cpu")] {
            let own = format!("4:memory:/job\n3:{controllers}:/job\n0::/\n");
            let (quota, period) = (
                format!("sys/fs/cgroup/{folder}/job/cpu.cfs_quota_us"),
                format!("sys/fs/cgroup/{folder}/job/cpu.cfs_period_us"),
            );
            let files = |limit| {
                [
                    ("proc/self/cgroup", own.as_str()),
                    (&quota, limit),
                    (&period, "100000"),
                ]
            };
            assert_eq!(time(&files("50000")), Some(0.5), "{controllers}");
            assert_eq!(time(&files("-1")), None, "{controllers}");
        }
    }

    #[test]
    fn memory_has_the_least_limit_and_none_where_the_kernel_says_so() {
        let memory = |files: &[(&str, &str)]| {
            let (_folder, system) = machine(files);
            of(&system).memory(&system)
        };
        let own = ("proc/self/cgroup", "4:memory:/job\n0::/job\n");
        assert_eq!(
            memory(&[
                own,
                (
                    "sys/fs/cgroup/memory/job/memory.limit_in_bytes",
                    "9223372036854771712"
                )
            ]),
            None
        );
        assert_eq!(
            memory(&[own, ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1048576")]),
            Some(1 << 20)
        );
        assert_eq!(memory(&[own, ("sys/fs/cgroup/job/memory.max", "max")]), None);
        assert_eq!(
            memory(&[
                own,
                ("sys/fs/cgroup/job/memory.max", "2097152"),
                ("sys/fs/cgroup/memory.max", "4194304")
            ]),
            Some(2 << 20)
        );
    }

    #[test]
    fn what_is_no_list_of_groups_limits_nothing() {
        for text in ["", "nonsense", "x:cpu:/\n", "3:cpu\n"] {
            assert_eq!(time(&[("proc/self/cgroup", text)]), None, "{text:?}");
        }
    }
}
