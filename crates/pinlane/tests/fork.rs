//! A process that was forked from one that uses a device: it gets errors that say so. Nothing hangs, nothing panics, and the
//! parent goes on.
//!
//! Each test forks this program, whose tests run one after the other on its main thread.

mod rig;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    process::ExitCode,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Trial};
use pinlane::{
    AdoptedPin, DType, Device, DeviceOptions, Error, Tensor, Tree,
    driver::{ErrorKind, Stream},
    trace,
};
use rig::Rig;

/// How long a child may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);
/// What goes in many chunks, so that lanes have a part in it.
const LARGE: usize = 32 << 20;

macro_rules! tests {
    ($($test:ident,)*) => { &[$((stringify!($test), $test as fn()),)*] };
}

const TESTS: &[(&str, fn())] = tests![
    a_child_that_waits_for_a_transfer_to_the_host_is_refused,
    a_child_that_moves_what_lanes_would_carry_is_refused,
    a_child_that_moves_what_its_own_thread_would_copy_is_refused,
    a_child_can_not_wait_for_a_transfer_of_its_parent,
    a_child_drops_what_it_inherited_in_peace,
    a_child_drops_results_that_stay_in_slots_and_memory_that_is_pinned_for_others,
    a_child_is_told_nothing_of_what_its_parent_holds,
    a_child_makes_lists_and_sessions_of_its_own,
    a_child_opens_no_device,
    a_child_goes_on_with_tensors_of_the_host,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // On the main thread: a child then inherits no lock that another test holds.
    arguments.test_threads = Some(1);
    let trial = |&(name, test): &(&str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit_code()
}

/// Runs `body` in a forked child, which must neither panic nor hang.
fn in_child(body: impl FnOnce()) {
    // SAFETY: the child runs on the one thread that it has, with a heap that the C library has made whole, and leaves without
    // the exit handlers of its parent.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no fork");
    if child == 0 {
        let went_well = catch_unwind(AssertUnwindSafe(body)).is_ok();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!went_well)) };
    }
    let (start, mut status) = (Instant::now(), 0);
    // SAFETY: a child of this process that nobody else waits for, and a valid place for its status.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if start.elapsed() > PATIENCE {
            // SAFETY: as above; it has not been waited for, so the number is still its own.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, &raw mut status, 0);
            }
            panic!("the child hangs");
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "the child ended with status {status:#x}; what it says stands above"
    );
}

#[track_caller]
fn assert_refused<T>(result: Result<T, Error>) {
    let error = result.err().expect("a forked child moves nothing");
    assert_eq!(error.driver_kind(), Some(ErrorKind::Forked), "{error}");
    assert!(error.to_string().contains("fork"), "{error}");
}

/// A device whose threads all run, and a large tensor on both sides.
struct Used {
    rig: Rig,
    here: Tensor,
    there: Tensor,
}

impl Used {
    fn new() -> Self {
        let rig = Rig::open(1, &DeviceOptions::default());
        let here = Tensor::full(DType::U8, &[LARGE], 7).unwrap();
        let there = here.to(rig.device()).unwrap();
        drop(rig::threads::held_back(&here, rig.device()));
        let used = Self { rig, here, there };
        used.assert_works();
        used
    }

    fn assert_works(&self) {
        let back = self.there.transfer(&Device::host()).unwrap().wait().unwrap();
        assert_eq!(back.as_bytes().unwrap(), self.here.as_bytes().unwrap());
    }

    /// Checks that the device still works, and that the children have cost it nothing.
    fn finish(self) {
        self.assert_works();
        let Self { rig, here, there } = self;
        drop((here, there));
        rig.finish();
    }
}

fn a_child_that_waits_for_a_transfer_to_the_host_is_refused() {
    let used = Used::new();
    let small = Tensor::full(DType::F32, &[100], 1).unwrap();
    let small_there = small.to(used.rig.device()).unwrap();
    in_child(|| {
        let host = Device::host();
        assert_refused(used.there.transfer(&host).and_then(|transfer| transfer.wait()));
        assert_refused(small_there.transfer(&host).and_then(|transfer| transfer.wait()));
        let tree = vec![small_there.clone(), used.there.clone()];
        assert_refused(tree.transfer(&host).and_then(|transfer| transfer.wait()));
    });
    drop(small_there);
    used.finish();
}

fn a_child_that_moves_what_lanes_would_carry_is_refused() {
    let used = Used::new();
    in_child(|| {
        assert_refused(used.there.to(&Device::host()));
        assert_refused(used.here.to(used.rig.device()));
        assert_refused(used.here.pin_memory(used.rig.device()));
        let mut into = Tensor::zeros(DType::U8, &[LARGE]).unwrap();
        assert_refused(used.there.copy_into(&mut into));
        assert!(into.as_bytes().unwrap().iter().all(|byte| *byte == 0));
    });
    used.finish();
}

fn a_child_that_moves_what_its_own_thread_would_copy_is_refused() {
    let used = Used::new();
    let small = Tensor::full(DType::F32, &[100], 1).unwrap();
    let mut there = small.to(used.rig.device()).unwrap();
    in_child(|| {
        assert_refused(small.to(used.rig.device()));
        assert_refused(there.to(&Device::host()));
        assert_refused(small.copy_into(&mut there));
    });
    drop(there);
    used.finish();
}

