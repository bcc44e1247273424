//! Programs on a device on which something goes wrong.

use pinlane::{
    Device, Error, Result, Tree,
    driver::{
        ErrorKind,
        sim::{Fault, FaultPlan, SimDriver, Step},
        sync::Arc,
    },
};

use crate::{
    explore,
    rig::{
        BUDGET, assert_nothing_left, assert_only_memory_left, at_once, is_lost, open, pick, tensor,
        there_and_back,
    },
};

/// Two threads that move tensors both ways, one of which sometimes wants no result. `judge` is given every error.
fn run(device: &Device, judge: fn(Error)) {
    at_once(
        (0..2)
            .map(|seed| -> Box<dyn FnOnce() + Send> {
                let device = device.clone();
                Box::new(move || {
                    let sent = tensor(seed);
                    let dropped: Result<()> = match pick(4) {
                        0 => tensor(seed).transfer(&device).map(drop),
                        1 => tensor(seed)
                            .to(&device)
                            .and_then(|there| there.transfer(&Device::host()).map(drop)),
                        2 => sent.to(&device).and_then(|mut there| sent.copy_into(&mut there)),
                        _ => Ok(()),
                    };
                    let landed = there_and_back(&device, &tensor(seed));
                    [dropped, landed]
                        .into_iter()
                        .filter_map(Result::err)
                        .for_each(judge);
                })
            })
            .collect(),
    );
}

/// Whatever went wrong, the device works, and nothing is kept in the end.
fn assert_works(device: Device, sim: &Arc<SimDriver>) {
    sim.set_faults(FaultPlan::new());
    // Copies of a dropped transfer may fail late, and what stands behind them with them; not for ever.
    let again = (0..4).find_map(|seed| there_and_back(&device, &tensor(seed)).ok());
    assert!(again.is_some(), "the device does not work again");
    assert_eq!(device.stats().unwrap().leaked_bytes, 0);
    drop(device);
    assert_nothing_left(sim);
}

#[test]
fn a_failed_copy_spoils_no_bytes_and_the_device_works_on() {
    explore(|| {
        let faults = FaultPlan::new()
            .at(Step::Copy, pick(8) as u64, Fault::CopyFailed)
            .at(Step::Copy, pick(8) as u64, Fault::CopyFailed);
        let (device, sim) = open(faults, BUDGET);
        run(&device, |error| {
            assert_eq!(error.driver_kind(), Some(ErrorKind::CopyFailed), "{error}");
        });
        assert_works(device, &sim);
    });
}

#[test]
fn a_refused_call_spoils_no_bytes_and_the_device_works_on() {
    explore(|| {
        let steps = [
            Step::Allocate,
            Step::Pin,
            Step::CreateStream,
            Step::CreateEvent,
            Step::Record,
            Step::Copy,
            Step::Query,
            Step::SynchronizeEvent,
        ];
        let mut faults = FaultPlan::new();
        for _ in 0..2 {
            faults = faults.at(steps[pick(steps.len())], pick(6) as u64, Fault::Refused);
        }
        let (device, sim) = open(faults, BUDGET);
        run(&device, |error| {
            assert_eq!(error.driver_kind(), Some(ErrorKind::Refused), "{error}");
        });
        assert_works(device, &sim);
    });
}

#[test]
fn faults_by_chance_spoil_no_bytes_and_the_device_works_on() {
    explore(|| {
        let (device, sim) = open(FaultPlan::seeded(pick(1 << 30) as u64, 0.1), BUDGET);
        run(&device, |error| assert!(error.driver_kind().is_some(), "{error}"));
        assert_works(device, &sim);
    });
}

#[test]
fn an_awaited_transfer_is_woken_whatever_fails() {
    explore(|| {
        let fault = [Fault::Refused, Fault::CopyFailed, Fault::DeviceLost][pick(3)];
        let steps = [Step::Query, Step::Copy, Step::SynchronizeEvent];
        let steps: Vec<_> = steps.into_iter().filter(|&step| fault.applies_to(step)).collect();
        let step = steps[pick(steps.len())];
        let (device, sim) = open(FaultPlan::new().at(step, pick(6) as u64, fault), BUDGET);
        let sent = tensor(1);
        let landed: Result<()> = shuttle::future::block_on(async {
            let there = sent.transfer(&device)?.await?;
            let back = there.transfer(&Device::host())?.await?;
            crate::rig::assert_same(&sent, &back);
            Ok(())
        });
        assert!(landed.is_ok() || fault != Fault::Refused || step == Step::Copy);
        drop(device);
        assert_only_memory_left(&sim);
    });
}

#[test]
fn a_lost_device_is_told_to_everyone_and_nobody_waits_for_it() {
    explore(|| {
        let step = Step::ALL[pick(Step::ALL.len())];
        let (device, sim) = open(
            FaultPlan::new().at(step, pick(5) as u64, Fault::DeviceLost),
            BUDGET,
        );
        run(&device, |error| {
            let typed = matches!(error, Error::SlotsLost { .. })
                || error.driver_kind() == Some(ErrorKind::DeviceLost);
            assert!(typed, "{error}");
        });
        if is_lost(&sim) {
            let next = there_and_back(&device, &tensor(3)).map_err(|error| error.driver_kind());
            assert_eq!(next, Err(Some(ErrorKind::DeviceLost)));
        }
        drop(device);
        assert_only_memory_left(&sim);
    });
}
