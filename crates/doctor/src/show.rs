//! A report for people.

use std::fmt::Write as _;

use pinlane::MemcpyRate;

use crate::units::{rate, size};
use crate::{Accelerator, Disk, Facts, Finding, IoUring, Report, Severity};

/// The whole report: what the machine is, and what was found.
#[must_use]
pub fn report(report: &Report) -> String {
    format!("{}\n{}", facts(&report.facts), findings(&report.findings))
}

/// What the machine is, a line for each thing.
fn facts(facts: &Facts) -> String {
    let mut text = String::new();
    let mut line = |name: &str, what: String| writeln!(text, "{name:<14} {what}").expect("a string takes it");
    let unknown = || "not told".to_owned();
    let host = &facts.host;
    line("processor", host.processor.clone().unwrap_or_else(unknown));
    line("cores", cores(facts));
    if host.nodes.len() > 1 {
        let nodes = host
            .nodes
            .iter()
            .map(|node| format!("{}: {}", node.number, node.cores));
        line("NUMA nodes", nodes.collect::<Vec<_>>().join("; "));
    }
    line("kernel", host.kernel.clone().unwrap_or_else(unknown));
    line("runs in", surroundings(facts));
    line("memory", memory(facts));
    line(
        "large pages",
        facts.memory.huge_pages.clone().unwrap_or_else(unknown),
    );
    let locked = match facts.memory.locked_limit {
        None => unknown(),
        Some(None) => "no limit".to_owned(),
        Some(Some(bytes)) => size(bytes),
    };
    line("may lock", locked);
    line("memcpy", memcpy(&facts.memcpy));
    line("disk", disk(&facts.disk));
    let ring = match &facts.io_uring {
        IoUring::NotTried => "not tried".to_owned(),
        IoUring::Works => "works; pinlane reads with threads and does without".to_owned(),
        IoUring::Refused(reason) => {
            format!("refused ({reason}); pinlane reads with threads and does without")
        }
    };
    line("io_uring", ring);
    let found = &facts.accelerators;
    if let Some(version) = &found.kernel_driver {
        line("NVIDIA driver", version.clone());
    }
    for device in &found.devices {
        line(&device.name, accelerator(device));
        if device.simulated {
            line(
                "",
                "simulated device: shows behaviour, not hardware speed".to_owned(),
            );
        }
        if let Some(reason) = &device.unusable {
            line("", format!("can't be used: {reason}"));
        }
        if let Some(reason) = &device.left_out {
            line("", format!("not measured: {reason}"));
        }
        for refused in &device.refused {
            line("", format!("{}: {}", refused.part.words(), refused.reason));
        }
    }
    if found.devices.iter().all(|device| device.unusable.is_some()) {
        line("GPU", "none that can be used".to_owned());
    }
    line("Python", python(facts));
    text
}

fn cores(facts: &Facts) -> String {
    let host = &facts.host;
    let mut text = host.online.count().to_string();
    if host.allowed != host.online {
        let _infallible = write!(
            text,
            ", of which this process may use {} ({})",
            host.allowed.count(),
            host.allowed
        );
    }
    if let Some(quota) = host.quota {
        let _infallible = write!(text, ", for the time of {quota:.1}");
    }
    text
}

fn surroundings(facts: &Facts) -> String {
    let surroundings = &facts.surroundings;
    let mut text = match &surroundings.container {
        Some(kind) => format!("a container ({kind})"),
        None => "no container that shows".to_owned(),
    };
    if surroundings.wsl {
        text.push_str(", Windows' Subsystem for Linux");
    }
    if let Some(bytes) = surroundings.shared_memory {
        let _infallible = write!(text, "; /dev/shm holds {}", size(bytes));
    }
    text
}

fn memory(facts: &Facts) -> String {
    let memory = &facts.memory;
    let mut parts = Vec::new();
    parts.extend(memory.total.map(size));
    parts.extend(memory.available.map(|bytes| format!("{} available", size(bytes))));
    parts.extend(memory.limit.map(|bytes| format!("limited to {}", size(bytes))));
    if parts.is_empty() {
        return "not told".to_owned();
    }
    parts.join(", ")
}

fn memcpy(rates: &[MemcpyRate]) -> String {
    if rates.is_empty() {
        return "not measured".to_owned();
    }
    let rates = rates.iter().map(|found| {
        let threads = if found.threads == 1 { "thread" } else { "threads" };
        format!("{} {threads} {}", found.threads, rate(found.bytes_per_second))
    });
    rates.collect::<Vec<_>>().join(", ")
}

fn disk(disk: &Disk) -> String {
    let mut text = disk.folder.display().to_string();
    if let Some(kind) = &disk.file_system {
        let _infallible = write!(text, " ({kind})");
    }
    let rates = [
        ("read from the page cache", disk.cached),
        ("past it", disk.direct),
        ("written", disk.written),
    ];
    for (what, reached) in rates {
        if let Some(reached) = reached {
            let _infallible = write!(text, ", {what} {}", rate(reached));
        }
    }
    if let Some(reason) = &disk.refused {
        let _infallible = write!(text, "; {reason}");
    }
    text
}

