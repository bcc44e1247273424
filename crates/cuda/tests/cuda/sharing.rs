//! Other users of the device in the same process.

use pinlane_driver::{DeviceMemory, DevicePtr, Driver, MemCopy, RawStream, Stream, Timing, sync::Arc};

use crate::{host::Host, other_library::OtherLibrary};

const BYTES: usize = 1 << 20;

pub(crate) fn another_library_can_use_the_same_memory_and_context(driver: &Arc<dyn Driver>) {
    let other = OtherLibrary::new();
    let (theirs, raw) = (other.allocate(BYTES), other.make_blocking_stream());
    let ours = DeviceMemory::new(driver, BYTES).unwrap();
    let mut sink = Host::pageable(BYTES);
    let own = Stream::new(driver).unwrap();
    // SAFETY: the stream is destroyed after its last use.
    let adopted = unsafe { Stream::adopt(driver, RawStream::from_raw(raw as u64)) };
    // They write their memory, we copy it into ours, they write over ours, we read it.
    other.fill(theirs, 5, BYTES, raw);
    own.wait(&adopted.record(Timing::Disabled).unwrap()).unwrap();
    // SAFETY: both ranges outlive the copies, which are waited for.
    unsafe {
        own.copy(MemCopy::on_device(ours.ptr(), DevicePtr(theirs), BYTES))
            .unwrap()
    };
    // SAFETY: as above.
    unsafe { own.copy(MemCopy::to_host(sink.ptr(), ours.ptr(), BYTES)).unwrap() };
    assert!(sink.holds(5));
    other.fill(ours.ptr().0, 6, BYTES, raw);
    own.wait(&adopted.record(Timing::Disabled).unwrap()).unwrap();
    // SAFETY: as above.
    unsafe { own.copy(MemCopy::to_host(sink.ptr(), ours.ptr(), BYTES)).unwrap() };
    assert!(sink.holds(6));
    other.destroy_stream(raw);
    other.free(theirs);
    drop(other);
    // The other library's release leaves the context to us.
    // SAFETY: as above.
    unsafe { own.copy(MemCopy::to_host(sink.ptr(), ours.ptr(), BYTES)).unwrap() };
    assert!(sink.holds(6));
}

pub(crate) fn calls_leave_the_threads_context_as_it_was(driver: &Arc<dyn Driver>) {
    let other = OtherLibrary::new();
    let primary = other.current_context();
    for context in [0, primary] {
        other.set_current_context(context);
        let memory = DeviceMemory::new(driver, BYTES).unwrap();
        let host = Host::pinned(driver, BYTES);
        let stream = Stream::new(driver).unwrap();
        assert_eq!(other.current_context(), context);
        stream.record(Timing::Disabled).unwrap().synchronize().unwrap();
        stream.synchronize().unwrap();
        drop((memory, host, stream));
        assert_eq!(other.current_context(), context);
    }
}

pub(crate) fn memory_that_another_library_pinned_counts_as_pinned(driver: &Arc<dyn Driver>) {
    let other = OtherLibrary::new();
    let pinned = other.allocate_pinned(BYTES);
    assert!(driver.is_pinned(pinned, BYTES) && driver.is_pinned(pinned, 1));
    assert!(driver.is_pinned(pinned.wrapping_add(BYTES - 1), 1));
    assert!(!driver.is_pinned(pinned, BYTES * 64));
    let memory = DeviceMemory::new(driver, BYTES).unwrap();
    let stream = Stream::new(driver).unwrap();
    // SAFETY: the memory is as long as asked for, and the copy is waited for before it is read.
    let read = unsafe {
        driver.memset(memory.ptr(), 9, BYTES, stream.raw()).unwrap();
        stream
            .copy(MemCopy::to_host(pinned, memory.ptr(), BYTES))
            .unwrap();
        stream.synchronize().unwrap();
        std::slice::from_raw_parts(pinned, BYTES)
    };
    assert!(read.iter().all(|byte| *byte == 9));
    other.free_pinned(pinned);
    assert!(!driver.is_pinned(pinned, 1));
}

pub(crate) fn a_device_opened_twice_is_the_same(driver: &Arc<dyn Driver>) {
    let again = pinlane_cuda::open(0).unwrap();
    assert!(Arc::ptr_eq(driver, &again));
    let count = pinlane_cuda::device_count().unwrap();
    let missing = pinlane_cuda::open(count).unwrap_err();
    assert_eq!(
        missing.kind(),
        pinlane_driver::ErrorKind::NoSuchDevice,
        "{missing}"
    );
    assert!(
        missing.to_string().contains(&format!("device {count}")),
        "{missing}"
    );
}
