//! A device that was used and has nothing to do takes no CPU.

use pinlane::{DType, Device, DeviceOptions, Tensor, Tree};

use crate::{rig, rig::threads};

pub(crate) fn threads_of_an_idle_device_sleep() {
    let rig = rig(&DeviceOptions {
        lanes: Some(2),
        ..DeviceOptions::default()
    });
    let device = rig.device();
    let large = Tensor::zeros(DType::U8, &[64 << 20]).unwrap();
    let there = large.to(device).unwrap();
    drop(threads::held_back(&large, device));
    drop(there.transfer(&Device::host()).unwrap());
    let back = there.to(&Device::host()).unwrap();
    assert!(back.as_bytes().unwrap() == large.as_bytes().unwrap());
    let roles = ["up-0", "up-1", "reactor"].map(|role| format!("{device}-{role}"));
    threads::assert_come_to_rest(&format!("{device}-"), &roles);
    drop((there, large));
    rig.finish();
}
