//! When devices were busy, as traces tell it, whatever becomes of the transfers: no idle time is in it, and no copy is lost or
//! counted that failed.

#![cfg(not(shuttle))]

mod rig;

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{sleep, yield_now},
    time::Duration,
};

use pinlane::{
    DType, Device, DeviceOptions, Profile, Route, Tensor, TransferOptions, Tree,
    driver::{
        Driver, MemCopy, RawStream, Stream, Timing, Wrapper,
        sim::{Alive, DeviceConfig, Fault, FaultPlan, Machine, MachineConfig, SimDriver, Step},
    },
    trace::{self, TimedBy, Trace, TracedDevice},
};
use rig::{Rig, eventually, pattern, small_engine};

const SLOT: usize = 64 << 10;
const CHUNKS: usize = 64;
/// All chunks of a transfer over the link.
const TRANSFER: Duration = Duration::from_millis(2);
/// From one transfer to the next, at least.
const PAUSE: Duration = Duration::from_millis(60);

/// Sessions see the whole process: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A link that two lanes with small slots keep busy.
fn machine() -> MachineConfig {
    let config = DeviceConfig {
        memory_bytes: 64 << 20,
        bytes_per_second: Some((CHUNKS * SLOT) as f64 / TRANSFER.as_secs_f64()),
        poison: false,
        ..DeviceConfig::default()
    };
    MachineConfig::equal_devices(1, config)
}

/// Those lanes.
fn options(driver: &Arc<dyn Driver>) -> DeviceOptions {
    DeviceOptions {
        pinned_budget: Some(8 << 20),
        profile: Some(Profile::assumed(driver.properties())),
        ..small_engine(2, 2, SLOT)
    }
}

fn rig() -> Rig {
    let probe = Rig::on(machine(), &DeviceOptions::default());
    Rig::on(machine(), &options(probe.device().driver().unwrap()))
}

fn tensor() -> Tensor {
    let bytes = CHUNKS * SLOT;
    Tensor::from_bytes(pattern(bytes, 1), DType::U8, &[bytes]).unwrap()
}

fn staged() -> TransferOptions {
    TransferOptions::new().route(Route::Staged)
}

fn moved(rig: &Rig, tensor: &Tensor) {
    drop(tensor.to_with(rig.device(), &staged()).unwrap());
}

fn only_device(trace: &Trace) -> &TracedDevice {
    let [device] = trace.devices() else {
        panic!("{:?}", trace.devices());
    };
    device
}

fn copies(device: &TracedDevice) -> usize {
    device.spans.iter().map(|span| span.copies as usize).sum()
}

/// Checks that no span goes on over a whole pause, which began at one of these times of the session.
fn no_span_has_a_pause_in_it(device: &TracedDevice, pauses: &[Duration]) {
    for (span, &pause) in device
        .spans
        .iter()
        .flat_map(|span| pauses.iter().map(move |pause| (span, pause)))
    {
        let has_it = span.start <= pause && span.end >= pause + PAUSE;
        assert!(!has_it, "{span:?} has the pause at {pause:?} in it");
    }
}

#[test]
fn copies_that_follow_each_other_are_one_span_with_all_their_bytes() {
    let _turn = turn();
    let rig = rig();
    let tensor = tensor();
    moved(&rig, &tensor);
    let session = trace::start();
    moved(&rig, &tensor);
    let trace = session.finish();
    let device = only_device(&trace);
    let bytes: u64 = device.spans.iter().map(|span| span.bytes).sum();
    assert_eq!(
        (copies(device), bytes, device.missed),
        (CHUNKS, (CHUNKS * SLOT) as u64, 0)
    );
    assert!(device.spans.len() < CHUNKS, "{} spans", device.spans.len());
    let shown = trace.summary().to_string();
    assert!(shown.contains(&format!("{CHUNKS} copies")), "{shown}");
    rig.finish();
}

