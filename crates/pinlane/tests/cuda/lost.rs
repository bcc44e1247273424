//! An engine whose device is lost, as a kernel of anyone's in the process can lose it: in a child, because CUDA never uses the
//! device again in the same process.

use std::{process::ExitCode, ptr::NonNull, time::Duration};

use pinlane::{
    DType, Device, DeviceOptions, Error, HostMemory, Tensor, TransferOptions, Tree,
    driver::{DeviceMemory, DevicePtr, Driver, ErrorKind, MemCopy, RawStream, Stream, Timing},
};

use crate::{exit, rig, rig::pattern};

/// The child's name.
pub(crate) const LOSES: &str = "the device is lost while bytes move";

pub(crate) fn transfers_of_a_lost_device_fail_and_what_it_may_still_use_is_counted() {
    exit::ends_well(LOSES);
}

pub(crate) fn lose_the_device() -> ExitCode {
    const BYTES: usize = 24 << 20;
    let rig = rig(&DeviceOptions::default());
    let (device, host) = (rig.device(), Device::host());
    let driver = device.driver().unwrap();
    let pageable = Tensor::from_bytes(pattern(BYTES, 1), DType::U8, &[BYTES]).unwrap();
    let pinned = pageable.pin_memory(device).unwrap();
    let there = pageable.to(device).unwrap();
    let small = Tensor::from_bytes(pattern(4096, 2), DType::U8, &[4096]).unwrap();
    let small_there = small.to(device).unwrap();
    assert_eq!(device.stats().unwrap().leaked_bytes, 0);

    let kernel = StrayKernel::load(device, &pinned);
    let stalled = Stream::new(driver).unwrap();
    driver.busy(Duration::ZERO, stalled.raw()).unwrap();
    stalled.synchronize().unwrap();
    driver.busy(Duration::from_millis(300), stalled.raw()).unwrap();
    let after = TransferOptions::new().after(stalled.record(Timing::Disabled).unwrap().into());
    let flying = [
        pageable.transfer_with(device, &after).unwrap(),
        pinned.transfer_with(device, &after).unwrap(),
        there.transfer_with(&host, &after).unwrap(),
        small.transfer_with(device, &after).unwrap(),
    ];
    kernel.go_astray();
    for transfer in flying {
        assert_is_lost(&transfer.wait().unwrap_err());
    }
    let leaked = device.stats().unwrap().leaked_bytes;
    assert!(leaked >= BYTES as u64, "{leaked} bytes were given up");

    // Whatever comes next says why it can't be.
    for tensor in [&pageable, &pinned, &small] {
        let error = tensor.to(device).unwrap_err();
        assert_is_lost(&error);
        assert!(
            error.to_string().contains("CUDA_ERROR_ILLEGAL_ADDRESS = 700"),
            "{error}"
        );
        let started = tensor.transfer(device);
        assert_is_lost(&started.and_then(|transfer| transfer.wait()).unwrap_err());
    }
    for tensor in [&there, &small_there] {
        assert_is_lost(&tensor.to(&host).unwrap_err());
    }
    // The host's tensors are as they were, and all goes in peace.
    assert_eq!(pageable.as_bytes().unwrap(), pattern(BYTES, 1));
    assert_eq!(pinned.as_bytes().unwrap(), pageable.as_bytes().unwrap());
    drop((pageable, pinned, there, small, small_there, stalled));
    drop(rig);
    ExitCode::SUCCESS
}

/// A kernel that is about to write where the device has no memory.
struct StrayKernel<'a> {
    driver: &'a dyn Driver,
    source: &'a Tensor,
    table: NonNull<u8>,
    stream: RawStream,
}

impl<'a> StrayKernel<'a> {
    const BYTES: usize = 4096;

    /// Loads it, which CUDA may do only when the device has nothing else to do, by having it write where it may.
    fn load(device: &'a Device, source: &'a Tensor) -> Self {
        let driver = device.driver().unwrap();
        let rule = driver
            .scatter_table()
            .expect("the driver has a kernel that writes");
        let table = HostMemory::Pinned(device)
            .zeros(DType::U8, &[rule.bytes(1, Self::BYTES)])
            .unwrap();
        let kernel = Self {
            driver: &**driver,
            source,
            table: NonNull::from(table.as_bytes().unwrap()).cast(),
            stream: driver.create_stream().unwrap(),
        };
        // The device may use it for ever.
        std::mem::forget(table);
        let room = DeviceMemory::new(driver, Self::BYTES).unwrap();
        // SAFETY: the room is new, and as long.
        unsafe { kernel.write_to(room.ptr()) }.unwrap();
        kernel
    }

    fn go_astray(self) {
        const NOWHERE: DevicePtr = DevicePtr(0x1000);
        // SAFETY: the destination is nobody's, which is what this is about.
        let error = unsafe { self.write_to(NOWHERE) }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceLost, "{error}");
    }

    /// Writes, and waits for that.
    ///
    /// # Safety
    ///
    /// Nobody else uses what is written.
    unsafe fn write_to(&self, destination: DevicePtr) -> Result<(), pinlane::driver::Error> {
        let source = self.source.as_bytes().unwrap().as_ptr();
        let copy = MemCopy::to_device(destination, source, Self::BYTES);
        // SAFETY: pinned memory that nobody writes, and a table that nobody else knows; the rest is the caller's promise.
        unsafe { self.driver.copy_scattered(&[copy], self.table, self.stream) }.unwrap();
        self.driver.synchronize_stream(self.stream)
    }
}

#[track_caller]
fn assert_is_lost(error: &Error) {
    let lost = match error {
        Error::Leaf { source, .. } => return assert_is_lost(source),
        Error::SlotsLost { .. } => true,
        error => error.driver_kind() == Some(ErrorKind::DeviceLost),
    };
    assert!(lost, "{error}");
}
