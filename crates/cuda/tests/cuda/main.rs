//! What the conformance suite can't ask of every driver: CUDA's own streams, contexts, captures, and other users of the
//! same device in the process. Each test needs a GPU and is skipped, with a count, where there is none.

mod child;
#[path = "../harness/mod.rs"]
mod harness;
mod host;
mod kernels;
mod memory;
mod order;
mod other_library;
mod processes;
mod sharing;
mod streams;

use libtest_mimic::{Arguments, Completion, Trial};
use pinlane_driver::{Driver, sync::Arc};

type Test = fn(&Arc<dyn Driver>) -> Completion;

/// What a test may end with: nothing, or that it was skipped and why.
trait Ends {
    fn completion(self) -> Completion;
}

impl Ends for () {
    fn completion(self) -> Completion {
        Completion::Completed
    }
}

impl Ends for Completion {
    fn completion(self) -> Completion {
        self
    }
}

macro_rules! tests {
    ($($group:ident::$test:ident,)*) => {
        &[$((
            concat!(stringify!($group), "::", stringify!($test)),
            (|driver| $group::$test(driver).completion()) as Test,
        ),)*]
    };
}

const TESTS: &[(&str, Test)] = tests![
    streams::the_default_streams_can_be_adopted,
    streams::a_blocking_stream_of_another_library_can_be_adopted,
    streams::a_stream_under_capture_is_refused_and_the_capture_goes_on,
    order::an_event_protects_the_source_of_the_copy_before_it,
    order::a_pageable_source_may_change_at_once,
    order::a_managed_source_may_change_at_once,
    order::a_pageable_destination_can_be_read_at_once,
    order::ten_thousand_blocks_of_a_batch_arrive,
    order::a_sleeping_thread_wakes_when_its_event_fires,
    sharing::another_library_can_use_the_same_memory_and_context,
    sharing::calls_leave_the_threads_context_as_it_was,
    sharing::memory_that_another_library_pinned_counts_as_pinned,
    sharing::a_device_opened_twice_is_the_same,
    memory::a_device_describes_itself,
    memory::freed_memory_is_handed_out_again,
    memory::trimmed_memory_is_free_to_other_libraries,
    memory::memory_that_is_not_kept_goes_back_while_the_device_works,
    memory::running_out_of_memory_is_an_error_with_cudas_name_and_passes,
    memory::memory_of_someone_else_is_not_freed,
    memory::pinning_a_range_twice_is_an_error_and_leaves_the_first_pin,
    kernels::the_kernel_for_scattered_pieces_loads,
    kernels::the_kernel_for_conversions_loads,
    kernels::the_kernel_of_busy_tasks_runs_for_its_time,
    kernels::the_batch_call_is_found_where_the_driver_has_it,
    processes::a_lost_device_is_lost_for_every_later_call_and_the_process_ends_well,
    processes::a_process_may_exit_with_work_in_flight,
    processes::handles_may_be_dropped_when_cuda_is_gone,
    processes::a_forked_child_gets_an_error_that_says_so,
    processes::a_child_forked_from_one_where_another_library_uses_cuda_is_told_so,
];

fn main() {
    if let Some(child) = processes::child() {
        return child();
    }
    let arguments = harness::one_at_a_time(Arguments::from_args());
    let devices = pinlane_cuda::device_count().unwrap_or(0);
    let trials = match devices {
        0 => TESTS
            .iter()
            .map(|(name, _)| harness::without_device((*name).to_owned(), &arguments))
            .collect(),
        _ => TESTS
            .iter()
            .map(|(name, test)| on_first_device(name, *test))
            .collect(),
    };
    harness::run(&arguments, trials).exit();
}

fn on_first_device(name: &str, test: Test) -> Trial {
    Trial::ignorable_test(name, move || Ok(test(&pinlane_cuda::open(0)?)))
}
