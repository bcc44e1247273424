//! How long a plan should take, by the profile. With what moves at once counted once:
//!
//! | part | time |
//! | --- | --- |
//! | the way | `latency` for the long way; `short_copy` for the short one |
//! | the tensors | each: `tensor_to_device` or `tensor_to_host`; the short way's one is in its `short_copy` |
//! | the ends | the first chunk is filled, or the last one emptied, while the link waits: by one thread's memcpy; not where the result stays in its slot |
//! | the middle | the longest of the link, of filling the other chunks by as many lanes as there are for them, no faster to the device than `staged_bytes_per_second`, and of the calls: each `copy_call` |
//! | the driver's own way | its bytes by `small_plain_bytes_per_second` up to `plain_bytes` a tensor, else by `plain_bytes_per_second`; to the host each call waits as long as a short copy does |
//!
//! Where lanes do the work, the caller's with the tensors goes on beside it, and the longer counts. Of pages that the
//! kernel makes for fresh results, and of other transfers, no profile knows.

use std::time::Duration;

use super::{Chunk, Direction, Plan};
use crate::{Profile, Route};

impl Plan {
    pub(super) fn predict(&self, profile: &Profile) -> Duration {
        if self.chunks.is_empty() {
            return Duration::ZERO;
        }
        let (fixed, per_tensor) = match (self.short, self.direction) {
            (true, _) => (profile.short_copy, Duration::ZERO),
            (false, Direction::ToHost) => (profile.latency, profile.tensor_to_host),
            (false, _) => (profile.latency, profile.tensor_to_device),
        };
        let tensors = self.leaves as f64 * per_tensor.as_secs_f64();
        let moving = self.moving(profile);
        let seconds = if self.inline {
            tensors + moving
        } else {
            tensors.max(moving)
        };
        // A rate next to nothing makes it longer than a duration can be.
        fixed.saturating_add(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// Seconds that the bytes and the calls take.
    fn moving(&self, profile: &Profile) -> f64 {
        let (mut slotted, mut alone) = (0, 0);
        let (mut plain, mut left_to_the_driver, mut blocked) = (0, 0.0, 0);
        for chunk in &self.chunks {
            if self.stays {
                // Landed where it is read: nobody fills or empties it.
                continue;
            }
            if chunk.is_staged() {
                slotted += chunk.bytes;
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
        let lanes = if self.inline { 1 } else { self.pace.lanes };
        let link = (self.bytes - plain) as f64 / profile.link_bytes_per_second;
        let lanes = profile.memcpy_bytes_per_second * lanes as f64;
        let together = match self.direction {
            Direction::ToHost => lanes,
            Direction::ToDevice | Direction::OnDevice => lanes.min(profile.staged_bytes_per_second),
        };
        let fill = (slotted - alone) as f64 / together;
        let ends = alone as f64 / profile.memcpy_bytes_per_second;
        let waits = match self.direction {
            Direction::ToHost => blocked as f64 * profile.short_copy.as_secs_f64(),
            Direction::ToDevice | Direction::OnDevice => 0.0,
        };
        ends + link.max(fill).max(calls) + left_to_the_driver + waits
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
            short_copy: Duration::from_micros(5),
            latency: Duration::from_micros(20),
            copy_call: Duration::from_micros(1),
            tensor_to_device: Duration::from_nanos(100),
            tensor_to_host: Duration::from_nanos(200),
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

    #[test]
    fn a_prediction_is_the_sum_of_its_parts() {
        use Direction::{ToDevice, ToHost};
        use HostEnd::{Pageable, Pinned};
        use Route::{Direct, Plain, Staged};
        for (direction, count, bytes, memory, route, microseconds, parts) in [
            (ToDevice, 0, 1, Pageable, None, 0.0, "nothing"),
            (
                ToDevice,
                1,
                4000,
                Pageable,
                None,
                5.0 + 1.0,
                "the short way, the driver's rate",
            ),
            (
                ToDevice,
                1,
                10_000,
                Pinned,
                None,
                5.0 + 1.0,
                "the short way, the link",
            ),
            (
                ToHost,
                1,
                10_000,
                Pageable,
                None,
                5.0 + 2.0 + 1.0,
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
                20.0 + 0.1 + 0.8 + 0.4,
                "one chunk",
            ),
            (
                ToDevice,
                1,
                2_000_000,
                Pageable,
                Some(Plain),
                20.0 + 0.1 + 1000.0,
                "the driver's slow rate",
            ),
            (
                ToDevice,
                1000,
                4,
                Pageable,
                None,
                20.0 + 100.0 + 0.8 + 0.4,
                "the tensors, one chunk",
            ),
            (
                ToHost,
                1000,
                4,
                Pageable,
                None,
                20.0 + 200.0 + 0.8 + 0.4,
                "the same, emptied",
            ),
            (
                ToHost,
                1000,
                400,
                Pageable,
                None,
                20.0 + 200.0 + 40.0,
                "it stays where it lands",
            ),
            (
                ToDevice,
                11,
                4,
                Pinned,
                Some(Direct),
                20.0 + 1.1 + 10.0,
                "calls after the first",
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
        ] {
            let found = predicted(direction, count, bytes, memory, route).as_secs_f64() * 1e6;
            assert!(
                (found - microseconds).abs() < 0.01,
                "{parts}: {count} x {bytes} {direction}: {found} instead of {microseconds}"
            );
        }
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
    fn what_a_caller_does_with_tensors_passes_while_lanes_move_them() {
        let of = |count, bytes| predicted(Direction::ToDevice, count, bytes, HostEnd::Pageable, None);
        // The bytes take 224 us for either, what the caller does 40 us or 160.
        let (few, many) = (of(400, 4096), of(1600, 1024));
        assert!(
            many.abs_diff(few) < Duration::from_micros(5),
            "{few:?} and {many:?}"
        );
        // The bytes take 0.6 ms, what the caller does 100.
        let tiny = of(1_000_000, 4);
        assert_eq!(tiny, Duration::from_micros(20) + Duration::from_millis(100));
    }
}
