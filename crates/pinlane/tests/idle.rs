//! A device that was used and has nothing to do takes no CPU: its threads sleep until they are given something.

#![cfg(all(target_os = "linux", not(shuttle)))]

use std::{collections::BTreeMap, fs, thread, time::Duration};

use pinlane::{
    DType, Device, DeviceOptions, Tensor, Tree,
    driver::sim::{DeviceConfig, Machine},
};

/// How often each thread of this device's engine and of the simulated machine was given a core, by its name.
///
/// A thread that polls is, however little it does each time; one that sleeps is not.
fn times_scheduled() -> BTreeMap<String, u64> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let threads = threads.filter_map(|thread| {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).ok()?;
        let fields = |key: &'static str| {
            status
                .lines()
                .filter_map(move |line| line.strip_prefix(key)?.split_once(':'))
        };
        let (_, name) = fields("Name").next()?;
        let switches = fields("voluntary_ctxt_switches").chain(fields("nonvoluntary_ctxt_switches"));
        let switches = switches.map(|(_, count)| count.trim().parse::<u64>().unwrap());
        Some((name.trim().to_owned(), switches.sum()))
    });
    threads.filter(|(name, _)| name.starts_with("sim")).collect()
}

#[test]
fn threads_of_an_idle_device_sleep() {
    let driver = Machine::new(DeviceConfig::default()).device(0).unwrap();
    let options = DeviceOptions {
        lanes: Some(2),
        ..DeviceOptions::default()
    };
    let device = Device::with_options(driver, &options).unwrap();
    let large = Tensor::zeros(DType::U8, &[32 << 20]).unwrap();
    let there = large.to(&device).unwrap();
    drop(large.transfer(&device).unwrap());
    drop(there.transfer(&Device::host()).unwrap());
    let back = there.to(&Device::host()).unwrap();
    assert_eq!(back.as_bytes().unwrap(), large.as_bytes().unwrap());

    // What was dropped above may take a while to be let go on a busy machine; threads that poll never come to rest.
    let mut before = times_scheduled();
    for role in ["sim:0-lane-0", "sim:0-lane-1", "sim:0-reactor", "sim0-engine0"] {
        assert!(before.contains_key(role), "{role} is not among {before:?}");
    }
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(100));
        let after = times_scheduled();
        if after == before {
            return;
        }
        before = after;
    }
    panic!("threads of an idle device go on running: {before:?}");
}
