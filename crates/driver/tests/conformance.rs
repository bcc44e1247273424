//! The simulated device passes the conformance suite, however it is built.

#![cfg(not(shuttle))]

use std::time::Duration;

use pinlane_driver::{
    conformance::{Subject, run},
    sim::{CopyEngines, DeviceConfig, Machine, MachineConfig},
};

fn small() -> DeviceConfig {
    DeviceConfig {
        memory_bytes: 256 << 20,
        ..DeviceConfig::default()
    }
}

/// Runs the suite on two equal devices, where no case has a reason to be skipped, and checks that nothing leaked.
fn passes(device: DeviceConfig) {
    let machine = Machine::new(MachineConfig::equal_devices(2, device));
    let subject = Subject::new(machine.device(0).unwrap()).with_peer(machine.device(1).unwrap());
    let report = run(&subject);
    assert!(
        report.failed().is_empty() && report.skipped().is_empty(),
        "{report}"
    );
    for ordinal in 0..2 {
        let sim = machine.sim(ordinal).unwrap();
        assert_eq!(sim.alive(), pinlane_driver::sim::Alive::default());
        assert_eq!(sim.freed_in_use(), 0);
    }
}

#[test]
fn a_device_whose_directions_share_one_engine_conforms() {
    passes(DeviceConfig {
        copy_engines: CopyEngines::One,
        ..small()
    });
}

#[test]
fn a_device_with_an_engine_for_each_direction_conforms() {
    passes(small());
}

#[test]
fn a_device_with_three_engines_and_no_poison_conforms() {
    passes(DeviceConfig {
        copy_engines: CopyEngines::Three,
        poison: false,
        ..small()
    });
}

#[test]
fn a_device_behind_a_slow_link_conforms() {
    passes(DeviceConfig {
        bytes_per_second: Some(2e9),
        copy_latency: Duration::from_micros(10),
        ..small()
    });
}

#[test]
fn a_device_with_tiny_bounce_buffers_conforms() {
    passes(DeviceConfig {
        bounce_bytes: 4099,
        ..small()
    });
}

#[test]
fn a_device_without_a_kernel_for_scattered_pieces_skips_only_what_needs_it() {
    let machine = Machine::new(DeviceConfig {
        scatters: false,
        ..small()
    });
    let report = run(&Subject::new(machine.device(0).unwrap()));
    assert!(report.failed().is_empty(), "{report}");
    let skipped = report.skipped();
    let scattered = skipped.iter().filter(|case| case.starts_with("scattered::"));
    assert_eq!(scattered.count(), 6, "{report}");
}

#[test]
fn a_device_without_a_kernel_for_conversions_skips_only_what_needs_it() {
    let machine = Machine::new(DeviceConfig {
        converts: false,
        ..small()
    });
    let report = run(&Subject::new(machine.device(0).unwrap()));
    assert!(report.failed().is_empty(), "{report}");
    let skipped = report.skipped();
    let converted = skipped.iter().filter(|case| case.starts_with("conversions::"));
    assert_eq!(converted.count(), 6, "{report}");
}

#[test]
fn a_device_without_a_peer_skips_only_what_needs_one() {
    let machine = Machine::new(small());
    let report = run(&Subject::new(machine.device(0).unwrap()));
    assert!(report.failed().is_empty(), "{report}");
    assert_eq!(
        report.skipped(),
        [
            "order::an_event_of_one_device_orders_work_on_another",
            "copies::bytes_move_between_devices"
        ]
    );
}
