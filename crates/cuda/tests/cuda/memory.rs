//! Device memory, pinned memory, and what the device says of itself.

use std::ptr::NonNull;

use pinlane_driver::{
    DeviceMemory, DevicePtr, Driver, ErrorKind, MemCopy, Stream, Timing,
    sync::{Arc, Duration},
};

use crate::{host::Host, other_library::OtherLibrary};

pub(crate) fn a_device_describes_itself(driver: &Arc<dyn Driver>) {
    let properties = driver.properties();
    println!("{properties:?}");
    assert_eq!(properties.id.to_string(), "cuda:0");
    assert!(!properties.name.is_empty() && !properties.simulated);
    assert!(properties.memory_bytes >= 1 << 30 && properties.copy_engines >= 1);
    assert!(
        properties.link.name.starts_with("PCIe"),
        "{}",
        properties.link.name
    );
    assert!(properties.link.bytes_per_second.is_none_or(|rate| rate > 0.0));
    let library = properties.library.as_deref().unwrap_or_default();
    assert!(library.starts_with("CUDA 1"), "{library}");
    if let Some(state) = driver.link_state() {
        for most in [state.in_slot, state.by_itself].into_iter().flatten() {
            assert!(!most.is_below(state.now), "{state:?}");
        }
    }
    assert_eq!(pinlane_cuda::devices().unwrap()[0], *properties);
}

pub(crate) fn freed_memory_is_handed_out_again(driver: &Arc<dyn Driver>) {
    let first = DeviceMemory::new(driver, 3 << 20).unwrap();
    let address = first.ptr();
    let free = driver.memory_info().unwrap().free;
    drop(first);
    assert!(
        driver.memory_info().unwrap().free >= free + (3 << 20),
        "idle memory is free memory"
    );
    let again = DeviceMemory::new(driver, 3 << 20).unwrap();
    assert_eq!(again.ptr(), address);
}

pub(crate) fn trimmed_memory_is_free_to_other_libraries(driver: &Arc<dyn Driver>) {
    const BYTES: usize = 64 << 20;
    driver.trim().unwrap();
    let other = OtherLibrary::new();
    let before = other.free_memory();
    drop(DeviceMemory::new(driver, BYTES).unwrap());
    assert_eq!(driver.idle_bytes(), BYTES as u64);
    assert!(other.free_memory() + BYTES <= before, "the driver keeps it");
    assert_eq!(driver.trim().unwrap(), BYTES as u64);
    assert_eq!((driver.idle_bytes(), driver.trim().unwrap()), (0, 0));
    let after = other.free_memory();
    assert!(after >= before, "{before} bytes were free, and {after} are");
}

pub(crate) fn memory_that_is_not_kept_goes_back_while_the_device_works(driver: &Arc<dyn Driver>) {
    const STALL: Duration = Duration::from_millis(400);
    driver.trim().unwrap();
    // More than the cache keeps of any device.
    let bytes = usize::try_from(driver.properties().memory_bytes / 16).unwrap();
    let large = DeviceMemory::new(driver, bytes).unwrap();
    let stream = Stream::new(driver).unwrap();
    driver.busy(STALL, stream.raw()).unwrap();
    drop(large);
    let fired = stream.record(Timing::Disabled).unwrap();
    assert!(!fired.query().unwrap(), "it was over before the device was");
    assert_eq!(driver.idle_bytes(), 0);
    // And comes again as well.
    drop(DeviceMemory::new(driver, bytes).unwrap());
    assert!(
        !fired.query().unwrap(),
        "memory was had only when the device was done"
    );
    let other = OtherLibrary::new();
    let before = other.free_memory();
    assert_eq!(driver.trim().unwrap(), 0);
    assert!(other.free_memory() >= before);
    stream.synchronize().unwrap();
    assert!(
        other.free_memory() as u64 >= driver.properties().memory_bytes / 16 * 12,
        "the device's memory is there for others"
    );
}

pub(crate) fn running_out_of_memory_is_an_error_with_cudas_name_and_passes(driver: &Arc<dyn Driver>) {
    const BLOCK: usize = 1 << 30;
    // Something idle in the cache, which must go before the device counts as full.
    drop(DeviceMemory::new(driver, 300 << 20).unwrap());
    let before = driver.memory_info().unwrap();
    let mut taken = Vec::new();
    let error = loop {
        match DeviceMemory::new(driver, BLOCK) {
            Ok(memory) => taken.push(memory),
            Err(error) => break error,
        }
        assert!(taken.len() * BLOCK <= before.total as usize, "more than there is");
    };
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    let code = error.code().expect("CUDA says why");
    assert_eq!((code.name.as_str(), code.number), ("CUDA_ERROR_OUT_OF_MEMORY", 2));
    assert!(error.to_string().contains(&BLOCK.to_string()), "{error}");
    assert!(driver.memory_info().unwrap().free < 2 * BLOCK as u64, "not full");
    drop(taken);
    let after = driver.memory_info().unwrap();
    assert!(
        after.free + (64 << 20) >= before.free,
        "{before:?} before, {after:?} after"
    );
    let memory = DeviceMemory::new(driver, 2 * BLOCK).unwrap();
    let mut sink = Host::pageable(1);
    let stream = Stream::new(driver).unwrap();
    let last = memory.ptr().offset(2 * BLOCK - 1);
    // SAFETY: the byte lies inside the memory; the destination is pageable.
    unsafe {
        driver.memset(last, 8, 1, stream.raw()).unwrap();
        stream.copy(MemCopy::to_host(sink.ptr(), last, 1)).unwrap();
    }
    assert!(sink.holds(8));
}

pub(crate) fn memory_of_someone_else_is_not_freed(driver: &Arc<dyn Driver>) {
    // SAFETY: the address is nobody's, which the driver can tell.
    let error = unsafe { driver.free(DevicePtr(0x1234), 16) }.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidHandle, "{error}");
}

pub(crate) fn pinning_a_range_twice_is_an_error_and_leaves_the_first_pin(driver: &Arc<dyn Driver>) {
    const BYTES: usize = 1 << 20;
    let mut host = Host::pinned(driver, BYTES);
    let start = NonNull::new(host.ptr()).unwrap();
    // SAFETY: the range is mapped; that it is pinned already, the driver can tell.
    let error = unsafe { driver.pin(start, BYTES) }.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(error.code().map(|code| code.number), Some(712), "{error}");
    assert!(driver.is_pinned(start.as_ptr(), BYTES));
    let memory = DeviceMemory::new(driver, BYTES).unwrap();
    let stream = Stream::new(driver).unwrap();
    // SAFETY: everything outlives the wait.
    unsafe {
        driver.memset(memory.ptr(), 4, BYTES, stream.raw()).unwrap();
        stream
            .copy(MemCopy::to_host(start.as_ptr(), memory.ptr(), BYTES))
            .unwrap();
    }
    stream.synchronize().unwrap();
    assert!(host.holds(4));
}
