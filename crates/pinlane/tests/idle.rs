//! A device that was used and has nothing to do takes no CPU: its threads sleep until they are given something.

#![cfg(all(target_os = "linux", not(shuttle)))]

mod rig;

use pinlane::{
    DType, Device, DeviceOptions, Tensor, Tree,
    driver::sim::{DeviceConfig, Machine},
};

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
    drop(rig::threads::held_back(&large, &device));
    drop(there.transfer(&Device::host()).unwrap());
    let back = there.to(&Device::host()).unwrap();
    assert_eq!(back.as_bytes().unwrap(), large.as_bytes().unwrap());

    let roles = ["sim:0-up-0", "sim:0-up-1", "sim:0-reactor", "sim0-engine0"];
    rig::threads::assert_come_to_rest("sim", &roles.map(str::to_owned));
}
