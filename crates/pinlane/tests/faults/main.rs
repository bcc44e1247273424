//! Every fault of the simulated device, at every call of a representative program.
//!
//! The program (`workload`) first runs without faults, which counts the calls of each step. Then it runs once for each
//! fault and each call that the fault can happen at, on a fresh machine (`rig`). However it goes wrong:
//!
//! - an operation gives what was asked for, byte for byte, or a typed error; one fault spoils one operation at most;
//! - the operations after it work, unless the device is lost: then they say so;
//! - nothing is left on the device or pinned in the end, and nothing was given back twice or while it was in use;
//!   what a lost device may still use is kept, and counted;
//! - nothing hangs (`watchdog`).

#![cfg(not(shuttle))]

mod rig;
mod strict;
mod watchdog;
mod workload;

use std::time::Duration;

use pinlane::{
    Error,
    driver::{
        ErrorKind,
        sim::{Fault, FaultPlan, Step},
    },
};

use rig::{Closed, Rig, SLOT, Tensors};
use watchdog::Watchdog;
use workload::OPERATIONS;

const LATE: Fault = Fault::Late(Duration::from_millis(2));

/// Where it is said, only each so manieth case is tried: a slow build, such as a sanitizer's, has no time for all.
const STRIDE: &str = "PINLANE_FAULTS_STRIDE";

fn stride() -> usize {
    std::env::var(STRIDE).map_or(1, |stride| {
        stride
            .parse()
            .expect("PINLANE_FAULTS_STRIDE is a number from 1 on")
    })
}

/// The operations that failed, with their errors.
fn run(rig: &Rig) -> Vec<(&'static str, Error)> {
    let failed = OPERATIONS.iter().filter_map(|&(name, operation)| {
        let error = operation(rig, Tensors::get()).err()?;
        Some((name, error))
    });
    failed.collect()
}

/// The steps of the driver that the program reaches where nothing fails: all that the engine ever takes, but for giving
/// pinned slabs back, which is for the end.
const REACHED: [Step; 16] = [
    Step::Allocate,
    Step::Free,
    Step::Pin,
    Step::CreateStream,
    Step::DestroyStream,
    Step::SynchronizeStream,
    Step::CreateEvent,
    Step::DestroyEvent,
    Step::Record,
    Step::StreamWait,
    Step::Query,
    Step::SynchronizeEvent,
    Step::Copy,
    Step::CopyBatch,
    Step::CopyScattered,
    Step::Convert,
];

/// How often the program calls each step. Fails unless these are exactly the steps of [`REACHED`]: a program that
/// reaches fewer tries fewer faults, and one that reaches more has not been thought about.
fn calls() -> Vec<(Step, u64)> {
    let rig = Rig::new(FaultPlan::new());
    let failed = run(&rig);
    assert!(failed.is_empty(), "without faults: {failed:?}");
    let steps = Step::ALL.into_iter().filter(|&step| step != Step::MemoryInfo);
    let calls: Vec<_> = steps.map(|step| (step, rig.sims[0].calls(step))).collect();
    assert_eq!(rig.leaked_bytes(), 0);
    assert_eq!(rig.close(), Closed::CLEAN);
    let calls: Vec<_> = calls.into_iter().filter(|&(_, calls)| calls > 0).collect();
    let reached: Vec<_> = calls.iter().map(|&(step, _)| step).collect();
    assert_eq!(reached, REACHED, "the program reaches other steps than it did");
    calls
}

/// Runs the program with `fault` at each call that it applies to, and hands each run to `judge`.
fn at_every_call(fault: Fault, judge: impl Fn(&Rig, &[(&'static str, Error)], Step)) {
    let watchdog = Watchdog::start();
    let mut cases = 0;
    for (step, calls) in calls() {
        if !fault.applies_to(step) {
            continue;
        }
        for nth in (0..calls).step_by(stride()) {
            let case = format!("{fault:?} at call {nth} of {step:?}");
            watchdog.feed(&case);
            let told = Told(case);
            let rig = Rig::new(FaultPlan::new().at(step, nth, fault));
            let failed = run(&rig);
            judge(&rig, &failed, step);
            let lost = rig.is_lost();
            assert!(rig.counts_what_it_keeps(), "memory is kept and not counted");
            let leaked = rig.leaked_bytes();
            let closed = rig.close();
            if lost {
                assert_eq!((closed.freed_in_use, closed.breaches), (0, 0));
            } else {
                assert_eq!((leaked, closed), (0, Closed::CLEAN));
            }
            drop(told);
            cases += 1;
        }
    }
    assert!(cases > 0, "{fault:?} applies to no call of the program");
    println!("{fault:?}: {cases} cases");
}

/// Says which case it was when a check of it fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with {}:", self.0);
        }
    }
}

