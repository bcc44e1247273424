//! How tests run that need a GPU: one at a time, and skipped with a reason that is counted where there is none.

use libtest_mimic::{Arguments, Completion, Conclusion, Trial};

/// The cases of one device measure its memory and keep it busy, so they don't run side by side.
pub(crate) fn one_at_a_time(mut arguments: Arguments) -> Arguments {
    arguments.test_threads = Some(1);
    arguments
}

/// A test that needs a device where there is none.
pub(crate) fn without_device(name: String, arguments: &Arguments) -> Trial {
    let trial = Trial::ignorable_test(name, || Ok(Completion::ignored_with("no CUDA device")));
    // A runner that asks for the list first, as nextest does, counts what is ignored there; it has no word for a test that
    // skips as it runs.
    trial.with_ignored_flag(arguments.list)
}

/// Runs them all, and at the end says how many were skipped, and why there is no device where there is none.
pub(crate) fn run(arguments: &Arguments, trials: Vec<Trial>) -> Conclusion {
    let conclusion = libtest_mimic::run(arguments, trials);
    if arguments.list {
        // Whoever asked for the list reads nothing else.
        return conclusion;
    }
    if conclusion.num_ignored > 0 {
        println!(
            "skipped: {} tests; each line above says why",
            conclusion.num_ignored
        );
    }
    if let Err(why) = pinlane_cuda::device_count() {
        println!("no CUDA device: {why}");
    }
    conclusion
}
