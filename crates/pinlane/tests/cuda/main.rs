//! The engine on a GPU: what only real hardware can get wrong, and what the simulated device is too small to show.
//!
//! The tests take the device that `PINLANE_TEST_DEVICE` names, else the first GPU, and are skipped, with a count, where
//! there is none.

mod budget;
mod crowd;
mod exit;
mod fallback;
#[path = "../harness/mod.rs"]
mod harness;
mod idle;
mod kernel;
mod lost;
mod out_of_memory;
mod poison;
#[path = "../rig/mod.rs"]
mod rig;
mod sharing;
mod tracing;

use std::process::ExitCode;

use harness::{Test, chosen_device, tests};
use pinlane::DeviceOptions;
use rig::Rig;

const TESTS: &[Test] = tests![
    Chosen: {
        poison::what_is_used_again_under_a_stalled_stream_never_shows_in_a_result,
        crowd::every_byte_of_sixteen_threads_lands,
        budget::a_hundred_times_the_budget_moves_within_the_budget,
        idle::threads_of_an_idle_device_sleep,
        out_of_memory::a_device_that_is_full_refuses_and_goes_on,
        fallback::without_a_kernel_batches_move_the_right_bytes,
        tracing::a_trace_shows_copies_that_the_device_can_have_made,
        exit::a_process_may_exit_with_transfers_in_flight,
    }
    Cuda: {
        sharing::transfers_and_another_library_do_not_disturb_each_other,
        sharing::memory_that_another_library_pinned_is_copied_directly,
        sharing::a_fence_on_a_stream_under_capture_is_an_error_that_says_so,
        kernel::the_first_gathered_transfer_does_not_wait_for_a_busy_device,
        lost::transfers_of_a_lost_device_fail_and_what_it_may_still_use_is_counted,
    }
];

fn main() -> ExitCode {
    match exit::child() {
        Some(child) => child(),
        None => harness::run(TESTS),
    }
}

/// The device under test with an engine of the test's own.
fn rig(options: &DeviceOptions) -> Rig {
    Rig::named(&chosen_device(), 1, options)
}
