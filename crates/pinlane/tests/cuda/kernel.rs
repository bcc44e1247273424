//! The driver's kernel for scattered pieces is there before the first transfer wants it: CUDA loads one only when the device
//! has nothing else to do. In a child, which has loaded none.

use std::{process::ExitCode, time::Duration};

use pinlane::{
    DType, Device, DeviceOptions, Placement, Route, Tensor, TransferOptions, Tree,
    driver::{Stream, Timing},
};

use crate::{exit, rig, rig::pattern};

/// The child's name.
pub(crate) const GATHERS: &str = "the first gathered transfer comes while the device is busy";

pub(crate) fn the_first_gathered_transfer_does_not_wait_for_a_busy_device() {
    exit::ends_well(GATHERS);
}

pub(crate) fn gather_first() -> ExitCode {
    const COUNT: usize = 100;
    const BYTES: usize = 4000;
    let rig = rig(&DeviceOptions::default());
    let device = rig.device();
    let driver = device.driver().unwrap();
    // The kernel of busy tasks is loaded at its first use; so are lanes and slots made, by a route that needs no kernel.
    let stalled = Stream::new(driver).unwrap();
    driver.busy(Duration::ZERO, stalled.raw()).unwrap();
    stalled.synchronize().unwrap();
    let sent: Vec<_> = (0..COUNT)
        .map(|seed| Tensor::from_bytes(pattern(BYTES, seed), DType::U8, &[BYTES]).unwrap())
        .collect();
    let packed = TransferOptions::new().route(Route::Packed);
    let apart = packed.clone().placement(Placement::Separate);
    let there = sent.to_with(device, &apart).unwrap();
    let back = there.transfer_with(&Device::host(), &packed).unwrap();
    drop(back.wait().unwrap());

    driver.busy(Duration::from_secs(1), stalled.raw()).unwrap();
    let event = stalled.record(Timing::Disabled).unwrap();
    let gathered = TransferOptions::new().route(Route::Gathered);
    let transfer = there.transfer_with(&Device::host(), &gathered).unwrap();
    let is_busy = !event.query().unwrap();
    let back = transfer.wait().unwrap();
    for (seed, tensor) in back.iter().enumerate() {
        assert_eq!(tensor.as_bytes().unwrap(), pattern(BYTES, seed), "tensor {seed}");
    }
    assert!(is_busy, "starting the transfer waited for the device");
    event.synchronize().unwrap();
    drop((back, there, event, stalled));
    rig.finish();
    ExitCode::SUCCESS
}
