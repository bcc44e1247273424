//! What every driver must do, as cases that run against any of them.
//!
//! A case checks bytes, never times, and needs nothing of a driver but the trait: one that lacks a feature gets
//! [`Verdict::Skipped`], with the reason. A driver's crate runs them all in its tests:
//!
//! ```
//! use pinlane_driver::{conformance::{Subject, run}, sim::{DeviceConfig, Machine}};
//!
//! let machine = Machine::new(DeviceConfig { memory_bytes: 256 << 20, ..DeviceConfig::default() });
//! let report = run(&Subject::new(machine.device(0)?));
//! assert!(report.failed().is_empty(), "{report}");
//! # Ok::<(), pinlane_driver::Error>(())
//! ```
//!
//! A driver that gets an order wrong may never finish a case: run them under a timeout.

mod allocations;
mod batches;
mod bytes;
mod conversions;
mod copies;
mod errors;
mod events;
mod order;
mod pageable;
mod pinning;
mod rig;
mod scattered;
mod streams;
mod threads;

use std::fmt;

use crate::{Driver, Error, ErrorKind, sync::Arc};

/// What the cases run against.
#[derive(Clone, Debug)]
pub struct Subject {
    driver: Arc<dyn Driver>,
    peer: Option<Arc<dyn Driver>>,
}

impl Subject {
    /// One device. It needs 128 MiB of free memory, and may be used by nobody else meanwhile.
    #[must_use]
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, peer: None }
    }

    /// Adds a second device of the same backend, for the cases that need two.
    #[must_use]
    pub fn with_peer(mut self, peer: Arc<dyn Driver>) -> Self {
        self.peer = Some(peer);
        self
    }
}

/// Why a case ended before its end.
#[derive(Debug)]
enum Stop {
    Failed(String),
    Skipped(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(format!("a call failed that should not: {error}"))
    }
}

/// How a case runs and ends.
type Outcome = Result<(), Stop>;

/// Takes `Unsupported` as a reason to skip the case.
fn if_supported<T>(result: crate::Result<T>) -> Result<T, Stop> {
    result.map_err(|error| match error.kind() {
        ErrorKind::Unsupported => Stop::Skipped(error.to_string()),
        _ => error.into(),
    })
}

/// Fails the case with `why` unless `holds`.
fn ensure(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Stop::Failed(why())) }
}

/// Fails the case unless `result` is an error of `kind`.
fn ensure_error<T>(result: crate::Result<T>, kind: ErrorKind, what: &str) -> Outcome {
    match result {
        Ok(_) => Err(Stop::Failed(format!(
            "{what} succeeded; it should fail with {kind:?}"
        ))),
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(Stop::Failed(format!(
            "{what} should fail with {kind:?}, and failed with {:?}: {error}",
            error.kind()
        ))),
    }
}

/// What a case found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The driver does what it must.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// It lacks what the case needs, and what that is.
    Skipped(String),
}

/// One thing that every driver must do.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    name: &'static str,
    check: fn(&Subject) -> Outcome,
}

impl Case {
    /// The case's name: its group, and a sentence about behaviour.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the case.
    #[must_use]
    pub fn run(&self, subject: &Subject) -> Verdict {
        match (self.check)(subject) {
            Ok(()) => Verdict::Passed,
            Err(Stop::Failed(why)) => Verdict::Failed(why),
            Err(Stop::Skipped(why)) => Verdict::Skipped(why),
        }
    }
}

macro_rules! cases {
    ($($group:ident::$check:ident,)*) => {
        &[$(Case {
            name: concat!(stringify!($group), "::", stringify!($check)),
            check: $group::$check,
        },)*]
    };
}