fn a_child_can_not_wait_for_a_transfer_of_its_parent() {
    let used = Used::new();
    let mut flying: Vec<_> = (0..4)
        .map(|_| rig::threads::held_back(&used.here, used.rig.device()))
        .collect();
    let stream = Stream::new(used.rig.device().driver().unwrap()).unwrap();
    in_child(|| {
        let transfer = flying.pop().unwrap();
        assert!(transfer.is_done(), "waiting ends at once");
        assert!(!transfer.wait_staged());
        transfer.help();
        assert_refused(transfer.fence(&stream));
        assert_refused(transfer.wait());
        let mut context = Context::from_waker(Waker::noop());
        match pin!(flying.pop().unwrap()).poll(&mut context) {
            Poll::Ready(result) => assert_refused(result),
            Poll::Pending => panic!("nobody would wake it"),
        }
        flying.clear();
    });
    drop(stream);
    for transfer in flying {
        let there = transfer.wait().unwrap();
        let back = there.to(&Device::host()).unwrap();
        assert_eq!(back.as_bytes().unwrap(), used.here.as_bytes().unwrap());
    }
    used.finish();
}

fn a_child_drops_what_it_inherited_in_peace() {
    let mut used = Some(Used::new());
    let mut unused = Some(Rig::open(1, &DeviceOptions::default()));
    let device = used.as_ref().unwrap().rig.device();
    let pinned = Tensor::zeros(DType::U8, &[4096])
        .unwrap()
        .pin_memory(device)
        .unwrap();
    let mut pinned = Some(pinned);
    in_child(|| drop((used.take(), unused.take(), pinned.take())));
    drop(pinned);
    used.unwrap().finish();
    unused.unwrap().finish();
}

fn a_child_drops_results_that_stay_in_slots_and_memory_that_is_pinned_for_others() {
    let used = Used::new();
    let device = used.rig.device();
    // Many enough, and large enough together, for their result to stay in a slot.
    let small = Tensor::full(DType::U8, &[400], 1).unwrap();
    let count = device.profile().unwrap().slot_bytes / 4096;
    let there = vec![small; count].to(device).unwrap();
    let mut lent = Some(there.to(&Device::host()).unwrap());
    assert!(lent.as_ref().unwrap()[0].is_pinned(), "the result is in a slot");
    let theirs = Arc::new(AlignedPages([7; 4096]));
    let start = NonNull::from(&theirs.0[0]);
    // SAFETY: the owner keeps the page where it is, and no transfer uses it.
    let pin = unsafe { AdoptedPin::new(device, start, 4096, theirs) }.unwrap();
    let mut pin = Some(pin);
    in_child(|| drop((lent.take(), pin.take())));
    assert_eq!(lent.unwrap()[7].as_bytes().unwrap(), [1; 400]);
    drop((pin, there));
    used.finish();
}

/// A page of memory, where a page begins.
#[repr(align(4096))]
struct AlignedPages([u8; 4096]);

fn a_child_is_told_nothing_of_what_its_parent_holds() {
    let used = Used::new();
    // Whoever holds the locks at the fork holds them in the child for ever.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let device = used.rig.device();
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert!(device.stats().is_some());
            }
        });
        for _ in 0..20 {
            in_child(|| {
                assert!(device.stats().is_none());
                assert_eq!(device.trim(), 0);
            });
        }
    });
    used.finish();
}

/// Tells a thread to stop when it is dropped, which it is in a panic too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn a_child_makes_lists_and_sessions_of_its_own() {
    let used = Used::new();
    let host = Device::host();
    let many: Vec<Tensor> = (0..2000)
        .map(|_| Tensor::full(DType::U8, &[1], 3).unwrap())
        .collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let session = trace::start();
                assert_eq!(many.to(&host).unwrap().len(), many.len());
                host.trim();
                drop(session);
            }
        });
        for _ in 0..20 {
            in_child(|| {
                let session = trace::start();
                let same = many.to(&host).unwrap();
                assert!(same.iter().all(|tensor| tensor.as_bytes().unwrap() == [3]));
                assert!(session.finish().threads().is_empty());
                assert_eq!(host.trim(), 0);
            });
        }
    });
    used.finish();
}

fn a_child_opens_no_device() {
    let used = Used::new();
    Device::open("sim:0").unwrap();
    in_child(|| {
        assert_refused(Device::open("sim:0"));
        assert_refused(Device::open("sim:1"));
        assert_refused(Device::preferred());
    });
    used.finish();
}

fn a_child_goes_on_with_tensors_of_the_host() {
    let used = Used::new();
    in_child(|| {
        let host = Device::open("host").unwrap();
        let same = used.here.to(&host).unwrap();
        assert_eq!(same.as_bytes().unwrap(), used.here.as_bytes().unwrap());
        let other = Tensor::full(DType::U8, &[LARGE], 8).unwrap();
        let kept = other.transfer(&host).unwrap().wait().unwrap();
        assert_eq!(kept.as_bytes().unwrap()[LARGE - 1], 8);
    });
    used.finish();
}
