//! Processor, cores and nodes.

use super::{System, groups::Groups, system::field};
use crate::{Cores, Host, Node};

pub(super) fn read(system: &System, groups: &Groups) -> Host {
    let cores = |path: &str| system.read(path).and_then(|text| text.parse::<Cores>().ok());
    let online = cores("sys/devices/system/cpu/online").unwrap_or_default();
    let allowed = system
        .read("proc/self/status")
        .and_then(|text| field(&text, "Cpus_allowed_list")?.parse::<Cores>().ok());
    Host {
        processor: system
            .read("proc/cpuinfo")
            .and_then(|text| field(&text, "model name").map(str::to_owned)),
        kernel: system.read("proc/sys/kernel/osrelease"),
        allowed: allowed.unwrap_or_else(|| online.clone()),
        online,
        quota: groups.processor_time(system),
        nodes: nodes(system),
    }
}

fn nodes(system: &System) -> Vec<Node> {
    const NODES: &str = "sys/devices/system/node";
    let node = |name: String| {
        let cores = system.read(format!("{NODES}/{name}/cpulist"))?.parse().ok()?;
        let number = name.strip_prefix("node")?.parse().ok()?;
        Some(Node { number, cores })
    };
    let mut nodes: Vec<Node> = system.names(NODES).into_iter().filter_map(node).collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

#[cfg(test)]
mod tests {
    use super::{
        super::{groups, system::made_up::machine},
        *,
    };

    fn host(files: &[(&str, &str)]) -> Host {
        let (_folder, system) = machine(files);
        read(&system, &groups::of(&system))
    }

    #[test]
    fn a_machine_tells_its_processor_cores_and_nodes() {
        let host = host(&[
            (
                "proc/cpuinfo",
                "processor\t: 0\nmodel name\t: Some Chip: 9000\n\nprocessor\t: 1\n",
            ),
            ("proc/sys/kernel/osrelease", "6.8.0\n"),
            (
                "proc/self/status",
                "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n",
            ),
            ("sys/devices/system/cpu/online", "0-15\n"),
            ("sys/devices/system/node/node0/cpulist", "0-7\n"),
            ("sys/devices/system/node/node10/cpulist", "12-15\n"),
            ("sys/devices/system/node/node2/cpulist", "8-11\n"),
            ("sys/devices/system/node/has_cpu", "0-1\n"),
        ]);
        assert_eq!(host.processor.as_deref(), Some("Some Chip: 9000"));
        assert_eq!(host.kernel.as_deref(), Some("6.8.0"));
        assert_eq!((host.online.count(), host.allowed.count()), (16, 4));
        let numbers: Vec<u32> = host.nodes.iter().map(|node| node.number).collect();
        assert_eq!(numbers, [0, 2, 10]);
        assert_eq!(host.nodes[1].cores.to_string(), "8-11");
        assert_eq!(host.quota, None);
    }

    #[test]
    fn a_process_that_is_not_told_where_it_may_run_may_run_everywhere() {
        let host = host(&[("sys/devices/system/cpu/online", "0-3\n")]);
        assert_eq!(host.allowed, host.online);
    }

    #[test]
    fn a_machine_that_tells_nothing_is_a_machine() {
        let host = host(&[]);
        assert!(host.online.is_empty() && host.nodes.is_empty() && host.processor.is_none());
    }
}
