//! Made-up machines, and what is found on each.

use pinlane::MemcpyRate;
use pinlane_driver::LinkState;

use super::*;
use crate::{
    Accelerator, Facts, LinkRates, Part, Pinning, Refusal, Torch,
    made_up::{pcie, sound, without_gpu},
};

fn device(facts: &mut Facts) -> &mut Accelerator {
    &mut facts.accelerators.devices[0]
}

/// Findings of the sound machine after `change` was made to it.
fn after(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = sound();
    change(&mut facts);
    judge(&facts)
}

/// The only finding of the sound machine after `change` was made to it.
fn only(change: impl FnOnce(&mut Facts)) -> Finding {
    let mut findings = after(change);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

fn refused(part: Part) -> Refusal {
    Refusal {
        part,
        reason: "the driver is out of memory".to_owned(),
    }
}

fn times(finding: &Finding) -> f64 {
    match finding.cost {
        Cost::Times { times, .. } => times,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_machine_has_nothing_to_be_said_of_it() {
    assert_eq!(judge(&sound()), []);
}

#[test]
fn every_fault_alone_is_found_as_what_it_is() {
    type Change = fn(&mut Facts);
    let table: [(&str, Severity, Change); 24] = [
        ("link-trained-low", Severity::Wrong, |facts| {
            let state = LinkState::new(pcie(5, 8)).in_slot(Some(pcie(5, 16)));
            device(facts).link_state = Some(state);
            device(facts).measured = Some(LinkRates {
                to_device: 27e9,
                to_host: 27e9,
                both: 50e9,
            });
        }),
        ("narrow-slot", Severity::Wrong, |facts| {
            let slot = pcie(5, 8);
            let state = LinkState::new(slot)
                .in_slot(Some(slot))
                .by_itself(Some(pcie(5, 16)));
            device(facts).link_state = Some(state);
            device(facts).measured = Some(LinkRates {
                to_device: 27e9,
                to_host: 27e9,
                both: 50e9,
            });
        }),
        ("link-slow", Severity::Wrong, |facts| {
            device(facts).measured = Some(LinkRates {
                to_device: 55e9,
                to_host: 20e9,
                both: 60e9,
            });
        }),
        ("far-node", Severity::Wrong, |facts| {
            device(facts).numa_node = Some(1).filter(|_| {
                facts.host.allowed = (0..16).collect();
                facts.host.online = (0..16).collect();
                true
            })
        }),
        ("processor-quota", Severity::Wrong, |facts| {
            facts.host.quota = Some(1.5)
        }),
        ("processor-quota", Severity::Note, |facts| {
            facts.host.quota = Some(8.0)
        }),
        ("few-cores", Severity::Wrong, |facts| {
            facts.host.allowed = (0..2).collect()
        }),
        ("slow-memory", Severity::Wrong, |facts| {
            facts.memcpy = vec![MemcpyRate::new(16, 20e9)]
        }),
        ("busy", Severity::Note, |facts| facts.busy_elsewhere = Some(1.6)),
        ("no-large-pages", Severity::Wrong, |facts| {
            facts.memory.huge_pages = Some("never".to_owned())
        }),
        ("locked-limit", Severity::Note, |facts| {
            facts.memory.locked_limit = Some(Some(8 << 20))
        }),
        ("pinning-refused", Severity::Wrong, |facts| {
            facts.memory.locked_limit = Some(Some(8 << 20));
            device(facts).pinning = None;
            device(facts).refused = vec![refused(Part::Pinning)];
        }),
        ("not-measured", Severity::Wrong, |facts| {
            device(facts).measured = None;
            device(facts).refused = vec![refused(Part::Link)];
        }),
        ("not-measured", Severity::Wrong, |facts| {
            device(facts).link_state = None;
            device(facts).refused = vec![refused(Part::LinkState)];
        }),
        ("not-measured", Severity::Note, |facts| {
            let device = device(facts);
            (device.measured, device.link_state, device.pinning) = (None, None, None);
            device.left_out = Some("the time was up".to_owned());
        }),
        ("gpu-unusable", Severity::Wrong, |facts| {
            let broken = Accelerator {
                name: "cuda:1".to_owned(),
                unusable: Some("an uncorrectable error".to_owned()),
                ..Accelerator::default()
            };
            facts.accelerators.devices.push(broken);
        }),
        ("slow-pinning", Severity::Wrong, |facts| {
            device(facts).pinning = Some(Pinning {
                bytes: 64 << 20,
                seconds: 0.1,
            });
        }),
        ("memory-limit", Severity::Wrong, |facts| {
            facts.memory.limit = Some(128 << 20)
        }),
        ("one-copy-engine", Severity::Note, |facts| {
            device(facts).copy_engines = 1
        }),
        ("not-tuned", Severity::Note, |facts| device(facts).tuned = false),
        ("wsl", Severity::Note, |facts| facts.surroundings.wsl = true),
        ("little-shared-memory", Severity::Note, |facts| {
            facts.surroundings.container = Some("docker".to_owned());
            facts.surroundings.shared_memory = Some(64 << 20);
        }),
        ("slow-disk", Severity::Note, |facts| {
            facts.disk.direct = Some(0.5e9)
        }),
        ("slow-page-cache", Severity::Wrong, |facts| {
            facts.disk.cached = Some(1e9)
        }),
    ];
    for (id, severity, change) in table {
        let found = only(change);
        assert_eq!((found.id, found.severity), (id, severity), "{found:#?}");
        for text in [&found.title, &found.reason, &found.fix, &found.by_itself] {
            assert!(!text.is_empty(), "{found:#?}");
        }
    }
}

#[test]
fn where_nothing_can_be_pinned_that_is_what_is_wrong_and_the_link_was_not_measured_for_it() {
    let findings = after(|facts| {
        facts.memory.locked_limit = Some(Some(8 << 20));
        let device = device(facts);
        (device.measured, device.link_state, device.pinning) = (None, None, None);
        device.refused = [Part::Link, Part::LinkState, Part::Pinning].map(refused).to_vec();
    });
    let found: Vec<_> = findings.iter().map(|found| (found.id, found.severity)).collect();
    assert_eq!(
        found,
        [
            ("pinning-refused", Severity::Wrong),
            ("not-measured", Severity::Note)
        ]
    );
    assert!(findings[0].reason.contains("may lock 8 MiB"), "{findings:#?}");
}

#[test]
fn a_broken_gpu_is_named_with_its_reason_and_no_other_rule_looks_at_it() {
    let findings = after(|facts| {
        let device = device(facts);
        device.unusable = Some("an uncorrectable error".to_owned());
        device.tuned = false;
        device.copy_engines = 1;
        (device.measured, device.link_state, device.pinning) = (None, None, None);
    });
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let found = &findings[0];
    assert_eq!((found.id, &found.cost), ("gpu-unusable", &Cost::Everything));
    for part in ["0000:17:00.0", "an uncorrectable error"] {
        assert!(found.reason.contains(part), "{found:#?}");
    }
    assert!(found.title.contains("cuda:0"));
}

#[test]
fn half_the_lanes_of_a_link_cost_twice_the_time() {
    let found = only(|facts| {
        let state = LinkState::new(pcie(4, 8)).in_slot(Some(pcie(4, 16)));
        device(facts).link_state = Some(state);
        device(facts).measured = Some(LinkRates {
            to_device: 13.8e9,
            to_host: 13.8e9,
            both: 26e9,
        });
    });
    assert!((times(&found) - 2.0).abs() < 1e-9);
    assert!(
        found.title.contains("PCIe Gen4 x8") && found.title.contains("PCIe Gen4 x16"),
        "{found:#?}"
    );
}

#[test]
fn a_quota_costs_as_many_times_as_there_are_cores_too_few() {
    let found = only(|facts| facts.host.quota = Some(1.0));
    assert!((times(&found) - 55.0 / 10.7).abs() < 1e-9, "{found:#?}");
    assert!(found.reason.contains("takes 6 cores"), "{}", found.reason);
}

#[test]
fn a_process_that_may_use_some_core_near_its_device_is_not_far_from_it() {
    let findings = after(|facts| {
        device(facts).numa_node = Some(1);
        facts.host.allowed = (8..24).collect();
    });
    assert!(
        findings.iter().all(|found| found.id != "far-node"),
        "{findings:#?}"
    );
}

#[test]
fn a_slow_link_to_a_far_node_is_the_nodes_fault() {
    let findings = after(|facts| {
        device(facts).numa_node = Some(1);
        facts.host.allowed = (0..16).collect();
        device(facts).measured = Some(LinkRates {
            to_device: 30e9,
            to_host: 28e9,
            both: 50e9,
        });
    });
    let far = findings.iter().find(|found| found.id == "far-node").unwrap();
    assert!((times(far) - 55.2 / 28.0).abs() < 1e-9);
    assert!(
        far.fix.contains("--cpunodebind=1") && far.fix.contains("16-31"),
        "{}",
        far.fix
    );
    assert!(findings.iter().all(|found| found.id != "link-slow"));
}

#[test]
fn without_a_gpu_nothing_is_wrong_and_with_one_that_no_driver_serves_everything_is() {
    let found = judge(&without_gpu("the driver library can't be loaded", &[]));
    assert_eq!(
        (found[0].id, found[0].severity, found.len()),
        ("no-gpu", Severity::Note, 1)
    );

    let old = "the NVIDIA driver speaks CUDA 11.8, and 12.0 is the oldest that works: update the driver";
    let found = judge(&without_gpu(old, &["PCI slot 0000:17:00.0"]));
    assert_eq!((found[0].id, &found[0].cost), ("gpu-unusable", &Cost::Everything));
    assert!(found[0].reason.contains("11.8") && found[0].reason.contains("0000:17:00.0"));

    let mut facts = without_gpu("the driver library can't be loaded", &["/dev/nvidia0"]);
    facts.surroundings.container = Some("docker".to_owned());
    let found = judge(&facts);
    assert!(found[0].fix.contains("--gpus all"), "{}", found[0].fix);
}

#[test]
fn a_torch_that_can_not_use_the_gpu_is_wrong_and_without_a_gpu_it_is_not() {
    let with_torch = |version: &str, cuda: Option<&str>| {
        let torch = Torch {
            version: version.to_owned(),
            cuda: cuda.map(str::to_owned),
        };
        move |facts: &mut Facts| facts.python.as_mut().unwrap().torch = Some(torch)
    };
    for (version, cuda, id) in [
        ("2.11.0+cpu", None, "torch-without-cuda"),
        ("2.11.0+cu140", Some("14.0"), "torch-too-new"),
        ("2.3.1+cu121", Some("12.1"), "torch-too-old"),
    ] {
        assert_eq!(only(with_torch(version, cuda)).id, id);
    }
    assert_eq!(after(with_torch("2.6.0+cu124", Some("12.4"))), []);
    let mut facts = without_gpu("none", &[]);
    with_torch("2.11.0+cpu", None)(&mut facts);
    assert!(judge(&facts).iter().all(|found| !found.id.starts_with("torch")));
}

#[test]
fn what_a_simulated_device_is_measured_at_is_no_finding() {
    let findings = after(|facts| {
        let simulated = device(facts);
        simulated.simulated = true;
        simulated.tuned = false;
        simulated.copy_engines = 1;
        simulated.measured = Some(LinkRates {
            to_device: 1e9,
            to_host: 1e9,
            both: 1e9,
        });
    });
    assert_eq!(findings, []);
}

#[test]
fn what_is_wrong_comes_first_and_of_that_what_costs_most() {
    let findings = after(|facts| {
        device(facts).tuned = false;
        device(facts).copy_engines = 1;
        facts.host.quota = Some(1.0);
        facts.memory.huge_pages = Some("never".to_owned());
        facts.python.as_mut().unwrap().torch.as_mut().unwrap().cuda = None;
        facts.memory.limit = Some(64 << 20);
    });
    let ids: Vec<_> = findings.iter().map(|found| found.id).collect();
    assert_eq!(
        ids,
        [
            "torch-without-cuda",
            "processor-quota",
            "no-large-pages",
            "memory-limit",
            "one-copy-engine",
            "not-tuned"
        ]
    );
}

#[test]
fn a_machine_that_tells_nothing_is_judged_too() {
    assert_eq!(judge(&Facts::default()), []);
}
