//! Cores and memory that can't keep a link busy.

use super::{CLEARLY, Cost, Finding, Severity, gpu::real};
use crate::{Facts, Rates as _, units::rate};

/// Host memory that all threads together copy with less than this part of the link's rate can't feed it. Lanes copy into
/// slots that stay in the caches, so they do better than the copies between large regions that are measured here.
const FEEDS: f64 = 0.6;

/// Fewer cores than it takes to copy as fast as the link carries.
pub(super) fn too_few_cores(facts: &Facts) -> Vec<Finding> {
    let host = &facts.host;
    let allowed = host.allowed.count() as f64;
    let usable = host.quota.map_or(allowed, |quota| quota.min(allowed));
    let is_limited = usable < host.online.count() as f64;
    // All of a machine's cores are its hardware.
    if !is_limited || usable <= 0.0 {
        return Vec::new();
    }
    let quota = host.quota.filter(|&quota| quota < allowed);
    let (id, limit, fix) = match quota {
        Some(quota) => (
            "processor-quota",
            format!(
                "its control group gives this process the time of {quota:.1} cores of {}",
                host.online.count()
            ),
            "raise the group's limit: `--cpus` of a container, `resources.limits.cpu` of a pod, `CPUQuota` of a service",
        ),
        None => (
            "few-cores",
            format!(
                "this process may run on {} cores ({}) of {}",
                host.allowed.count(),
                host.allowed,
                host.online.count()
            ),
            "let it run on more: `taskset`, `--cpuset-cpus` of a container, the job's number of cores",
        ),
    };
    let need = needed(facts);
    let costs = need
        .map(|(needed, device)| (needed / usable, device))
        .filter(|(times, _)| *times > CLEARLY);
    let (severity, cost, reason) = match costs {
        Some((times, device)) => (
            Severity::Wrong,
            Cost::times(times, format!("pageable transfers of {device}")),
            format!(
                "{limit}; to copy as fast as the link of {device} carries takes {:.0} cores",
                (times * usable).ceil()
            ),
        ),
        None => (
            Severity::Note,
            Cost::Nothing,
            match need {
                Some((needed, device)) => format!(
                    "{limit}; that is enough for {device}, which needs {:.0}",
                    needed.ceil()
                ),
                None => format!("{limit}; how many it takes was not measured, for there is no GPU"),
            },
        ),
    };
    vec![Finding {
        id,
        severity,
        cost,
        title: format!(
            "this process may use {usable:.1} of {} cores",
            host.online.count()
        ),
        reason,
        fix: fix.to_owned(),
        by_itself:
            "it starts no more lanes than there are cores to run them; pinned memory needs none of them"
                .to_owned(),
    }]
}

/// Others who use less than this part of the processors disturb no measurement,
const DISTURBING_PART: f64 = 0.05;
/// nor do those who use less than so many.
const DISTURBING: f64 = 0.5;

/// Others who kept the processors busy while rates were measured.
pub(super) fn busy(facts: &Facts) -> Vec<Finding> {
    let processors = facts.host.online.count() as f64;
    let disturbing = facts
        .busy_elsewhere
        .filter(|&others| others >= DISTURBING.max(DISTURBING_PART * processors));
    let Some(others) = disturbing else {
        return Vec::new();
    };
    vec![Finding {
        id: "busy",
        severity: Severity::Note,
        cost: Cost::Unknown,
        title: format!("others used {others:.1} of {processors} cores while this was measured"),
        reason: "other programs, or other guests of a virtual machine's host: rates of memory, disk and links are higher without \
                 them, and what was found slow may be theirs"
            .to_owned(),
        fix: "run `pinlane doctor` again, and `pinlane tune`, when nothing else runs".to_owned(),
        by_itself: "nothing: it plans by what was measured".to_owned(),
    }]
}

/// How many cores it takes to fill the fastest link, and whose that is.
fn needed(facts: &Facts) -> Option<(f64, &str)> {
    let one = facts.memcpy.one_thread()?;
    real(facts)
        .filter_map(|device| Some((device.measured?.to_device / one, device.name.as_str())))
        .max_by(|one, other| one.0.total_cmp(&other.0))
}

/// Memory that all cores together copy slower than the link carries.
pub(super) fn slow_memory(facts: &Facts) -> Vec<Finding> {
    let Some(best) = facts.memcpy.best() else {
        return Vec::new();
    };
    let starved = real(facts).filter_map(|device| {
        let link = device.measured?.to_device;
        (best < FEEDS * link).then_some((link, device))
    });
    let Some((link, device)) = starved.max_by(|one, other| one.0.total_cmp(&other.0)) else {
        return Vec::new();
    };
    vec![Finding {
        id: "slow-memory",
        severity: Severity::Wrong,
        cost: Cost::times(link / best, format!("pageable transfers of {}", device.name)),
        title: format!("host memory is copied slower than the link of {} carries", device.name),
        reason: format!(
            "all threads together copy {}, the link carries {}: pageable memory can't keep it busy",
            rate(best),
            rate(link)
        ),
        fix: "give the process more cores, if it may not use all; see whether every memory channel has a module, and what else \
              uses the memory; make tensors in pinned memory, which needs no copy"
            .to_owned(),
        by_itself: "what is pinned already is moved without a copy; slots are small enough to stay in the caches".to_owned(),
    }]
}
