//! GPUs that are missing, and what they and their drivers do not do.

use pinlane::DeviceOptions;

use super::{Cost, Finding, Severity};
use crate::{
    Accelerator, Facts, Part,
    units::{rate, size},
};

/// How fast memory is pinned and given back on an H100's host with small pages, the slower ones, in bytes per second, measured
/// in November 2026.
const USUAL_PINNING: f64 = 12e9;
/// Hosts differ in this by their pages and kernels, and the first touch of fresh memory comes on top; what takes so many times
/// as long is more than that.
const SLOW_PINNING: f64 = 8.0;

/// Those that can be used, and whose figures mean something.
pub(super) fn real(facts: &Facts) -> impl Iterator<Item = &Accelerator> {
    facts
        .accelerators
        .devices
        .iter()
        .filter(|device| !device.simulated && device.unusable.is_none())
}

/// No GPU that can be used.
pub(super) fn missing(facts: &Facts) -> Vec<Finding> {
    let found = &facts.accelerators;
    let Some(absent) = &found.absent else {
        return Vec::new();
    };
    if found.hardware.is_empty() {
        return vec![Finding {
            id: "no-gpu",
            severity: Severity::Note,
            cost: Cost::Nothing,
            title: "there is no GPU".to_owned(),
            reason: format!("no NVIDIA device shows itself to the kernel; {absent}"),
            fix: "nothing, if none is meant to be here; in a container or a virtual machine, pass the GPU through".to_owned(),
            by_itself: "programs run on the simulated device, which shows behaviour and no hardware's speed".to_owned(),
        }];
    }
    vec![unusable_gpu(
        facts,
        "a GPU is there and can't be used".to_owned(),
        format!("it shows itself at {}, but {absent}", found.hardware.join(", ")),
        "programs run on the simulated device, and say so",
    )]
}

/// GPUs that the driver lists and that can't be used.
pub(super) fn unusable(facts: &Facts) -> Vec<Finding> {
    let devices = facts.accelerators.devices.iter();
    devices
        .filter_map(|device| {
            let reason = device.unusable.as_deref()?;
            Some(unusable_gpu(
                facts,
                format!("{} ({}) can't be used", device.name, device.product),
                match &device.pci_address {
                    Some(address) => format!("it is at {address}, but {reason}"),
                    None => reason.to_owned(),
                },
                "opening it by its name says so; other devices are not touched",
            ))
        })
        .collect()
}

fn unusable_gpu(facts: &Facts, title: String, reason: String, by_itself: &str) -> Finding {
    let container = match &facts.surroundings.container {
        Some(kind) => format!(
            "; this is a container ({kind}), so start it with the GPU and its driver's libraries (`--gpus all` and NVIDIA's \
             container toolkit)"
        ),
        None => String::new(),
    };
    Finding {
        id: "gpu-unusable",
        severity: Severity::Wrong,
        cost: Cost::Everything,
        title,
        reason,
        fix: format!("do what the driver's message says{container}"),
        by_itself: by_itself.to_owned(),
    }
}

/// Pinned memory that the system refuses.
pub(super) fn pinning(facts: &Facts) -> Vec<Finding> {
    let budget = DeviceOptions::PINNED_BUDGET as u64;
    let mut findings = Vec::new();
    for device in real(facts).filter(|device| device.pinning.is_none()) {
        let Some(reason) = device.refused(Part::Pinning) else {
            continue;
        };
        let limit = match facts.memory.locked_limit {
            Some(Some(limit)) if limit < budget => format!(
                "; the process may lock {} (`ulimit -l`), and pinlane's budget is {}",
                size(limit),
                size(budget)
            ),
            _ => String::new(),
        };
        findings.push(Finding {
            id: "pinning-refused",
            severity: Severity::Wrong,
            cost: Cost::Unknown,
            title: format!("{} can't pin memory", device.name),
            reason: format!("{reason}{limit}"),
            fix: "raise the limit of locked memory: `memlock` in /etc/security/limits.conf, `LimitMEMLOCK=infinity` in a \
                  service, `--ulimit memlock=-1` for a container; under WSL give it more memory in .wslconfig"
                .to_owned(),
            by_itself: "it goes on through fewer slots, down to one, and warns; below that a transfer ends with an error that says so"
                .to_owned(),
        });
    }
    findings
}

