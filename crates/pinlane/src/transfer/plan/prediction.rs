//! How long a plan should take, by the profile. With what moves at once counted once:
//!
//! | part | time |
//! | --- | --- |
//! | the way | `latency` for the long way; `short_copy` for the short one; `gather_start` more where a kernel gathers |
//! | the start | of a copy to the device: the more of `copy_start` the less of its bytes goes along with the call, by the mean chunk |
//! | the tensors | each: `tensor_to_device` or `tensor_to_host`, and `tensor_tenfold` more for each tenfold of a thousand; the short way's one is in its `short_copy`. Half of it is for its result, which is made while the bytes move: the shorter of the two counts for nothing, up to 10,000 tensors. On the caller's own thread that is the link's part alone |
//! | the ends | the first chunk is filled, or the last one emptied, while the link waits: by one thread's memcpy, or within the caches where that is the caller's own; not where the result stays in its slot |
//! | the middle | the longer of two: the link with the calls, each `copy_call`, since its engine rests between copies; and filling the other chunks by as many lanes as there are for them, no faster to the device than `staged_bytes_per_second` |
//! | the lanes | `ramp_to_device` or `ramp_to_host`, the more of it the more bytes there are; to the host it is the calls of copies that lanes wait for, of which a kernel needs none |
//! | the driver's own way | its bytes by `small_plain_bytes_per_second` up to `plain_bytes` a tensor, else by `plain_bytes_per_second`; to the host each call waits as long as a short copy does |
//!
//! What a kernel carries goes by `gathered_bytes_per_second`; the caller's own thread copies by `cached_bytes_per_second`, a lane by `memcpy_bytes_per_second`.
//! The times are those of a program that makes the same transfer again and again: after others the caches have to be filled first. Of
//! pages that the kernel makes for fresh results, and of other transfers, no profile knows.

use std::time::Duration;

use super::{Chunk, Direction, Plan};
use crate::{Profile, Route};

/// The part of what a tensor costs that is for its result.
const RESULTS: f64 = 0.5;
/// Of more tensors, who makes their results and what moves their bytes wait for the same memory.
const MADE_MEANWHILE: usize = 10_000;

/// Seconds that the bytes and the calls take.
struct Moving {
    all: f64,
    /// In which the caller has nothing to do with them.
    unattended: f64,
}

impl Plan {
    /// How long plans should take that are carried out side by side, for a caller who then waits for all: the longest of their
    /// ways is paid once.
    #[must_use]
    pub fn predicted_together(plans: &[Self]) -> Duration {
        let way = plans.iter().map(|plan| plan.way).max().unwrap_or_default();
        let beyond = plans.iter().map(|plan| plan.predicted.saturating_sub(plan.way));
        beyond.fold(way, Duration::saturating_add)
    }

    /// Foresees how long the plan should take.
    pub(super) fn predict(&mut self, profile: &Profile) {
        if self.chunks.is_empty() {
            return;
        }
        self.way = if self.short {
            profile.short_copy
        } else {
            profile.latency
        };
        self.predicted = self.way.saturating_add(self.beyond_the_way(profile));
    }

    /// What it takes beyond the way.
    fn beyond_the_way(&self, profile: &Profile) -> Duration {
        let of_tensors = |tensors| match self.short {
            true => 0.0,
            false => profile.of_tensors(self.direction, tensors),
        };
        let tensors = of_tensors(self.leaves);
        let meanwhile = RESULTS * of_tensors(self.leaves.min(MADE_MEANWHILE));
        let kernel = if self.chunks.iter().any(|chunk| self.is_by_kernel(chunk)) {
            profile.gather_start
        } else {
            Duration::ZERO
        };
        let start = match self.direction {
            Direction::ToDevice => profile.start_of(self.bytes as f64 / self.chunks.len() as f64),
            Direction::ToHost | Direction::OnDevice => Duration::ZERO,
        };
        // A rate next to nothing makes it longer than a duration can be, and so do a profile's times together.
        let Moving { all, unattended } = self.moving(profile);
        let seconds = tensors + all - meanwhile.min(unattended);
        let rest = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        rest.saturating_add(kernel).saturating_add(start)
    }

