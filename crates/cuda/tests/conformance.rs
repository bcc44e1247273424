//! Every CUDA device passes the conformance suite, case by case. Without a device each case is skipped, and says why.

mod harness;

use libtest_mimic::{Arguments, Completion, Trial};
use pinlane_driver::conformance::{Subject, Verdict, cases};

fn main() {
    let arguments = harness::one_at_a_time(Arguments::from_args());
    let trials = match pinlane_cuda::device_count() {
        Ok(count) => (0..count).flat_map(trials_on).collect(),
        Err(_) => cases()
            .iter()
            .map(|case| harness::without_device(format!("cuda::{}", case.name()), &arguments))
            .collect(),
    };
    harness::run(&arguments, trials).exit();
}

/// The cases on one device, with the next one as its peer where there are several.
fn trials_on(ordinal: u32) -> Vec<Trial> {
    let trial = |case: &'static pinlane_driver::conformance::Case| {
        Trial::ignorable_test(format!("cuda:{ordinal}::{}", case.name()), move || {
            match case.run(&subject(ordinal)?) {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::Skipped(why) => Ok(Completion::ignored_with(why)),
                Verdict::Failed(why) => Err(why.into()),
            }
        })
    };
    cases().iter().map(trial).collect()
}

fn subject(ordinal: u32) -> pinlane_driver::Result<Subject> {
    let subject = Subject::new(pinlane_cuda::open(ordinal)?);
    let count = pinlane_cuda::device_count()?;
    if count == 1 {
        return Ok(subject);
    }
    Ok(subject.with_peer(pinlane_cuda::open((ordinal + 1) % count)?))
}