#[test]
fn a_copy_that_its_caller_waits_for_is_two_steps_and_a_span_of_as_long() {
    let _turn = turn();
    let rig = rig();
    let bytes = 100;
    let short = Tensor::from_bytes(pattern(bytes, 1), DType::U8, &[bytes]).unwrap();
    let outer = trace::start();
    let inner = trace::start();
    drop(short.to(rig.device()).unwrap());
    let later = trace::start();
    for (session, copies) in [(inner, 1), (outer, 2), (later, 2)] {
        let trace = session.finish();
        let device = only_device(&trace);
        let spans = device.spans.iter();
        let told: Vec<_> = spans
            .map(|span| (span.timed_by, span.copies, span.bytes))
            .collect();
        assert_eq!(told, vec![(TimedBy::Host, 1, bytes as u64); copies]);
        let [thread] = trace.threads() else {
            panic!("{:?}", trace.threads());
        };
        for (steps, span) in thread.spans.chunks(2).zip(&device.spans) {
            let [copy, wait] = steps else { panic!("{steps:?}") };
            assert_eq!((copy.name, wait.name), ("copy", "wait"));
            assert_eq!((copy.bytes, wait.bytes), (Some(bytes as u64), Some(bytes as u64)));
            assert_eq!(
                (copy.start, copy.end, wait.end),
                (span.start, wait.start, span.end)
            );
        }
        drop(short.to(rig.device()).unwrap());
    }
    rig.finish();
}

#[test]
fn a_session_that_ends_in_the_middle_of_copies_waits_for_them() {
    let _turn = turn();
    let rig = rig();
    let tensor = tensor();
    moved(&rig, &tensor);
    let before = rig.sim().calls(Step::Copy);
    let session = trace::start();
    let transfer = tensor.transfer_with(rig.device(), &staged()).unwrap();
    // By then one of the two lanes is at its second at least.
    while rig.sim().calls(Step::Copy) < before + 4 {
        yield_now();
    }
    let trace = session.finish();
    let device = only_device(&trace);
    assert!(copies(device) > 0);
    assert_eq!(device.missed, 0);
    drop(transfer.wait().unwrap());
    rig.finish();
}

#[test]
fn a_copy_that_its_caller_waits_for_is_missed_where_it_fails() {
    let _turn = turn();
    let rig = rig();
    let short = Tensor::from_bytes(pattern(100, 1), DType::U8, &[100]).unwrap();
    drop(short.to(rig.device()).unwrap());
    for (fault, missed) in [(Fault::CopyFailed, 1), (Fault::Refused, 0)] {
        let session = trace::start();
        rig.sim().set_faults(FaultPlan::new().at(Step::Copy, 0, fault));
        short.to(rig.device()).unwrap_err();
        rig.sim().set_faults(FaultPlan::new());
        drop(short.to(rig.device()).unwrap());
        let trace = session.finish();
        let device = only_device(&trace);
        assert_eq!((copies(device), device.missed), (1, missed), "{fault:?}");
    }
    rig.finish();
}

/// A simulated device whose copies are not enqueued while the gate is shut.
#[derive(Debug)]
struct Gated {
    sim: Arc<SimDriver>,
    is_shut: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gated {
    fn set(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.opened.notify_all();
    }
}

// SAFETY: copies are the simulated device's, if later.
unsafe impl Wrapper for Gated {
    type Inner = SimDriver;

    fn inner(&self) -> &SimDriver {
        &self.sim
    }

    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> pinlane::driver::Result<()> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let open = self
            .opened
            .wait_while(self.is_shut.lock().unwrap(), |is_shut| *is_shut);
        drop(open.unwrap());
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { self.sim.copy(copy, stream) }
    }
}

#[test]
fn copies_that_are_enqueued_when_their_session_has_ended_keep_no_device_open() {
    let _turn = turn();
    let sim = Machine::new(machine()).sim(0).unwrap();
    let gated = Arc::new(Gated {
        sim: Arc::clone(&sim),
        is_shut: Mutex::new(false),
        opened: Condvar::new(),
        waiting: AtomicUsize::new(0),
    });
    let driver: Arc<dyn Driver> = Arc::clone(&gated) as _;
    let device = Device::with_options(Arc::clone(&driver), &options(&driver)).unwrap();
    let session = trace::start();
    gated.set(true);
    let transfer = tensor().transfer_with(&device, &staged()).unwrap();
    eventually("a lane has begun a copy", || {
        gated.waiting.load(Ordering::Relaxed) > 0
    });
    drop(session.finish());
    gated.set(false);
    drop(transfer.wait().unwrap());
    drop((device, driver, gated));
    eventually("everything is given back", || sim.alive() == Alive::default());
}