/// Every case.
#[must_use]
pub fn cases() -> &'static [Case] {
    cases![
        order::work_on_one_stream_runs_in_the_order_of_its_calls,
        order::a_stream_that_waits_for_an_event_starts_after_the_work_before_it,
        order::an_order_holds_along_a_chain_of_64_streams,
        order::a_wait_means_the_event_as_it_was_recorded_when_the_wait_was_called,
        order::a_wait_keeps_its_meaning_when_its_event_is_destroyed,
        order::two_streams_can_hand_work_back_and_forth,
        order::an_event_of_one_device_orders_work_on_another,
        events::an_event_that_was_never_recorded_counts_as_fired,
        events::an_event_that_was_synchronised_with_has_fired,
        events::synchronising_with_an_event_waits_for_the_work_before_it,
        events::recording_again_moves_the_event,
        events::a_thousand_events_fire,
        events::elapsed_times_add_up_in_the_order_of_the_work,
        events::elapsed_time_spans_a_busy_task,
        events::elapsed_time_of_events_that_can_not_tell_it_is_an_error,
        streams::synchronising_with_a_stream_waits_for_all_its_work,
        streams::sixty_four_streams_work_side_by_side,
        streams::work_on_a_destroyed_stream_still_runs,
        streams::an_adopted_stream_outlives_its_adopter,
        streams::an_idle_stream_synchronises_at_once,
        copies::pinned_bytes_of_any_size_survive_the_round_trip,
        copies::pageable_bytes_of_any_size_survive_the_round_trip,
        copies::copies_touch_only_their_range_at_any_offset,
        copies::zero_bytes_move_nothing,
        copies::bytes_move_within_a_device,
        copies::bytes_move_between_devices,
        copies::memset_fills_its_range_and_nothing_else,
        copies::both_directions_at_once_do_not_mix,
        pageable::a_source_is_free_to_change_when_the_call_returns,
        pageable::a_destination_is_filled_when_the_call_returns,
        pageable::staged_copies_keep_their_place_in_the_stream,
        batches::every_copy_of_a_batch_arrives,
        batches::an_empty_batch_and_empty_copies_are_fine,
        batches::a_batch_keeps_its_place_in_the_stream,
        batches::a_batch_may_go_both_ways_from_pinned_and_pageable_memory,
        scattered::the_verb_is_there_where_its_table_is,
        scattered::pieces_of_any_size_and_alignment_arrive_and_touch_nothing_else,
        scattered::five_thousand_pieces_arrive,
        scattered::pieces_move_within_a_device_beside_those_that_cross,
        scattered::nothing_and_empty_pieces_are_fine,
        scattered::pieces_keep_their_place_in_the_stream,
        scattered::what_a_kernel_can_not_reach_is_refused,
        conversions::every_format_becomes_every_other_bit_by_bit_as_on_the_host,
        conversions::elements_begin_anywhere_and_their_neighbours_stay,
        conversions::more_elements_than_a_device_has_threads_are_converted,
        conversions::a_conversion_keeps_its_place_in_the_stream,
        conversions::nothing_is_converted_where_there_are_no_elements,
        conversions::elements_that_are_not_aligned_are_refused,
        pinning::a_pinned_range_is_pinned_in_all_its_parts,
        pinning::pinning_a_range_leaves_its_neighbour_alone,
        pinning::memory_that_was_unpinned_can_be_copied_and_pinned_again,
        allocations::allocations_are_aligned_and_apart,
        allocations::memory_info_follows_an_allocation,
        allocations::trimming_gives_idle_memory_back_and_leaves_the_rest,
        allocations::an_empty_allocation_can_be_freed,
        allocations::too_much_memory_is_a_typed_error_and_the_driver_goes_on,
        errors::a_copy_that_does_not_touch_the_device_is_refused,
        errors::a_verb_that_is_not_supported_is_an_error,
        errors::a_refused_call_leaves_its_stream_working,
        threads::threads_with_streams_of_their_own_do_not_disturb_each_other,
        threads::threads_may_share_a_stream,
        threads::a_thread_can_wait_for_what_another_enqueues,
        threads::threads_allocate_and_pin_at_the_same_time,
    ]
}

/// What a run of all cases found. Prints one line for each case that did not pass, and a sum.
#[derive(Clone, Debug)]
pub struct Report {
    verdicts: Vec<(&'static str, Verdict)>,
}

impl Report {
    /// Every case's name and verdict.
    #[must_use]
    pub fn verdicts(&self) -> &[(&'static str, Verdict)] {
        &self.verdicts
    }

    /// The names of the cases that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.names(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    /// The names of the cases that were skipped.
    #[must_use]
    pub fn skipped(&self) -> Vec<&'static str> {
        self.names(|verdict| matches!(verdict, Verdict::Skipped(_)))
    }

    fn names(&self, wanted: impl Fn(&Verdict) -> bool) -> Vec<&'static str> {
        let found = self.verdicts.iter().filter(|(_, verdict)| wanted(verdict));
        found.map(|(name, _)| *name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, verdict) in &self.verdicts {
            match verdict {
                Verdict::Passed => {}
                Verdict::Failed(why) => writeln!(f, "failed   {name}: {why}")?,
                Verdict::Skipped(why) => writeln!(f, "skipped  {name}: {why}")?,
            }
        }
        let (failed, skipped) = (self.failed().len(), self.skipped().len());
        let passed = self.verdicts.len() - failed - skipped;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Runs every case, one after the other.
#[must_use]
pub fn run(subject: &Subject) -> Report {
    let verdicts = cases().iter().map(|case| (case.name(), case.run(subject)));
    Report {
        verdicts: verdicts.collect(),
    }
}