    fn moving(&self, profile: &Profile) -> Moving {
        let (mut slotted, mut ramped, mut alone, mut gathered) = (0, 0, 0, 0);
        let (mut plain, mut left_to_the_driver, mut blocked) = (0, 0.0, 0);
        for chunk in &self.chunks {
            if self.is_by_kernel(chunk) {
                gathered += chunk.bytes as u64;
            }
            if self.stays {
                // Landed where it is read: nobody fills or empties it.
                continue;
            }
            if chunk.is_staged() {
                slotted += chunk.bytes;
                if self.direction != Direction::ToHost || !self.is_by_kernel(chunk) {
                    ramped += chunk.bytes;
                }
                alone = match self.direction {
                    Direction::ToHost => chunk.bytes,
                    _ if alone > 0 => alone,
                    _ => chunk.bytes,
                };
            } else if chunk.route == Route::Plain {
                plain += chunk.bytes as u64;
                let segments = self.segments(chunk);
                blocked += segments.len();
                for segment in segments {
                    left_to_the_driver += segment.bytes as f64 / profile.plain_rate(segment.bytes);
                }
            }
        }
        let calls: usize = self.chunks.iter().map(|chunk| self.calls(chunk)).sum();
        // The first one is part of the way.
        let calls = calls.saturating_sub(1) as f64 * profile.copy_call.as_secs_f64();
        let link = (self.bytes - plain - gathered) as f64 / profile.link_bytes_per_second
            + gathered as f64 / profile.gathered_bytes_per_second;
        let (one, together, ramp) = if self.inline {
            let one = profile.cached_bytes_per_second;
            (one, one, 0.0)
        } else {
            let one = profile.memcpy_bytes_per_second;
            let all = one * self.pace.lanes as f64;
            let all = match self.direction {
                Direction::ToHost => all,
                Direction::ToDevice | Direction::OnDevice => all.min(profile.staged_bytes_per_second),
            };
            let ramp = if self.pace.lanes > 1 {
                profile.ramp(self.direction, ramped as u64).as_secs_f64()
            } else {
                0.0
            };
            (one, all, ramp)
        };
        let fill = (slotted - alone) as f64 / together;
        let ends = alone as f64 / one;
        let waits = match self.direction {
            Direction::ToHost => blocked as f64 * profile.short_copy.as_secs_f64(),
            Direction::ToDevice | Direction::OnDevice => 0.0,
        };
        let all = ends + (link + calls).max(fill) + ramp + left_to_the_driver + waits;
        Moving {
            all,
            unattended: if self.inline { link } else { all },
        }
    }

    /// Whether a kernel moves a chunk's pieces.
    fn is_by_kernel(&self, chunk: &Chunk) -> bool {
        chunk.table_offset.is_some()
    }