fn accelerator(device: &Accelerator) -> String {
    let mut text = format!("{}, {}", device.product, size(device.memory));
    if let Some(address) = &device.pci_address {
        let _infallible = write!(text, " at {address}");
    }
    if let Some(node) = device.numa_node {
        let _infallible = write!(text, " on NUMA node {node}");
    }
    if let Some(library) = &device.library {
        let _infallible = write!(text, ", {library}");
    }
    let _infallible = write!(text, ", {} copy engines, {}", device.copy_engines, device.link);
    if let Some(state) = &device.link_state {
        let _infallible = write!(text, " (under load {})", state.now);
    }
    if let Some(carries) = device.link_rate {
        let _infallible = write!(text, ", which carries {}", rate(carries));
    }
    if let Some(measured) = &device.measured {
        let _infallible = write!(
            text,
            "; measured {} to the device, {} to the host, {} both at once",
            rate(measured.to_device),
            rate(measured.to_host),
            rate(measured.both)
        );
    }
    if let Some(pinning) = &device.pinning {
        let _infallible = write!(
            text,
            "; {} pinned in {:.1} ms",
            size(pinning.bytes),
            pinning.seconds * 1e3
        );
    }
    text
}

fn python(facts: &Facts) -> String {
    let Some(python) = &facts.python else {
        return "none found".to_owned();
    };
    let mut text = format!("{} ({})", python.version, python.program.display());
    match &python.torch {
        Some(torch) => {
            let cuda = torch
                .cuda
                .as_deref()
                .map_or("without CUDA".to_owned(), |cuda| format!("for CUDA {cuda}"));
            let _infallible = write!(text, ", torch {} {cuda}", torch.version);
        }
        None => text.push_str(", no torch"),
    }
    if let Some(version) = &python.pinlane {
        let _infallible = write!(text, ", pinlane {version}");
    }
    text
}

/// What was found, the costliest first.
fn findings(findings: &[Finding]) -> String {
    let wrong = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Wrong)
        .count();
    let mut text = match wrong {
        0 => "Nothing is wrong.\n".to_owned(),
        1 => "One thing is wrong.\n".to_owned(),
        count => format!("{count} things are wrong; the costliest comes first.\n"),
    };
    for (number, finding) in findings.iter().enumerate() {
        let Finding {
            severity,
            cost,
            title,
            reason,
            fix,
            by_itself,
            ..
        } = finding;
        let severity = match severity {
            Severity::Wrong => "wrong",
            Severity::Note => "note",
        };
        let _infallible = write!(
            text,
            "\n{}. {severity}: {title}\n   costs    {cost}\n   because  {reason}\n   fix      {fix}\n   pinlane  {by_itself}\n",
            number + 1
        );
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{sound, without_gpu};

    #[test]
    fn a_sound_machine_is_described_and_nothing_is_wrong() {
        let text = report(&Report::of(sound()));
        for part in [
            "Some Chip",
            "0: 0-15; 1: 16-31",
            "NVIDIA H200, 141 GiB at 0000:17:00.0 on NUMA node 0, CUDA 13.0",
            "PCIe Gen5 x16 (under load PCIe Gen5 x16), which carries 55.2 GB/s",
            "measured 55.0 GB/s to the device, 55.4 GB/s to the host",
            "1 thread 10.7 GB/s, 2 threads 20.0 GB/s",
            "torch 2.11.0+cu130 for CUDA 13.0",
            "Nothing is wrong.",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }

    #[test]
    fn findings_are_numbered_in_their_order_with_cost_reason_fix_and_what_pinlane_does() {
        let mut facts = without_gpu("no driver", &["PCI slot 0000:17:00.0"]);
        facts.memory.huge_pages = Some("never".to_owned());
        let judged = Report::of(facts);
        let text = report(&judged);
        assert!(
            text.contains("2 things are wrong; the costliest comes first."),
            "{text}"
        );
        let mut rest = text.as_str();
        for (number, finding) in judged.findings.iter().enumerate() {
            for part in [
                format!("{}. wrong: {}", number + 1, finding.title),
                format!("costs    {}", finding.cost),
                format!("because  {}", finding.reason),
                format!("fix      {}", finding.fix),
                format!("pinlane  {}", finding.by_itself),
            ] {
                let at = rest
                    .find(&part)
                    .unwrap_or_else(|| panic!("{part} is missing:\n{rest}"));
                rest = &rest[at..];
            }
        }
    }

    #[test]
    fn a_machine_that_tells_nothing_can_be_shown() {
        let text = report(&Report::of(Facts::default()));
        assert!(
            text.contains("none that can be used") && text.contains("not told"),
            "{text}"
        );
    }
}
