//! How processes end, and how they begin: each test runs this program again as a child.

use std::{env, process::exit, ptr::NonNull, sync::Mutex, time::Duration};

use libtest_mimic::Completion;
use pinlane_driver::{
    DeviceMemory, DevicePtr, Driver, Error, ErrorKind, Event, MemCopy, Stream, Timing, sync::Arc,
};

use crate::{child, host::Host, other_library::OtherLibrary};

/// Names the child to be.
const CHILD: &str = "PINLANE_CUDA_TEST_CHILD";

/// What this process is to do if it is a child.
pub(crate) fn child() -> Option<fn()> {
    let name = env::var(CHILD).ok()?;
    let children: [(&str, fn()); 5] = [
        ("exit-in-flight", exit_in_flight),
        ("drop-at-exit", drop_at_exit),
        ("fork", fork),
        ("fork-from-another-library", fork_from_another_library),
        ("lost-device", lose_the_device),
    ];
    let child = children.into_iter().find(|(known, _)| *known == name);
    Some(child.expect("a child that is known").1)
}

pub(crate) fn a_process_may_exit_with_work_in_flight(_: &Arc<dyn Driver>) {
    child::ends_well(CHILD, "exit-in-flight");
}

pub(crate) fn handles_may_be_dropped_when_cuda_is_gone(_: &Arc<dyn Driver>) {
    child::ends_well(CHILD, "drop-at-exit");
}

pub(crate) fn a_forked_child_gets_an_error_that_says_so(_: &Arc<dyn Driver>) {
    child::ends_well(CHILD, "fork");
}

pub(crate) fn a_child_forked_from_one_where_another_library_uses_cuda_is_told_so(_: &Arc<dyn Driver>) {
    child::ends_well(CHILD, "fork-from-another-library");
}

pub(crate) fn a_lost_device_is_lost_for_every_later_call_and_the_process_ends_well(
    driver: &Arc<dyn Driver>,
) -> Completion {
    if driver.scatter_table().is_none() {
        return Completion::ignored_with("there is no kernel to lose the device with");
    }
    child::ends_well(CHILD, "lost-device");
    Completion::Completed
}

/// What is alive when the process exits.
struct Alive {
    _stream: Stream,
    _event: Event,
    _memory: DeviceMemory,
    _host: Host,
}

/// Stalls a stream and enqueues copies behind it.
fn start_work() -> Alive {
    const BYTES: usize = 64 << 20;
    let driver = pinlane_cuda::open(0).unwrap();
    let mut host = Host::pinned(&driver, BYTES);
    let memory = DeviceMemory::new(&driver, BYTES).unwrap();
    let stream = Stream::new(&driver).unwrap();
    driver.busy(Duration::from_millis(300), stream.raw()).unwrap();
    for _ in 0..10 {
        // SAFETY: nothing of this is dropped before the device is done or gone.
        unsafe {
            stream
                .copy(MemCopy::to_device(memory.ptr(), host.ptr(), BYTES))
                .unwrap();
            stream
                .copy(MemCopy::to_host(host.ptr(), memory.ptr(), BYTES))
                .unwrap();
        }
    }
    let event = stream.record(Timing::Disabled).unwrap();
    Alive {
        _stream: stream,
        _event: event,
        _memory: memory,
        _host: host,
    }
}

fn exit_in_flight() {
    let alive = start_work();
    std::mem::forget(alive);
    exit(0);
}

/// Exit handlers run in the opposite order of their registration: this one, registered before CUDA's, after CUDA's.
fn drop_at_exit() {
    static ALIVE: Mutex<Option<Alive>> = Mutex::new(None);
    extern "C" fn drop_alive() {
        // A panic here would abort the process, which the parent sees.
        drop(ALIVE.lock().unwrap().take());
    }
    // SAFETY: the handler touches only a static.
    assert_eq!(unsafe { libc::atexit(drop_alive) }, 0);
    *ALIVE.lock().unwrap() = Some(start_work());
    exit(0);
}

