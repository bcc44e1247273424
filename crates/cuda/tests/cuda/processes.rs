//! How processes end, and how they begin: each test runs this program again as a child.

use std::{
    env,
    process::{Command, exit},
    sync::Mutex,
    time::Duration,
};

use pinlane_driver::{DeviceMemory, Driver, ErrorKind, Event, MemCopy, Stream, Timing, sync::Arc};

use crate::host::Host;

/// Names the child to be.
const CHILD: &str = "PINLANE_CUDA_TEST_CHILD";

/// What this process is to do if it is a child.
pub(crate) fn child() -> Option<fn()> {
    let name = env::var(CHILD).ok()?;
    let children: [(&str, fn()); 3] = [
        ("exit-in-flight", exit_in_flight),
        ("drop-at-exit", drop_at_exit),
        ("fork", fork),
    ];
    let child = children.into_iter().find(|(known, _)| *known == name);
    Some(child.expect("a child that is known").1)
}

fn succeeds(child: &str) {
    let program = env::current_exe().unwrap();
    let output = Command::new(program).env(CHILD, child).output().unwrap();
    assert!(
        output.status.success(),
        "{child}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn a_process_may_exit_with_work_in_flight(_: &Arc<dyn Driver>) {
    succeeds("exit-in-flight");
}

pub(crate) fn handles_may_be_dropped_when_cuda_is_gone(_: &Arc<dyn Driver>) {
    succeeds("drop-at-exit");
}

pub(crate) fn a_forked_child_gets_an_error_that_says_so(_: &Arc<dyn Driver>) {
    succeeds("fork");
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
    let stream = Stream::new(&driver).unwrap();
    // SAFETY: the child calls the driver, which must refuse without touching what the fork left behind, and exits.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no fork");
    if child == 0 {
        let errors = [
            driver.allocate(64).err(),
            driver.create_stream().err(),
            stream.synchronize().err(),
            pinlane_cuda::open(0).err(),
            pinlane_cuda::device_count().err(),
        ];
        let told = errors
            .iter()
            .flatten()
            .filter(|error| error.kind() == ErrorKind::Forked && error.to_string().contains("fork"));
        let refused = told.count() == errors.len() && !driver.is_pinned(std::ptr::null(), 1);
        // Dropping handles is quiet, too.
        drop(stream);
        // SAFETY: leaves the child at once, without exit handlers that belong to the parent.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: the child of this process, and a valid place for its status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "the child says {status}"
    );
    // The parent goes on.
    stream.synchronize().unwrap();
}
