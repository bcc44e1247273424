//! What the process runs in: a container, Windows' Subsystem for Linux, and how much memory processes may share.

use rustix::fs::statvfs;

use super::System;
use crate::Surroundings;

pub(super) fn read(system: &System) -> Surroundings {
    Surroundings {
        container: container(system),
        wsl: system
            .read("proc/sys/kernel/osrelease")
            .is_some_and(|release| is_wsl(&release)),
        shared_memory: statvfs(system.path("dev/shm"))
            .ok()
            .map(|found| found.f_blocks.saturating_mul(found.f_frsize)),
    }
}

fn is_wsl(release: &str) -> bool {
    let release = release.to_ascii_lowercase();
    release.contains("microsoft") || release.contains("wsl")
}

/// The kind of container, by what its runtime leaves in it.
fn container(system: &System) -> Option<String> {
    if system.in_cluster {
        return Some("kubernetes".to_owned());
    }
    if let Some(name) = &system.container_variable {
        return Some(name.clone());
    }
    for (mark, name) in [("run/.containerenv", "podman"), (".dockerenv", "docker")] {
        if system.has(mark) {
            return Some(name.to_owned());
        }
    }
    let groups = system.read("proc/1/cgroup")?;
    ["kubepods", "docker", "containerd", "libpod", "lxc"]
        .into_iter()
        .find(|name| groups.contains(name))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{super::system::made_up::machine, *};

    #[test]
    fn a_container_is_known_by_what_its_runtime_leaves() {
        for (files, name) in [
            (&[(".dockerenv", "")][..], Some("docker")),
            (&[("run/.containerenv", "engine=\"podman\"")], Some("podman")),
            (
                &[("proc/1/cgroup", "0::/kubepods.slice/pod7\n")],
                Some("kubepods"),
            ),
            (&[("proc/1/cgroup", "0::/init.scope\n")], None),
            (&[], None),
        ] {
            let (_folder, system) = machine(files);
            assert_eq!(read(&system).container.as_deref(), name, "{files:?}");
        }
        let (_folder, mut system) = machine(&[(".dockerenv", "")]);
        system.container_variable = Some("oci".to_owned());
        assert_eq!(read(&system).container.as_deref(), Some("oci"));
        system.in_cluster = true;
        assert_eq!(read(&system).container.as_deref(), Some("kubernetes"));
    }

    #[test]
    fn windows_subsystem_is_known_by_its_kernel() {
        for (release, wsl) in [
            ("5.15.167.4-microsoft-standard-WSL2\n", true),
            ("4.4.0-19041-Microsoft\n", true),
            ("6.8.0-51-generic\n", false),
        ] {
            let (_folder, system) = machine(&[("proc/sys/kernel/osrelease", release)]);
            assert_eq!(read(&system).wsl, wsl, "{release}");
        }
    }
}