fn fork() {
    let driver = pinlane_cuda::open(0).unwrap();
    let mut stream = Some(Stream::new(&driver).unwrap());
    in_forked(|| {
        let errors = [
            driver.allocate(64).err(),
            driver.create_stream().err(),
            stream.as_ref().unwrap().synchronize().err(),
            pinlane_cuda::open(0).err(),
            pinlane_cuda::device_count().err(),
        ];
        let told = errors
            .iter()
            .flatten()
            .filter(|error| error.kind() == ErrorKind::Forked && error.to_string().contains("fork"));
        let refused = told.count() == errors.len() && !driver.is_pinned(std::ptr::null(), 1);
        // Dropping handles is quiet, too.
        drop(stream.take());
        refused
    });
    // The parent goes on.
    stream.unwrap().synchronize().unwrap();
}

/// This driver has not been used before the fork, and knows nothing of it; CUDA does.
fn fork_from_another_library() {
    let _other = OtherLibrary::new();
    in_forked(|| {
        let error = pinlane_cuda::device_count().err();
        error.is_some_and(|error| error.to_string().contains("forked from one that uses CUDA"))
    });
}

/// Has a forked child say whether all is as it should be.
fn in_forked(is_right: impl FnOnce() -> bool) {
    // SAFETY: the child calls the driver, which must refuse without touching what the fork left behind, and exits.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no fork");
    if child == 0 {
        // SAFETY: no handler is set: one that hangs dies of it.
        unsafe { libc::alarm(30) };
        let is_right = is_right();
        // SAFETY: leaves the child at once, without exit handlers that belong to the parent.
        unsafe { libc::_exit(i32::from(!is_right)) };
    }
    let mut status = 0;
    // SAFETY: the child of this process, and a valid place for its status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "the child says {status}"
    );
}

/// Has a kernel write where no memory is.
fn lose_the_device() {
    const BYTES: usize = 4096;
    const NOWHERE: DevicePtr = DevicePtr(0x1000);
    let driver = pinlane_cuda::open(0).unwrap();
    let (mut source, mut table) = (Host::pinned(&driver, BYTES), Host::pinned(&driver, BYTES));
    let memory = DeviceMemory::new(&driver, BYTES).unwrap();
    let (stream, other) = (Stream::new(&driver).unwrap(), Stream::new(&driver).unwrap());
    let event = Event::new(&driver, Timing::Disabled).unwrap();
    let entries = NonNull::new(table.ptr()).unwrap();
    let copy = MemCopy::to_device(NOWHERE, source.ptr(), BYTES);
    // SAFETY: both pages are pinned and outlive the device. The destination is nobody's, which is what this is about.
    unsafe { driver.copy_scattered(&[copy], entries, stream.raw()) }.unwrap();
    let copy = MemCopy::to_device(memory.ptr(), source.ptr(), BYTES);
    let answers: [(&str, Option<Error>); 11] = [
        ("waiting for the kernel", stream.synchronize().err()),
        ("waiting again", stream.synchronize().err()),
        ("waiting for another stream", other.synchronize().err()),
        // SAFETY: a good copy, on a device that is gone.
        ("copying", unsafe { other.copy(copy) }.err()),
        ("recording", event.record(&other).err()),
        ("asking an event", event.query().err()),
        ("allocating", driver.allocate(BYTES).err()),
        ("making a stream", driver.create_stream().err()),
        ("making an event", driver.create_event(Timing::Disabled).err()),
        ("asking for the free memory", driver.memory_info().err()),
        ("trimming", driver.trim().err()),
    ];
    for (doing, error) in answers {
        let error = error.unwrap_or_else(|| panic!("{doing} goes well on a lost device"));
        assert_eq!(error.kind(), ErrorKind::DeviceLost, "{doing}: {error}");
        let code = error.code().expect("CUDA says why");
        let code = (code.name.as_str(), code.number);
        assert_eq!(code, ("CUDA_ERROR_ILLEGAL_ADDRESS", 700), "{doing}: {error}");
    }
}