    /// How many pieces of work the device is given for a chunk.
    fn calls(&self, chunk: &Chunk) -> usize {
        match chunk.route {
            Route::Gathered => 1,
            Route::Staged | Route::Packed => self.runs(chunk).len(),
            Route::Direct | Route::Plain => self.segments(chunk).len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::sim::{DeviceConfig, Machine};

    use super::*;
    use crate::{Device, DeviceOptions, HostEnd, Workload};

    /// A device whose profile's figures are easy to add up.
    fn device() -> Device {
        let config = DeviceConfig {
            memory_bytes: 2 << 30,
            ..DeviceConfig::default()
        };
        let driver = Machine::new(config).device(0).unwrap();
        let profile = Profile {
            link_bytes_per_second: 10e9,
            memcpy_bytes_per_second: 5e9,
            staged_bytes_per_second: 8e9,
            plain_bytes_per_second: 2e9,
            small_plain_bytes_per_second: 4e9,
            cached_bytes_per_second: 8e9,
            gathered_bytes_per_second: 5e9,
            short_copy: Duration::from_micros(5),
            copy_start: Duration::from_micros(2),
            gather_start: Duration::from_micros(3),
            ramp_to_device: Duration::from_micros(80),
            ramp_to_host: Duration::from_micros(160),
            latency: Duration::from_micros(20),
            copy_call: Duration::from_micros(1),
            tensor_to_device: Duration::from_nanos(100),
            tensor_to_host: Duration::from_nanos(200),
            tensor_tenfold: Duration::from_nanos(50),
            plain_bytes: 1 << 20,
            inline_bytes: 512 << 10,
            slot_bytes: 4 << 20,
            lanes: 4,
            ..Profile::assumed(driver.properties())
        };
        let options = DeviceOptions {
            profile: Some(profile),
            ..DeviceOptions::default()
        };
        Device::with_options(driver, &options).unwrap()
    }

    fn predicted(
        direction: Direction,
        count: usize,
        bytes: u64,
        memory: HostEnd,
        route: Option<Route>,
    ) -> Duration {
        let workload = Workload::new(direction).tensors(count, bytes, memory).unwrap();
        workload.plan(&device(), route).unwrap().predicted()
    }

    /// What is foreseen of a plan by another profile.
    fn predict(plan: &Plan, profile: &Profile) -> Duration {
        let mut plan = plan.clone();
        plan.predict(profile);
        plan.predicted
    }

    #[test]
    fn a_prediction_is_the_sum_of_its_parts() {
        use Direction::{ToDevice, ToHost};
        use HostEnd::{Pageable, Pinned};
        use Route::{Direct, Gathered, Plain, Staged};
        // Of a copy to the device.
        let start = |bytes: f64| 2.0 * bytes / (bytes + 4096.0);
        for (direction, count, bytes, memory, route, microseconds, parts) in [
            (ToDevice, 0, 1, Pageable, None, 0.0, "nothing"),
            (
                ToDevice,
                1,
                4000,
                Pageable,
                None,
                5.0 + start(4000.0) + 1.0,
                "the short way, the driver's rate",
            ),
            (
                ToDevice,
                1,
                10_000,
                Pinned,
                None,
                5.0 + start(10_000.0) + 1.0,
                "the short way, the link",
            ),
            (
                ToHost,
                1,
                10_000,
                Pageable,
                None,
                5.0 + 1.25 + 1.0,
                "the short way, out of a slot",
            ),
            (
                ToHost,
                1,
                10_000,
                Pinned,
                None,
                5.0 + 1.0,
                "the short way, into pinned memory",
            ),
            (
                ToDevice,
                1,
                4000,
                Pageable,
                Some(Staged),
                20.0 + 0.1 + start(4000.0) + 0.5 + 0.4 - 0.05,
                "one chunk",
            ),
            (
                ToDevice,
                1,
                2_000_000,
                Pageable,
                Some(Plain),
                20.0 + 0.1 + start(2e6) + 1000.0,
                "the driver's slow rate",
            ),
            (
                ToDevice,
                1000,
                4,
                Pageable,
                None,
                20.0 + 100.0 + start(4000.0) + 0.5,
                "the tensors, one chunk, whose results take longer than the link",
            ),
            (
                ToHost,
                1000,
                4,
                Pageable,
                None,
                20.0 + 200.0 + 0.5,
                "the same, emptied",
            ),
            (
                ToHost,
                1000,
                400,
                Pageable,
                None,
                20.0 + 200.0,
                "it stays where it lands",
            ),
            (
                ToHost,
                100_000,
                4,
                Pinned,
                Some(Gathered),
                20.0 + 20_000.0 + 10_000.0 + 3.0 + 1.0,
                "more tensors than the caches know",
            ),
            (
                ToDevice,
                11,
                4,
                Pinned,
                Some(Direct),
                20.0 + 1.1 + start(44.0) + 10.0,
                "calls after the first",
            ),
            (
                ToDevice,
                10,
                100_000,
                Pinned,
                Some(Direct),
                20.0 + 1.0 + start(1e6) + 100.0 + 9.0 - 0.5,
                "the engine rests between copies",
            ),
            (
                ToHost,
                10,
                1000,
                Pageable,
                Some(Plain),
                20.0 + 2.0 + 9.0 + 50.0 + 2.5,
                "each waits",
            ),
            (
                ToDevice,
                100,
                5000,
                Pinned,
                Some(Gathered),
                20.0 + 10.0 + 3.0 + start(500_000.0) + 100.0 - 5.0,
                "a kernel, its rate, and results made meanwhile",
            ),
        ] {
            let found = predicted(direction, count, bytes, memory, route).as_secs_f64() * 1e6;
            assert!(
                (found - microseconds).abs() < 0.01,
                "{parts}: {count} x {bytes} {direction}: {found} instead of {microseconds}"
            );
        }
    }

    #[test]
    fn plans_side_by_side_pay_the_way_once() {
        let plan = |count, bytes| {
            let workload = Workload::new(Direction::ToHost).tensors(count, bytes, HostEnd::Pinned);
            workload.unwrap().plan(&device(), None).unwrap()
        };
        let (first, second, nothing) = (plan(10, 1000), plan(20, 2000), plan(0, 1));
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let sum = micros(first.predicted()) + micros(second.predicted());
        let together = |plans: &[Plan]| micros(Plan::predicted_together(plans));
        let all = together(&[nothing.clone(), first.clone(), second, nothing.clone()]);
        assert!((all - (sum - 20.0)).abs() < 1e-6, "{all} of {sum}");
        let short = plan(1, 1000);
        assert!(short.is_short());
        let expected = micros(short.predicted()) - 5.0 + micros(first.predicted());
        for plans in [[short.clone(), first.clone()], [first.clone(), short]] {
            assert!((together(&plans) - expected).abs() < 1e-6);
        }
        assert_eq!(together(std::slice::from_ref(&first)), micros(first.predicted()));
        assert_eq!((together(&[nothing]), together(&[])), (0.0, 0.0));
    }

    #[test]
    fn large_pageable_tensors_go_as_fast_as_lanes_and_link_do_together_and_others_as_fast_as_the_link() {
        use Direction::{ToDevice, ToHost};
        let rate = |direction, memory| {
            let bytes = 1_u64 << 30;
            bytes as f64 / predicted(direction, 1, bytes, memory, None).as_secs_f64() / 1e9
        };
        for (direction, memory, expected) in [
            (ToDevice, HostEnd::Pageable, 8.0),
            (ToDevice, HostEnd::Pinned, 10.0),
            (ToHost, HostEnd::Pinned, 10.0),
        ] {
            let found = rate(direction, memory);
            assert!(
                (found / expected - 1.0).abs() < 0.01,
                "{direction} {memory:?}: {found} GB/s"
            );
        }
    }

    #[test]
    fn what_the_driver_sends_along_with_a_call_counts_for_copies_to_the_device_only() {
        let profile = device().profile().unwrap().clone();
        let at_once = Profile {
            copy_start: Duration::ZERO,
            ..profile.clone()
        };
        for (direction, counts) in [
            (Direction::ToDevice, true),
            (Direction::ToHost, false),
            (Direction::OnDevice, false),
        ] {
            let workload = Workload::new(direction).tensors(3, 1 << 20, HostEnd::Pinned);
            let plan = workload.unwrap().plan(&device(), None).unwrap();
            let added = predict(&plan, &profile) - predict(&plan, &at_once);
            assert_eq!(!added.is_zero(), counts, "{direction}: {added:?}");
        }
    }

    #[test]
    fn times_that_are_longer_than_a_duration_can_be_are_the_longest_there_is() {
        let longest = Profile {
            short_copy: Duration::MAX,
            copy_start: Duration::MAX,
            gather_start: Duration::MAX,
            ramp_to_device: Duration::MAX,
            ramp_to_host: Duration::MAX,
            copy_call: Duration::MAX,
            latency: Duration::MAX,
            tensor_to_device: Duration::MAX,
            tensor_to_host: Duration::MAX,
            tensor_tenfold: Duration::MAX,
            ..device().profile().unwrap().clone()
        };
        for direction in [Direction::ToDevice, Direction::ToHost] {
            for (count, bytes, memory) in [
                (1, 4000, HostEnd::Pageable),
                (1000, 5000, HostEnd::Pinned),
                (1, 1 << 30, HostEnd::Pageable),
            ] {
                let workload = Workload::new(direction).tensors(count, bytes, memory);
                let plan = workload.unwrap().plan(&device(), None).unwrap();
                assert_eq!(predict(&plan, &longest), Duration::MAX, "{direction}: {plan}");
            }
        }
        // Of a copy without end all of it is paid.
        assert_eq!(longest.start_of(1e30), Duration::MAX);
    }

    #[test]
    fn lanes_cost_the_more_the_more_bytes_they_have() {
        let profile = device().profile().unwrap().clone();
        for (direction, whole) in [(Direction::ToDevice, 80.0), (Direction::ToHost, 160.0)] {
            let part = |bytes| profile.ramp(direction, bytes).as_secs_f64() * 1e6 / whole;
            assert_eq!(part(0), 0.0);
            assert!((0.3..0.4).contains(&part(4 << 20)));
            assert!((0.99..1.0).contains(&part(1 << 30)));
        }
        let alone = Profile {
            ramp_to_device: Duration::ZERO,
            ..profile.clone()
        };
        let workload = Workload::new(Direction::ToDevice);
        let workload = workload.tensors(1, 16 << 20, HostEnd::Pageable).unwrap();
        let plan = workload.plan(&device(), None).unwrap();
        let added = predict(&plan, &profile) - predict(&plan, &alone);
        assert_eq!(added, profile.ramp(Direction::ToDevice, 16 << 20));
        let pinned = Workload::new(Direction::ToDevice).tensors(1, 16 << 20, HostEnd::Pinned);
        let plan = pinned.unwrap().plan(&device(), None).unwrap();
        assert_eq!(
            predict(&plan, &profile),
            predict(&plan, &alone),
            "no lane takes part"
        );
    }
}
