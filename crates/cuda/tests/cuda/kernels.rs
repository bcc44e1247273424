//! What the driver has to find or load before it can be used: where it is missing, the engine goes other ways, and nothing but
//! these tests would notice.

use std::{ptr::NonNull, time::Duration};

use libtest_mimic::Completion;
use pinlane_driver::{Conversion, DevicePtr, Driver, Float, Stream, Timing, sync::Arc};

use crate::other_library::OtherLibrary;

/// `CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM`: without it (on WSL) neither the batch call nor the kernel is
/// used.
const KNOWS_HOST_ADDRESSES: i32 = 91;
const OTHER_ADDRESSES: &str = "the device knows registered host memory by other addresses";
/// CUDA 12.8, as the driver tells versions.
const HAS_BATCHES: i32 = 12_080;

pub(crate) fn the_kernel_for_scattered_pieces_loads(driver: &Arc<dyn Driver>) -> Completion {
    if OtherLibrary::new().attribute(KNOWS_HOST_ADDRESSES) != 1 {
        return Completion::ignored_with(OTHER_ADDRESSES);
    }
    let loaded = driver.scatter_table();
    let stream = Stream::new(driver).unwrap();
    // SAFETY: no copies, and a table of none: what is wrong with that is told after what is wrong with the kernel.
    let why = unsafe { driver.copy_scattered(&[], NonNull::dangling(), stream.raw()) };
    assert!(loaded.is_some(), "{why:?}");
    Completion::Completed
}

pub(crate) fn the_kernel_for_conversions_loads(driver: &Arc<dyn Driver>) {
    let stream = Stream::new(driver).unwrap();
    let conversion = Conversion::new(Float::F32, Float::BF16).unwrap();
    // SAFETY: no elements.
    let loaded = unsafe { driver.convert(conversion, DevicePtr(0), DevicePtr(0), 0, stream.raw()) };
    assert_eq!(loaded, Ok(()));
}

pub(crate) fn the_kernel_of_busy_tasks_runs_for_its_time(driver: &Arc<dyn Driver>) {
    const TIME: Duration = Duration::from_millis(5);
    let stream = Stream::new(driver).unwrap();
    let start = stream.record(Timing::Enabled).unwrap();
    driver.busy(TIME, stream.raw()).unwrap();
    let end = stream.record(Timing::Enabled).unwrap();
    end.synchronize().unwrap();
    let time = end.elapsed_since(&start).unwrap();
    // Half: the device's clock ticks a microsecond or so at a time, on some only every millisecond.
    assert!(time >= TIME / 2, "{time:?}");
}

pub(crate) fn the_batch_call_is_found_where_the_driver_has_it(driver: &Arc<dyn Driver>) -> Completion {
    let other = OtherLibrary::new();
    if other.driver_version() < HAS_BATCHES {
        return Completion::ignored_with("the driver is older than CUDA 12.8");
    }
    if other.attribute(KNOWS_HOST_ADDRESSES) != 1 {
        return Completion::ignored_with(OTHER_ADDRESSES);
    }
    let described = format!("{driver:?}");
    assert!(described.contains("Batches { call: Some("), "{described}");
    Completion::Completed
}