/// The next transfer works, once what failed and was dropped has been let go: what stands behind a failed copy on its
/// stream fails with it.
fn assert_works(rig: &Rig) {
    assert!(rig.settles_at(0), "something of a failed operation is kept");
    rig.sims[0].set_faults(FaultPlan::new());
    let next = workload::there_and_back(rig, Tensors::get());
    assert!(next.is_ok(), "the next transfer fails: {}", next.unwrap_err());
}

/// One operation failed at most, and said why; the device works on.
fn survives(kind: ErrorKind) -> impl Fn(&Rig, &[(&'static str, Error)], Step) {
    move |rig, failed, _| {
        assert!(
            failed.len() <= 1,
            "one fault spoils several operations: {failed:?}"
        );
        for (name, error) in failed {
            assert_eq!(error.driver_kind(), Some(kind), "{name}: {error}");
        }
        assert_works(rig);
    }
}

#[test]
fn out_of_device_memory_anywhere_spoils_one_operation() {
    at_every_call(Fault::OutOfMemory, survives(ErrorKind::OutOfMemory));
}

#[test]
fn a_pin_limit_anywhere_spoils_one_operation() {
    at_every_call(Fault::PinLimit, survives(ErrorKind::PinLimit));
}

#[test]
fn a_host_that_pins_no_more_than_one_slot_slows_transfers_and_stops_none() {
    let _watchdog = Watchdog::start();
    let rig = Rig::with_pin_limit(FaultPlan::new(), Some(SLOT as u64));
    workload::there_and_back(&rig, Tensors::get()).unwrap();
    assert_eq!(rig.devices[0].stats().unwrap().pinned.pinned, SLOT);
    assert_eq!(rig.close(), Closed::CLEAN);
}

#[test]
fn a_refused_call_anywhere_spoils_one_operation() {
    at_every_call(Fault::Refused, survives(ErrorKind::Refused));
}

#[test]
fn a_failed_copy_anywhere_spoils_one_operation() {
    at_every_call(Fault::CopyFailed, survives(ErrorKind::CopyFailed));
}

#[test]
fn a_late_copy_anywhere_spoils_nothing() {
    at_every_call(LATE, |rig, failed, _| {
        assert!(failed.is_empty(), "{failed:?}");
        assert_works(rig);
    });
}

#[test]
fn a_device_lost_anywhere_is_told_by_every_operation_after_it() {
    at_every_call(Fault::DeviceLost, |rig, failed, step| {
        for (name, error) in failed {
            // The other device can't read the lost one's memory: its own copies fail.
            let kind = error.driver_kind();
            let typed = matches!(error, Error::SlotsLost { .. })
                || matches!(kind, Some(ErrorKind::DeviceLost | ErrorKind::CopyFailed));
            assert!(typed, "{name}: {error}");
        }
        let next = workload::there_and_back(rig, Tensors::get()).map_err(|error| error.driver_kind());
        if rig.is_lost() {
            assert_eq!(
                next,
                Err(Some(ErrorKind::DeviceLost)),
                "after the loss at {step:?}"
            );
        }
    });
}

#[test]
fn seeded_faults_spoil_only_what_says_so() {
    let watchdog = Watchdog::start();
    for seed in (0..600).step_by(stride()) {
        let probability = [0.002, 0.01, 0.05, 0.2][seed as usize % 4];
        let case = format!("seed {seed}, probability {probability}");
        watchdog.feed(&case);
        let told = Told(case);
        let rig = Rig::new(FaultPlan::seeded(seed, probability));
        for (name, error) in run(&rig) {
            assert!(error.driver_kind().is_some(), "{name}: {error}");
        }
        assert_works(&rig);
        assert_eq!(rig.leaked_bytes(), 0);
        assert_eq!(rig.close(), Closed::CLEAN);
        drop(told);
    }
}
