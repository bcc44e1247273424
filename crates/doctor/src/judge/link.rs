//! Links that carry less than they could, and devices that hang on another processor.

use pinlane_driver::PcieLink;

use super::{CLEARLY, Cost, Finding, Severity, gpu::real};
use crate::{Accelerator, Cores, Facts, units::rate};

/// A link that runs below what its slot allows, while bytes were moved.
pub(super) fn trained_low(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in real(facts) {
        let Some(state) = &device.link_state else { continue };
        let Some(most) = state.in_slot.or(state.by_itself) else {
            continue;
        };
        if let Some(times) = lost(state.now, most) {
            findings.push(Finding {
                id: "link-trained-low",
                severity: Severity::Wrong,
                cost: Cost::times(times, format!("large transfers of {}", device.name)),
                title: format!("the link of {} runs as {} and not as {most}", device.name, state.now),
                reason: format!(
                    "asked while bytes were moved, so it is not saving power; {} carries {} in one direction, {most} {}",
                    state.now,
                    rate(state.now.bytes_per_second()),
                    rate(most.bytes_per_second())
                ),
                fix: "seat the card again, or try another riser, cable or slot; look in the firmware for bifurcation and for a \
                      limit of the link's speed, and in the kernel's log for AER errors"
                    .to_owned(),
                by_itself: "`pinlane tune` measures the link as it is, and plans by that".to_owned(),
            });
        }
    }
    findings
}

/// A device that could do more in another slot.
pub(super) fn narrow_slot(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in real(facts) {
        let Some(state) = &device.link_state else { continue };
        let (Some(in_slot), Some(by_itself)) = (state.in_slot, state.by_itself) else {
            continue;
        };
        if let Some(times) = lost(in_slot, by_itself) {
            findings.push(Finding {
                id: "narrow-slot",
                severity: Severity::Wrong,
                cost: Cost::times(times, format!("large transfers of {}", device.name)),
                title: format!(
                    "{} sits in a slot for {in_slot} and could do {by_itself}",
                    device.name
                ),
                reason: format!(
                    "the slot carries {} in one direction, the card {}",
                    rate(in_slot.bytes_per_second()),
                    rate(by_itself.bytes_per_second())
                ),
                fix: "move the card to a slot of its own generation and width, if the machine has one"
                    .to_owned(),
                by_itself: "it assumes what the slot carries, not what the card could".to_owned(),
            });
        }
    }
    findings
}

/// A link that carries less than such links do, though it runs as it should.
pub(super) fn slow(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in real(facts).filter(|device| far(facts, device).is_none()) {
        let now = device.link_state.map(|state| state.now.bytes_per_second());
        let (Some(measured), Some(expected)) = (device.measured, now.or(device.link_rate)) else {
            continue;
        };
        let times = expected / measured.slower();
        if times > CLEARLY {
            findings.push(Finding {
                id: "link-slow",
                severity: Severity::Wrong,
                cost: Cost::times(times, format!("large transfers of {}", device.name)),
                title: format!("the link of {} carries less than such links do", device.name),
                reason: format!(
                    "{} to the device and {} to the host, where {} was expected of it",
                    rate(measured.to_device),
                    rate(measured.to_host),
                    rate(expected)
                ),
                fix: "see whether something else uses the link or the memory; in a virtual machine or with an IOMMU, whether \
                      each page is translated (`iommu=pt`); whether a switch shares the link with other devices"
                    .to_owned(),
                by_itself: "`pinlane tune` measures the link as it is, and plans by that".to_owned(),
            });
        }
    }
    findings
}

/// A process whose cores are all far from its device.
pub(super) fn far_node(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in real(facts) {
        let Some((node, near)) = far(facts, device) else {
            continue;
        };
        let slower = device
            .link_rate
            .zip(device.measured)
            .map(|(expected, measured)| expected / measured.slower());
        let cost = match slower {
            Some(times) if times > CLEARLY => Cost::times(
                times,
                format!("large transfers of {}, by the measured link", device.name),
            ),
            _ => Cost::Unknown,
        };
        findings.push(Finding {
            id: "far-node",
            severity: Severity::Wrong,
            cost,
            title: format!("this process may run only on cores far from {}", device.name),
            reason: format!(
                "{} hangs on NUMA node {node}, whose cores are {near}; this process may run on {}: every byte crosses the \
                 link between the processors",
                device.name, facts.host.allowed
            ),
            fix: format!(
                "run it there: `numactl --cpunodebind={node} --membind={node}`, or `taskset -c {near}`; in a cluster, ask for \
                 aligned processors (Kubernetes: the topology manager's policy `single-numa-node`)"
            ),
            by_itself: "pinned memory is asked for on the device's node; threads stay where the system lets them".to_owned(),
        });
    }
    findings
}

/// The node of a device on which this process may use no core, and that node's cores.
fn far<'a>(facts: &'a Facts, device: &Accelerator) -> Option<(u32, &'a Cores)> {
    let node = device.numa_node?;
    let near = facts.host.nodes.iter().find(|found| found.number == node)?;
    let is_far = !near.cores.is_empty() && !facts.host.allowed.meets(&near.cores);
    is_far.then_some((node, &near.cores))
}

/// How many times as long copies take over a link as over one that is above it.
fn lost(link: PcieLink, most: PcieLink) -> Option<f64> {
    let times = most.bytes_per_second() / link.bytes_per_second();
    (link.is_below(most) && times > CLEARLY).then_some(times)
}
