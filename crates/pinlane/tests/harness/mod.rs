//! How tests run that can be given a device: on the one that `PINLANE_TEST_DEVICE` names, one at a time there, and skipped
//! with a reason that is counted where a test can't run on what there is.

#![allow(dead_code, reason = "each target of tests uses its own part")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};
use pinlane::{Device, driver::Backend};

use crate::rig::named_device;

/// What a test needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Needs {
    /// Any device: the one that was named, or a simulated one.
    Device,
    /// The simulator's stalls, faults or counts.
    Simulator,
    /// The device that was named, or the first GPU.
    Chosen,
    /// The same, and it is a GPU.
    Cuda,
}

/// A test by its name.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: fn(),
}

/// The tests of a target, by what they need: `tests![Device: { module::a_test, } Simulator: { .. }]`.
macro_rules! tests {
    ($($needs:ident: { $($test:path),* $(,)? })*) => {
        &[$($($crate::harness::Test {
            name: stringify!($test),
            needs: $crate::harness::Needs::$needs,
            run: $test,
        },)*)*]
    };
}
pub(crate) use tests;

/// The name of the device for tests of hardware: the one that was named, else the first GPU.
pub(crate) fn chosen_device() -> String {
    named_device().unwrap_or_else(|| "cuda:0".to_owned())
}

impl Needs {
    /// Why a test that needs this can't run here.
    fn missing(self) -> Option<String> {
        let named = named_device();
        match self {
            Self::Device => None,
            Self::Simulator => {
                named.map(|name| format!("it looks into the simulator, and is to run on {name}"))
            }
            Self::Chosen | Self::Cuda => match (Device::open(&chosen_device()), named) {
                // A device that was named must be there; the test says why it is not.
                (Err(_), None) => Some("no GPU".to_owned()),
                (Ok(device), Some(name)) if self == Self::Cuda => {
                    let is_cuda = device.id().is_some_and(|id| id.backend == Backend::Cuda);
                    (!is_cuda).then(|| format!("it is to run on {name}, which is no GPU"))
                }
                _ => None,
            },
        }
    }

    fn is_hardware(self) -> bool {
        matches!(self, Self::Chosen | Self::Cuda)
    }
}

/// Runs the tests that the command line asks for, and at the end says how many were skipped.
pub(crate) fn run(tests: &'static [Test]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let on_hardware = tests.iter().any(|test| test.needs.is_hardware());
    if on_hardware || named_device().is_some() {
        // They measure the memory of one device and keep it busy.
        arguments.test_threads = Some(1);
    }
    let trial = |test: &'static Test| {
        Trial::ignorable_test(test.name, || match test.needs.missing() {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                (test.run)();
                Ok(Completion::Completed)
            }
        })
    };
    let conclusion = libtest_mimic::run(&arguments, tests.iter().map(trial).collect());
    // Whoever asked for the list reads nothing else.
    if !arguments.list && conclusion.num_ignored > 0 {
        println!(
            "skipped: {} tests; each line above says why",
            conclusion.num_ignored
        );
        if on_hardware && let Err(why) = Device::open(&chosen_device()) {
            println!("{why}");
        }
    }
    conclusion.exit_code()
}
