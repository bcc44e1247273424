//! Limits of memory, and large pages.

use pinlane::DeviceOptions;

use super::{CLEARLY, Cost, Finding, Severity, gpu::real};
use crate::{Facts, units::size};

/// What the engine and its caller need at least beside the pinned budget, for the limit of a group not to be felt.
const ROOM: u64 = 4 * DeviceOptions::PINNED_BUDGET as u64;

/// Results in fresh pageable memory on an H200's host, in GB/s, measured in November 2026: with large pages, and with those of
/// 4 KiB.
const FRESH: [f64; 2] = [24.4, 14.5];

/// What the process may lock, and what its group may use.
pub(super) fn limits(facts: &Facts) -> Vec<Finding> {
    let budget = DeviceOptions::PINNED_BUDGET as u64;
    let mut findings = Vec::new();
    let refused = super::gpu::pinning(facts);
    if let Some(Some(limit)) = facts.memory.locked_limit
        && limit < budget
        // Where pinning was refused, that is said with this as its reason.
        && refused.is_empty()
    {
        let tried = match real(facts).find_map(|device| device.pinning) {
            Some(pinning) => format!(
                "{} could be pinned all the same: this driver does not count",
                size(pinning.bytes)
            ),
            None => "whether a GPU's driver counts it depends on the driver".to_owned(),
        };
        findings.push(Finding {
            id: "locked-limit",
            severity: Severity::Note,
            cost: Cost::Nothing,
            title: format!("this process may lock {} of memory", size(limit)),
            reason: format!("that is less than pinlane's budget of {}; {tried}", size(budget)),
            fix: "where pinning fails: `memlock` in /etc/security/limits.conf, `LimitMEMLOCK=infinity` in a service, \
                  `--ulimit memlock=-1` for a container"
                .to_owned(),
            by_itself: "it goes on through fewer slots where pinning is refused, and warns".to_owned(),
        });
    }
    if let Some(limit) = facts.memory.limit.filter(|&limit| limit < ROOM) {
        findings.push(Finding {
            id: "memory-limit",
            severity: if limit < budget {
                Severity::Wrong
            } else {
                Severity::Note
            },
            cost: Cost::Unknown,
            title: format!("this process and its group may use {} of memory", size(limit)),
            reason: format!(
                "pinlane pins up to {}, and the page cache of what the group reads counts too",
                size(budget)
            ),
            fix: "raise the group's limit, or open devices with a smaller pinned budget".to_owned(),
            by_itself: "it never pins more than its budget, and pins when there is a use for it".to_owned(),
        });
    }
    findings
}

/// Large pages that the kernel never gives.
pub(super) fn large_pages(facts: &Facts) -> Vec<Finding> {
    if facts.memory.huge_pages.as_deref() != Some("never") {
        return Vec::new();
    }
    let [large, small] = FRESH;
    let times = large / small;
    debug_assert!(times > CLEARLY);
    vec![Finding {
        id: "no-large-pages",
        severity: Severity::Wrong,
        cost: Cost::times(times, "results in fresh host memory"),
        title: "the kernel gives no large pages".to_owned(),
        reason: format!(
            "each page of 4 KiB that is touched for the first time costs a fault; on the host of an H200, results in fresh \
             memory came with {small} GB/s so, and with {large} GB/s in large pages (not measured here)"
        ),
        fix: "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, as root: only who asks for them gets them".to_owned(),
        by_itself: "it asks for large pages for slots, pinned tensors and results, touches pages with several threads, and uses \
                    memory again that earlier results have left"
            .to_owned(),
    }]
}
