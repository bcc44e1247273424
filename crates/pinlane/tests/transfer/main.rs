//! What a transfer promises, whatever the moment at which it is waited for, awaited, fenced or dropped.

mod converting;
mod dropping;
#[path = "../harness/mod.rs"]
mod harness;
mod into;
mod results;
#[path = "../rig/mod.rs"]
mod rig;
mod too_early;
mod waiting;

use std::{
    any::Any,
    process::ExitCode,
    ptr::NonNull,
    sync::{Arc, Weak},
};

use harness::{Test, tests};
use pinlane::{DType, Device, Layout, Tensor, Tree};
use rig::pattern;

const TESTS: &[Test] = tests![
    Device: {
        converting::a_tensor_becomes_another_dtype_where_it_is_whatever_its_shape_and_strides,
        converting::a_tensor_that_has_the_dtype_is_shared_and_one_that_can_not_have_it_refused,
        into::bytes_land_in_tensors_that_exist_in_every_direction,
        into::a_tree_lands_in_place_and_keeps_its_addresses,
        into::a_strided_source_lands_in_its_logical_order,
        into::pinned_memory_is_filled_without_a_slot,
        into::a_place_that_does_not_fit_or_that_others_could_read_is_refused_before_anything_moves,
        into::a_transfer_that_is_dropped_keeps_the_memory_it_fills,
        results::results_of_one_slab_are_written_separately,
        results::a_source_can_be_written_again_once_its_transfer_has_landed,
        results::what_is_there_already_is_shared_and_not_copied,
        results::a_tree_from_the_host_and_two_devices_moves_as_one_transfer,
        results::a_pinned_result_comes_out_of_the_budget_and_goes_back_to_it,
        waiting::a_transfer_can_be_sent_to_another_thread_and_waited_for_there,
    }
    Simulator: {
        converting::a_conversion_that_fails_is_told_and_leaves_nothing_behind,
        dropping::a_transfer_that_is_dropped_in_flight_keeps_its_memory_until_the_device_is_done,
        dropping::who_drains_a_device_waits_for_what_was_dropped_and_no_longer_than_told,
        dropping::a_staged_transfer_that_is_dropped_in_flight_lets_go_of_its_source_and_its_slots_only_then,
        dropping::a_download_that_is_dropped_in_flight_keeps_its_memory_until_the_device_is_done,
        dropping::a_result_lands_although_the_source_was_dropped_meanwhile,
        dropping::a_device_handle_can_be_dropped_while_its_transfers_are_in_flight,
        dropping::the_last_transfer_of_a_device_ends_its_engine_when_it_is_dropped_in_flight,
        dropping::an_owner_that_panics_when_it_is_dropped_does_not_stop_the_others,
        into::what_a_failed_copy_has_left_behind_can_not_be_read,
        results::a_copy_that_fails_is_told_although_later_chunks_succeed,
        results::a_tree_that_is_refused_in_part_leaves_nothing_behind,
        results::every_tensor_has_an_allocation_of_its_own_where_asked,
        too_early::a_tree_that_is_rebuilt_sees_its_tensors_but_not_their_bytes_before_they_land,
        too_early::what_a_dropped_transfer_was_to_fill_is_never_read,
        waiting::a_task_that_awaits_is_woken_when_the_transfer_lands_and_not_before,
        waiting::the_task_that_polled_last_is_the_one_that_is_woken,
        waiting::two_tasks_await_their_own_transfers,
        waiting::a_task_that_was_woken_by_mistake_is_woken_again,
        waiting::no_copy_starts_before_the_event_that_it_is_to_come_after,
        waiting::work_behind_a_fence_starts_only_when_the_tree_has_landed,
        waiting::transfers_behind_an_event_that_does_not_fire_hold_up_no_others,
        waiting::who_does_not_wait_is_not_held_up_by_what_the_driver_stages_behind_an_event,
        waiting::what_fits_half_of_the_slots_is_read_ahead_of_its_event,
        waiting::a_stream_of_another_machine_can_not_be_fenced,
    }
];

fn main() -> ExitCode {
    harness::run(TESTS)
}

pub(crate) const SLOT: usize = 4096;

pub(crate) fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

pub(crate) fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let host = tensor.to(&Device::host()).unwrap();
    host.as_bytes().unwrap().to_vec()
}

/// A tensor over foreign memory, and a way to see whether that memory is still kept.
pub(crate) fn foreign(bytes: usize) -> (Tensor, Weak<Vec<u8>>) {
    let owner = Arc::new(pattern(bytes, 5));
    let kept = Arc::downgrade(&owner);
    let ptr = NonNull::new(owner.as_ptr().cast_mut()).unwrap();
    let layout = Layout::contiguous(&[bytes]).unwrap();
    let owner: Arc<dyn Any + Send + Sync> = owner;
    // SAFETY: the vector is as long, lives in the owner, and nobody writes it.
    let tensor = unsafe { Tensor::from_raw_parts(ptr, bytes, DType::U8, layout, None, owner) };
    (tensor.unwrap(), kept)
}