/// Pinning that takes much longer than it should.
pub(super) fn slow_pinning(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in real(facts) {
        let Some(pinning) = device.pinning.filter(|pinning| pinning.seconds > 0.0) else {
            continue;
        };
        let reached = pinning.bytes as f64 / pinning.seconds;
        let times = USUAL_PINNING / reached;
        if times > SLOW_PINNING {
            findings.push(Finding {
                id: "slow-pinning",
                severity: Severity::Wrong,
                cost: Cost::times(times, format!("the first use of pinned memory on {}", device.name)),
                title: format!("pinning memory for {} is slow", device.name),
                reason: format!(
                    "{} took {:.1} ms, that is {}; on the host of an H100 it is {} with small pages (not measured here)",
                    size(pinning.bytes),
                    pinning.seconds * 1e3,
                    rate(reached),
                    rate(USUAL_PINNING)
                ),
                fix: "see whether the kernel gives large pages (a page of 4 KiB costs as much as one of 2 MiB), whether memory is \
                      short, and in a virtual machine or with an IOMMU, whether each page is mapped (`iommu=pt`)"
                    .to_owned(),
                by_itself: "it pins once, no more than its budget, and uses that again: only the first transfers wait".to_owned(),
            });
        }
    }
    findings
}

/// What could not be measured, or was left out: what is not known can't be found fault with.
pub(super) fn not_measured(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in real(facts) {
        let refused: Vec<_> = device
            .refused
            .iter()
            // That is a finding of its own.
            .filter(|refused| refused.part != Part::Pinning)
            .map(|refused| format!("{}: {}", refused.part.words(), refused.reason))
            .collect();
        let (severity, reason, fix) = match &device.left_out {
            Some(reason) => (
                Severity::Note,
                reason.clone(),
                format!("look at it alone: `pinlane doctor --device {}`", device.name),
            ),
            None if refused.is_empty() => continue,
            None if device.refused(Part::Pinning).is_some() => (
                Severity::Note,
                format!("{}; it is measured with pinned memory, which is refused too", refused.join("; ")),
                "have memory pinned first, and run it again".to_owned(),
            ),
            None => (
                Severity::Wrong,
                refused.join("; "),
                "do what the message says; see whether something else uses the device or its memory, look in the kernel's log for \
                 its errors (`dmesg | grep -i nvrm`), and run it again"
                    .to_owned(),
            ),
        };
        findings.push(Finding {
            id: "not-measured",
            severity,
            cost: Cost::Unknown,
            title: format!("the link of {} was not measured", device.name),
            reason,
            fix,
            by_itself: "it plans by the stored profile, or by what the hardware is".to_owned(),
        });
    }
    findings
}

/// Both directions on one engine.
pub(super) fn copy_engines(facts: &Facts) -> Vec<Finding> {
    let shared = real(facts).filter(|device| device.copy_engines == 1);
    shared
        .map(|device| Finding {
            id: "one-copy-engine",
            severity: Severity::Note,
            cost: Cost::times(2.0, format!("moving both ways at once on {}", device.name)),
            title: format!("{} has one copy engine", device.name),
            reason: "copies to the device and to the host take turns on it".to_owned(),
            fix: "none: it is the hardware's".to_owned(),
            by_itself: "chunks of both directions take turns, so that neither waits for the end of the other"
                .to_owned(),
        })
        .collect()
}

/// A device that was never tuned.
pub(super) fn untuned(facts: &Facts) -> Vec<Finding> {
    let untuned = real(facts).filter(|device| !device.tuned);
    untuned
        .map(|device| Finding {
            id: "not-tuned",
            severity: Severity::Note,
            cost: Cost::Unknown,
            title: format!("{} was never measured by `pinlane tune`", device.name),
            reason: "lanes, slots and the sizes at which routes change are assumed from the hardware"
                .to_owned(),
            fix: format!(
                "run `pinlane tune --device {}` once: it takes seconds",
                device.name
            ),
            by_itself: "it goes by the link's rate, the number of cores, and what was measured elsewhere"
                .to_owned(),
        })
        .collect()
}
