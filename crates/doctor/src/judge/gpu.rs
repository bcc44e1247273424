//! GPUs that are missing, and what they and their drivers do not do.

use pinlane::DeviceOptions;

use super::{Cost, Finding, Severity};
use crate::{Accelerator, Facts, units::size};

/// Those whose figures mean something.
pub(super) fn real(facts: &Facts) -> impl Iterator<Item = &Accelerator> {
    facts
        .accelerators
        .devices
        .iter()
        .filter(|device| !device.simulated)
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
    let container = match &facts.surroundings.container {
        Some(kind) => format!(
            "; this is a container ({kind}), so start it with the GPU and its driver's libraries (`--gpus all` and NVIDIA's \
             container toolkit)"
        ),
        None => String::new(),
    };
    vec![Finding {
        id: "gpu-unusable",
        severity: Severity::Wrong,
        cost: Cost::Everything,
        title: "a GPU is there and can't be used".to_owned(),
        reason: format!("it shows itself at {}, but {absent}", found.hardware.join(", ")),
        fix: format!("do what the driver's message says{container}"),
        by_itself: "programs run on the simulated device, and say so".to_owned(),
    }]
}

/// Pinned memory that the system refuses.
pub(super) fn pinning(facts: &Facts) -> Vec<Finding> {
    let budget = DeviceOptions::PINNED_BUDGET as u64;
    let mut findings = Vec::new();
    for device in real(facts).filter(|device| device.measured.is_some() && device.pinning.is_none()) {
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
            reason: format!("{}{limit}", device.refused.join("; ")),
            fix: "raise the limit of locked memory: `memlock` in /etc/security/limits.conf, `LimitMEMLOCK=infinity` in a \
                  service, `--ulimit memlock=-1` for a container; under WSL give it more memory in .wslconfig"
                .to_owned(),
            by_itself: "it goes on through fewer slots, down to one, and warns; below that a transfer ends with an error that says so"
                .to_owned(),
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
