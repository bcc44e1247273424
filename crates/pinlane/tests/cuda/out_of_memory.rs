//! A device whose memory is all taken.

use pinlane::{
    DType, Device, DeviceOptions, Error, Placement, Tensor, TransferOptions, Tree,
    driver::{DeviceMemory, Driver, ErrorKind},
};

use crate::{rig, rig::pattern};

const BLOCK: usize = 128 << 20;
/// What is left to the engine: the rest of the device is taken at once.
const LEFT: usize = 1 << 30;
/// How far the driver's own use of the memory may have moved.
const SLACK: u64 = 64 << 20;

fn free(driver: &dyn Driver) -> u64 {
    driver.memory_info().unwrap().free
}

pub(crate) fn a_device_that_is_full_refuses_and_goes_on() {
    let rig = rig(&DeviceOptions::default());
    let device = rig.device();
    let driver = device.driver().unwrap();
    let source = Tensor::from_bytes(pattern(BLOCK, 1), DType::U8, &[BLOCK]).unwrap();
    drop(source.to(device).unwrap());

    let before = free(&**driver);
    let leased = device.stats().unwrap().pinned.leased;
    let taken = DeviceMemory::new(driver, (before as usize).saturating_sub(LEFT)).unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        match source.to(device) {
            Ok(there) => kept.push(there),
            Err(error) => break error,
        }
        assert!(kept.len() * BLOCK < 2 * LEFT, "more than there is");
    };
    assert_is_full(&refused);
    assert!(kept.len() >= 2, "nothing was left: {refused}");

    // The first tensors of this tree get their memory, and give it back when the last does not.
    let full = free(&**driver);
    let tree = vec![source.clone(); kept.len() + 2];
    drop(kept.pop());
    let separate = TransferOptions::new().placement(Placement::Separate);
    for _ in 0..3 {
        assert_is_full(&tree.transfer_with(device, &separate).unwrap_err());
        assert_is_full(&tree.to(device).unwrap_err());
    }
    let again = free(&**driver);
    assert!(
        again + SLACK >= full + BLOCK as u64,
        "{again} bytes are free, and were {full}"
    );

    // What is there is still right, and what was given back can be had.
    kept.push(source.to(device).unwrap());
    for there in &kept {
        let back = there.to(&Device::host()).unwrap();
        assert!(back.as_bytes().unwrap() == source.as_bytes().unwrap());
    }

    drop((kept, taken));
    let after = free(&**driver);
    assert!(
        after + SLACK >= before,
        "{after} bytes are free, and were {before}"
    );
    let stats = device.stats().unwrap();
    assert_eq!((stats.leaked_bytes, stats.pinned.leased), (0, leased));
    let back = source.to(device).unwrap().to(&Device::host()).unwrap();
    assert!(back.as_bytes().unwrap() == source.as_bytes().unwrap());
    rig.finish();
}

fn assert_is_full(error: &Error) {
    assert_eq!(error.driver_kind(), Some(ErrorKind::OutOfMemory), "{error}");
}