#[test]
fn a_cancelled_transfer_leaves_its_device_idle() {
    let _turn = turn();
    let rig = rig();
    let tensor = tensor();
    let session = trace::start();
    let mut pauses = Vec::new();
    for more in 0..6 {
        let flying = tensor.transfer_with(rig.device(), &staged()).unwrap();
        sleep(TRANSFER / 5 + more * Duration::from_micros(37));
        drop(flying);
        pauses.push(session.elapsed());
        sleep(PAUSE);
    }
    moved(&rig, &tensor);
    let trace = session.finish();
    let device = only_device(&trace);
    no_span_has_a_pause_in_it(device, &pauses);
    assert!(copies(device) >= CHUNKS, "{device:?}");
    rig.finish();
}

#[test]
fn a_session_that_begins_in_the_middle_of_a_transfer_has_the_end_of_it() {
    let _turn = turn();
    let rig = rig();
    let tensor = tensor();
    for _ in 0..10 {
        let flying = tensor.transfer_with(rig.device(), &staged()).unwrap();
        sleep(TRANSFER / 5);
        let session = trace::start();
        drop(flying.wait().unwrap());
        let missed: u64 = session
            .finish()
            .devices()
            .iter()
            .map(|device| device.missed)
            .sum();
        assert_eq!(missed, 0);
    }
    rig.finish();
}

#[test]
fn copies_behind_an_event_begin_when_it_has_fired() {
    let _turn = turn();
    let rig = rig();
    let driver = Arc::clone(rig.device().driver().unwrap());
    let compute = Stream::new(&driver).unwrap();
    // One chunk is enqueued ahead of the event; for many there are no slots before it has fired.
    let one = Tensor::from_bytes(pattern(SLOT, 1), DType::U8, &[SLOT]).unwrap();
    for (tensor, chunks) in [(one, 1), (tensor(), CHUNKS)] {
        let session = trace::start();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            pauses.push(session.elapsed());
            driver.busy(PAUSE, compute.raw()).unwrap();
            let event = Arc::new(compute.record(Timing::Disabled).unwrap());
            drop(tensor.to_with(rig.device(), &staged().after(event)).unwrap());
        }
        let trace = session.finish();
        let device = only_device(&trace);
        // The device's clock is set to the host's within a millisecond.
        let held_back = |pause: &Duration| *pause..*pause + PAUSE * 9 / 10;
        for span in &device.spans {
            let held_back = pauses
                .iter()
                .map(held_back)
                .find(|held| held.contains(&span.start));
            assert_eq!(held_back, None, "{span:?} began before its event had fired");
        }
        assert_eq!((copies(device), device.missed), (4 * chunks, 0));
    }
    drop(compute);
    rig.finish();
}

#[test]
fn a_copy_that_failed_is_missed_whatever_came_after_it_on_its_stream() {
    let _turn = turn();
    let tensor = tensor();
    for nth in (0..CHUNKS as u64).step_by(3) {
        let rig = rig();
        moved(&rig, &tensor);
        let session = trace::start();
        let plan = FaultPlan::new().at(Step::Copy, nth, Fault::CopyFailed);
        rig.sims[0].set_faults(plan);
        assert!(tensor.to_with(rig.device(), &staged()).is_err());
        rig.sims[0].set_faults(FaultPlan::new());
        let trace = session.finish();
        assert!(only_device(&trace).missed > 0, "copy {nth}");
        rig.finish();
    }
}

#[test]
fn what_comes_after_a_failure_is_traced_and_no_later_session_misses_it() {
    let _turn = turn();
    let rig = rig();
    let tensor = tensor();
    let outer = trace::start();
    let plan = FaultPlan::new().at(Step::Copy, 20, Fault::CopyFailed);
    rig.sims[0].set_faults(plan);
    assert!(tensor.to_with(rig.device(), &staged()).is_err());
    rig.sims[0].set_faults(FaultPlan::new());
    // The thread that looks at events has yet to see it.
    eventually("copies are timed again", || {
        let session = trace::start();
        moved(&rig, &tensor);
        only_device(&session.finish()).missed == 0
    });
    let inner = trace::start();
    moved(&rig, &tensor);
    let inner = inner.finish();
    let device = only_device(&inner);
    assert_eq!((copies(device), device.missed), (CHUNKS, 0));
    let outer = outer.finish();
    assert!(only_device(&outer).missed > 0);
    rig.finish();
}
