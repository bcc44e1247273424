//! Streams that belong to others.

use std::time::Duration;

use pinlane_driver::{
    DeviceMemory, Driver, ErrorKind, Event, MemCopy, RawStream, Result, Stream, Timing, sync::Arc,
};

use crate::{host::Host, other_library::OtherLibrary};

const BYTES: usize = 3 << 20;

/// Moves bytes there and back over `stream`, by single copies and by a batch, and hands them to a stream of our own.
fn works(driver: &Arc<dyn Driver>, stream: &Stream) {
    let (mut source, mut sink) = (Host::pinned(driver, BYTES), Host::pinned(driver, BYTES));
    let mut read = Host::pageable(BYTES);
    let (first, second) = (
        DeviceMemory::new(driver, BYTES).unwrap(),
        DeviceMemory::new(driver, BYTES).unwrap(),
    );
    let own = Stream::new(driver).unwrap();
    for (index, byte) in source.write().iter_mut().enumerate() {
        *byte = (index / 251) as u8;
    }
    let third = BYTES / 3;
    let batch: Vec<MemCopy> = (0..3)
        .map(|part| {
            let from = first.ptr().offset(part * third);
            MemCopy::on_device(second.ptr().offset(part * third), from, third)
        })
        .collect();
    // SAFETY: everything outlives the work, which is waited for below.
    unsafe {
        driver.memset(second.ptr(), 0, BYTES, stream.raw()).unwrap();
        stream
            .copy(MemCopy::to_device(first.ptr(), source.ptr(), BYTES))
            .unwrap();
        driver.copy_batch(&batch, stream.raw()).unwrap();
    }
    own.wait(&stream.record(Timing::Disabled).unwrap()).unwrap();
    // SAFETY: as above.
    unsafe {
        own.copy(MemCopy::to_host(sink.ptr(), second.ptr(), BYTES))
            .unwrap()
    };
    own.synchronize().unwrap();
    assert!(sink.read() == source.read());
    // SAFETY: as above; the destination is pageable.
    unsafe {
        stream
            .copy(MemCopy::to_host(read.ptr(), second.ptr(), BYTES))
            .unwrap()
    };
    assert!(read.read() == source.read());
    stream.synchronize().unwrap();
}

pub(crate) fn the_default_streams_can_be_adopted(driver: &Arc<dyn Driver>) {
    // The legacy default stream by both its names, and the thread's own.
    for raw in [0, 1, 2] {
        // SAFETY: the default streams live as long as the context.
        works(driver, &unsafe {
            Stream::adopt(driver, RawStream::from_raw(raw))
        });
    }
}

pub(crate) fn a_blocking_stream_of_another_library_can_be_adopted(driver: &Arc<dyn Driver>) {
    let other = OtherLibrary::new();
    let raw = other.make_blocking_stream();
    // SAFETY: the stream is destroyed after its last use.
    works(driver, &unsafe {
        Stream::adopt(driver, RawStream::from_raw(raw as u64))
    });
    other.destroy_stream(raw);
}

pub(crate) fn a_stream_under_capture_is_refused_and_the_capture_goes_on(driver: &Arc<dyn Driver>) {
    fn refused<T>(result: Result<T>) {
        let error = result.err().expect("a stream under capture is refused");
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("under graph capture"), "{error}");
    }
    let other = OtherLibrary::new();
    let raw = other.make_blocking_stream();
    let memory = DeviceMemory::new(driver, BYTES).unwrap();
    let (mut pinned, mut pageable) = (Host::pinned(driver, BYTES), Host::pageable(BYTES));
    let event = Event::new(driver, Timing::Disabled).unwrap();
    let own = Stream::new(driver).unwrap();
    // SAFETY: the stream is destroyed after its last use.
    let captured = unsafe { Stream::adopt(driver, RawStream::from_raw(raw as u64)) };

    other.begin_capture(raw);
    other.fill(memory.ptr().0, 1, BYTES, raw);
    let there = MemCopy::to_device(memory.ptr(), pinned.ptr(), BYTES);
    // SAFETY: all of these are refused; if they were not, everything would outlive them.
    unsafe {
        refused(captured.copy(there));
        refused(captured.copy(MemCopy::to_device(memory.ptr(), pageable.ptr(), BYTES)));
        refused(captured.copy(MemCopy::to_host(pageable.ptr(), memory.ptr(), BYTES)));
        refused(driver.copy_batch(
            &[there, MemCopy::on_device(memory.ptr(), memory.ptr(), 1)],
            captured.raw(),
        ));
        refused(driver.memset(memory.ptr(), 0, BYTES, captured.raw()));
    }
    refused(driver.busy(Duration::from_micros(10), captured.raw()));
    refused(captured.synchronize());
    refused(event.record(&captured));
    refused(captured.wait(&event));

    // Meanwhile everything else goes on, also what CUDA forbids beside a capture.
    pageable.write().fill(7);
    let more = DeviceMemory::new(driver, BYTES + 1).unwrap();
    let mut fresh = Host::pinned(driver, BYTES);
    // SAFETY: everything outlives the work, which is waited for below.
    unsafe {
        own.copy(MemCopy::to_device(more.ptr(), pageable.ptr(), BYTES))
            .unwrap();
        own.copy(MemCopy::to_host(fresh.ptr(), more.ptr(), BYTES))
            .unwrap();
    }
    event.record(&own).unwrap();
    event.synchronize().unwrap();
    assert!(event.query().unwrap());
    assert!(fresh.holds(7));
    own.synchronize().unwrap();
    drop((more, fresh));
    other.end_capture(raw);

    works(driver, &captured);
    other.destroy_stream(raw);
}
