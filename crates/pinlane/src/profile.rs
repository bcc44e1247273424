//! What this machine can do, as the planner sees it: rates, latencies, and the sizes that follow from them.
//!
//! A profile is *assumed* from the hardware alone until it is *measured* (`measure`), which takes a few seconds and is
//! then stored for each device of a user (`store`). [`Profile::known`] gives the better of what there is; devices that
//! are opened by name use it.

mod document;
mod elsewhere;
mod error;
mod known;
pub(crate) mod measure;
mod quantity;
mod seconds;
mod store;

use std::time::Duration;

use pinlane_driver::{Properties, sync::available_parallelism};
use serde::{Deserialize, Serialize};

use crate::Direction;

pub use elsewhere::ProfileElsewhere;
pub use error::ProfileError;
pub use known::{KnownProfile, ProfileOrigin};
pub use measure::{Figures, Measurement, MemcpyRate, Progress, Trial};
pub use quantity::{Amount, Quantity};
pub use store::ProfileStore;

/// Rates and latencies of one device and its host. Assumed from the hardware where nothing was measured.
///
/// Its JSON has one number for each field. A field that a stored profile lacks keeps its assumed value, so one that was
/// stored by an older version still serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Profile {
    /// The link in one direction, the slower if they differ, in bytes per second.
    pub link_bytes_per_second: f64,
    /// One thread copying between pageable and pinned memory, bytes per second.
    pub memcpy_bytes_per_second: f64,
    /// Large pageable tensors through slots to the device, by all lanes, bytes per second: what is left where they fill slots
    /// out of the memory that the link reads.
    pub staged_bytes_per_second: f64,
    /// The driver's own way of copying pageable memory to the device, bytes per second.
    pub plain_bytes_per_second: f64,
    /// The same for a tensor of up to `plain_bytes`, bytes per second: the driver's staging memory and the tensor are still in
    /// the processor's caches.
    pub small_plain_bytes_per_second: f64,
    /// The caller's own thread filling a slot or emptying one, which stays in the processor's caches, bytes per second.
    pub cached_bytes_per_second: f64,
    /// What a kernel gathers over the link, or scatters, bytes per second.
    pub gathered_bytes_per_second: f64,
    /// One tensor by the short way, for a caller who waits, without its bytes: room on the device, the driver's call, and the
    /// wait for it.
    #[serde(rename = "short_copy_seconds", with = "seconds")]
    pub short_copy: Duration,
    /// What a copy to the device takes beyond that and its bytes, once it is longer than a few kilobytes: the driver sends less
    /// along with the call.
    #[serde(rename = "copy_start_seconds", with = "seconds")]
    pub copy_start: Duration,
    /// What a transfer takes longer in which a kernel gathers.
    #[serde(rename = "gather_start_seconds", with = "seconds")]
    pub gather_start: Duration,
    /// What lanes take longer than their rate with many megabytes to the device: until all are at work.
    #[serde(rename = "ramp_to_device_seconds", with = "seconds")]
    pub ramp_to_device: Duration,
    /// The same to the host: until all are at work, and until the last has emptied its slots.
    #[serde(rename = "ramp_to_host_seconds", with = "seconds")]
    pub ramp_to_host: Duration,
    /// What one more copy in a transfer costs, without its bytes and its tensors.
    #[serde(rename = "copy_call_seconds", with = "seconds")]
    pub copy_call: Duration,
    /// A transfer of the engine's, the long way, without its bytes and tensors: from the call that plans and enqueues it to
    /// seeing its last event.
    #[serde(rename = "latency_seconds", with = "seconds")]
    pub latency: Duration,
    /// What one more tensor in a transfer of up to a thousand to the device costs, without its bytes: it is planned, copied with
    /// others, and its result is made.
    #[serde(rename = "tensor_to_device_seconds", with = "seconds")]
    pub tensor_to_device: Duration,
    /// The same to the host, where it also has its entry in the table of the kernel that gathers.
    #[serde(rename = "tensor_to_host_seconds", with = "seconds")]
    pub tensor_to_host: Duration,
    /// What each costs more for every tenfold of a thousand tensors: the caches hold less and less of what there is to know of
    /// them.
    #[serde(rename = "tensor_tenfold_seconds", with = "seconds")]
    pub tensor_tenfold: Duration,
    /// Lanes to run at most that carry bytes to the device.
    pub lanes: usize,
    /// Lanes to run at most that carry bytes to the host, into fresh memory, whose pages the kernel makes as they are
    /// written. Into memory that exists half of them do: they read what the link has just left in the caches.
    pub lanes_to_host: usize,
    /// Lanes to run at most that carry bytes from files to the device: the kernel copies slower out of its page cache than
    /// lanes do out of memory, and a disk is kept busy by as many reads at once.
    pub lanes_from_files: usize,
    /// Slots for each lane.
    pub slots_per_lane: usize,
    /// Bytes of a slot: the longest chunk.
    pub slot_bytes: usize,
    /// Up to this many bytes the caller's own thread does the work: a hand-off would cost more than it saves.
    pub inline_bytes: usize,
    /// Up to this many bytes one pageable tensor for the device is left to the driver.
    pub plain_bytes: usize,
    /// Up to this many bytes, slots are filled with stores that go past the caches. Beyond, the slots themselves stay in the
    /// caches, and the link reads them from there.
    pub streamed_up_to: u64,
    /// From this many bytes on, results on the host are written with stores that go past the caches: they would not stay
    /// there for whoever reads them.
    pub streamed_from: u64,
    /// How long who waits for copies spins before it sleeps. Waking up is noticed to take 40 to 120 microseconds.
    #[serde(rename = "patience_seconds", with = "seconds")]
    pub patience: Duration,
    /// From this many pieces on that lie apart, or half as many to the host, a kernel moves them where the driver has one: it
    /// takes one launch, where copies take a call each and a turn of the copy engine.
    pub gathered_runs: usize,
    /// The length of those pieces up to which the kernel is the faster, in bytes; their mean in a slot. It needs the
    /// device's compute, which long copies do without.
    pub gathered_run_bytes: usize,
}

/// The rate assumed for a link that the driver knows nothing of: PCIe Gen4 x16 in practice.
const ASSUMED_LINK: f64 = 25e9;
/// One core's memcpy out of cache on current servers. The driver's own way is one such memcpy.
const ASSUMED_MEMCPY: f64 = 10e9;
/// What calls and tensors cost on the processors of current servers, by the grid of `pinlane bench` on an H200 with 16 cores.
const ASSUMED_SHORT_COPY: Duration = Duration::from_nanos(6_500);
const ASSUMED_COPY_START: Duration = Duration::from_nanos(2_500);
const ASSUMED_LATENCY: Duration = Duration::from_nanos(7_700);
const ASSUMED_GATHER_START: Duration = Duration::from_micros(5);
const ASSUMED_TENSOR_TO_DEVICE: Duration = Duration::from_nanos(130);
const ASSUMED_TENSOR_TO_HOST: Duration = Duration::from_nanos(120);
const ASSUMED_TENSOR_TENFOLD: Duration = Duration::from_nanos(30);
/// What lanes take until all are at work, by the same. It is nothing on a simulated device, whose copies are the processor's own and
/// wait for no lane.
const ASSUMED_RAMP_TO_DEVICE: Duration = Duration::from_micros(120);
const ASSUMED_RAMP_TO_HOST: Duration = Duration::from_micros(500);
/// What a kernel has of the link, by the same.
const ASSUMED_GATHERED: f64 = 0.88;
/// One pageable tensor of 256 KiB by the driver alone, by the same.
const ASSUMED_SMALL_PLAIN: f64 = 11e9;
/// One thread's memcpy within the caches, by the same.
const ASSUMED_CACHED: f64 = 16e9;
/// What is left of the link where slots are filled meanwhile: 0.87 on an H200, 0.80 on an H100 (`h2d-pageable-1gib`).
const ASSUMED_STAGED: f64 = 0.85;
/// What a lane fills slots with while others share the memory bus with it.
const FILLING_AMONG_OTHERS: f64 = 7e9;
/// What a lane empties slots into fresh memory with.
const EMPTYING_AMONG_OTHERS: f64 = 5e9;
/// What a lane reads from the page cache with.
const READING_AMONG_OTHERS: f64 = 4.6e9;
/// A disk wants so many reads at once, however few cores there are: lanes that wait for it take none.
const READS_AT_ONCE: usize = 4;

/// The copies of a simulated device are the processor's own: they should find a slot still in its caches. On two cores this
/// moves 256 MiB half as fast again as slots of 4 MiB do.
const SLOT_IN_CACHE: usize = 512 << 10;

/// So many tensors are known in the nearest caches.
const FEW_TENSORS: f64 = 1e3;
/// So many bytes wake most lanes.
const RAMPED: f64 = (4 << 20) as f64;
/// Of so many bytes half of what the start of a copy costs is paid: about as many as drivers send along with the call.
const SENT_ALONG: f64 = (4 << 10) as f64;

/// From 0 for nothing to 1 for very much; a half for `half`.
fn saturating(amount: f64, half: f64) -> f64 {
    amount / (amount + half)
}

/// A part of `whole`, from 0 to 1. As a float the longest durations are rounded up to what is none any more.
fn part_of(whole: Duration, part: f64) -> Duration {
    Duration::try_from_secs_f64(part * whole.as_secs_f64()).unwrap_or(whole)
}

/// What a slot's size must be a multiple of. Shorter chunks spend their time on calls.
pub(crate) const SLOT_GRANULE: usize = 4 << 10;

impl Profile {
    /// What the hardware suggests, before anything was measured.
    ///
    /// Lanes: as many cores as it takes to fill the link with memcpy, no more than the host has, at least one.
    #[must_use]
    pub fn assumed(properties: &Properties) -> Self {
        Self::assumed_with(properties, cores())
    }

    fn assumed_with(properties: &Properties, cores: usize) -> Self {
        let link = properties.link.bytes_per_second.unwrap_or(ASSUMED_LINK);
        let to_fill_the_link = |rate: f64| ((link / rate).ceil() as usize).clamp(1, cores.max(1));
        let lanes = to_fill_the_link(FILLING_AMONG_OTHERS);
        Self {
            link_bytes_per_second: link,
            memcpy_bytes_per_second: ASSUMED_MEMCPY,
            staged_bytes_per_second: (ASSUMED_STAGED * link).min(lanes as f64 * FILLING_AMONG_OTHERS),
            plain_bytes_per_second: ASSUMED_MEMCPY.min(link),
            small_plain_bytes_per_second: ASSUMED_SMALL_PLAIN.min(link),
            cached_bytes_per_second: ASSUMED_CACHED,
            gathered_bytes_per_second: ASSUMED_GATHERED * link,
            short_copy: ASSUMED_SHORT_COPY,
            copy_start: ASSUMED_COPY_START,
            gather_start: ASSUMED_GATHER_START,
            ramp_to_device: if properties.simulated {
                Duration::ZERO
            } else {
                ASSUMED_RAMP_TO_DEVICE
            },
            ramp_to_host: if properties.simulated {
                Duration::ZERO
            } else {
                ASSUMED_RAMP_TO_HOST
            },
            copy_call: Duration::from_micros(2),
            latency: ASSUMED_LATENCY,
            tensor_to_device: ASSUMED_TENSOR_TO_DEVICE,
            tensor_to_host: ASSUMED_TENSOR_TO_HOST,
            tensor_tenfold: ASSUMED_TENSOR_TENFOLD,
            lanes,
            lanes_to_host: to_fill_the_link(EMPTYING_AMONG_OTHERS),
            lanes_from_files: to_fill_the_link(READING_AMONG_OTHERS).max(READS_AT_ONCE),
            slots_per_lane: 3,
            slot_bytes: match properties.copy_engines {
                _ if properties.simulated => SLOT_IN_CACHE,
                // The directions take turns on it: each waits half as long for its own, which costs 2 to 3% of the link.
                ..=1 => 2 << 20,
                _ => 4 << 20,
            },
            inline_bytes: if properties.simulated { 1 << 20 } else { 512 << 10 },
            plain_bytes: if properties.simulated { 4 << 10 } else { 512 << 10 },
            streamed_up_to: if properties.simulated { 0 } else { 64 << 20 },
            streamed_from: if properties.simulated { u64::MAX } else { 32 << 20 },
            patience: if properties.simulated {
                Duration::ZERO
            } else {
                Duration::from_millis(8)
            },
            gathered_runs: 8,
            gathered_run_bytes: 64 << 10,
        }
    }

    /// Below this many bytes a pinned tensor is cheaper to pack with others than to copy by itself.
    #[must_use]
    pub fn direct_bytes(&self) -> u64 {
        (self.copy_call.as_secs_f64() * self.memcpy_bytes_per_second) as u64
    }

    /// The rate of the driver's own way with a pageable tensor of so many bytes, in bytes per second.
    #[must_use]
    pub fn plain_rate(&self, bytes: usize) -> f64 {
        if bytes <= self.plain_bytes {
            self.small_plain_bytes_per_second
        } else {
            self.plain_bytes_per_second
        }
    }

    /// What lanes take longer than their rate with so many bytes: all of the ramp where there are hundreds of megabytes, a
    /// third where there are four, and next to nothing of few, which few lanes carry.
    #[must_use]
    pub fn ramp(&self, direction: Direction, bytes: u64) -> Duration {
        let ramp = match direction {
            Direction::ToDevice | Direction::OnDevice => self.ramp_to_device,
            Direction::ToHost => self.ramp_to_host,
        };
        part_of(ramp, saturating(bytes as f64, RAMPED).powf(1.5))
    }

    /// Seconds that so many tensors cost, without their bytes.
    pub(crate) fn of_tensors(&self, direction: Direction, tensors: usize) -> f64 {
        let one = match direction {
            Direction::ToDevice | Direction::OnDevice => self.tensor_to_device,
            Direction::ToHost => self.tensor_to_host,
        };
        let count = tensors as f64;
        let tenfolds = (count / FEW_TENSORS).log10().max(0.0);
        count * (one.as_secs_f64() + tenfolds * self.tensor_tenfold.as_secs_f64())
    }

    /// What a copy to the device of so many bytes takes beyond the call and the link's rate.
    pub(crate) fn start_of(&self, bytes: f64) -> Duration {
        part_of(self.copy_start, saturating(bytes, SENT_ALONG))
    }

    /// Lanes to run at most in a direction.
    pub(crate) fn lanes_for(&self, direction: Direction) -> usize {
        match direction {
            Direction::ToDevice | Direction::OnDevice => self.lanes,
            Direction::ToHost => self.lanes_to_host,
        }
    }

    /// From how many pieces on a kernel moves them. A copy to the host takes twice as long as one to the device.
    pub(crate) fn fewest_gathered(&self, direction: Direction) -> usize {
        match direction {
            Direction::ToHost => self.gathered_runs.div_ceil(2),
            Direction::ToDevice | Direction::OnDevice => self.gathered_runs,
        }
    }

    /// What an engine could not run with.
    fn defect(&self) -> Option<&'static str> {
        let rates = [
            self.link_bytes_per_second,
            self.memcpy_bytes_per_second,
            self.staged_bytes_per_second,
            self.plain_bytes_per_second,
            self.small_plain_bytes_per_second,
            self.cached_bytes_per_second,
            self.gathered_bytes_per_second,
        ];
        if rates.iter().any(|rate| !rate.is_finite() || *rate <= 0.0) {
            return Some("a rate is not above zero");
        }
        if [
            self.lanes,
            self.lanes_to_host,
            self.lanes_from_files,
            self.slots_per_lane,
        ]
        .contains(&0)
        {
            return Some("there is not one lane with a slot");
        }
        if self.slot_bytes == 0 || !self.slot_bytes.is_multiple_of(SLOT_GRANULE) {
            return Some("the size of a slot is not a multiple of 4 KiB");
        }
        None
    }
}

/// The cores that this process may use.
fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use pinlane_driver::{Backend, DeviceId, Link};

    use super::*;

    pub(super) fn properties(link: Link) -> Properties {
        Properties {
            id: DeviceId {
                backend: Backend::Cuda,
                ordinal: 0,
            },
            group: 0,
            name: "NVIDIA H200".to_owned(),
            memory_bytes: 141 << 30,
            copy_engines: 3,
            link,
            numa_node: None,
            pci_address: None,
            library: None,
            simulated: false,
        }
    }

    #[test]
    fn lanes_are_assumed_to_fill_the_link_as_far_as_there_are_cores() {
        let gen5 = properties(Link::new("PCIe Gen5 x16", Some(55e9)));
        let gen3 = properties(Link::new("PCIe Gen3 x16", Some(12.8e9)));
        assert_eq!(Profile::assumed_with(&gen5, 64).lanes, 8);
        assert_eq!(Profile::assumed_with(&gen5, 4).lanes, 4);
        assert_eq!(Profile::assumed_with(&gen3, 64).lanes, 2);
        assert_eq!(Profile::assumed_with(&gen3, 0).lanes, 1);
    }

    #[test]
    fn slots_are_shorter_where_both_directions_share_one_copy_engine() {
        for (simulated, copy_engines, slot_bytes) in [
            (false, 1, 2 << 20),
            (false, 2, 4 << 20),
            (false, 3, 4 << 20),
            (true, 1, SLOT_IN_CACHE),
            (true, 3, SLOT_IN_CACHE),
        ] {
            let properties = Properties {
                simulated,
                copy_engines,
                ..properties(Link::new("PCIe Gen3 x16", Some(12.8e9)))
            };
            let profile = Profile::assumed_with(&properties, 8);
            assert_eq!(profile.slot_bytes, slot_bytes, "{copy_engines} engines");
        }
    }

    #[test]
    fn the_link_is_the_drivers_and_only_where_it_knows_none_a_guess() {
        let known = Profile::assumed(&properties(Link::new("PCIe Gen3 x8", Some(6.5e9))));
        assert_eq!(known.link_bytes_per_second, 6.5e9);
        assert_eq!(
            known.plain_bytes_per_second, 6.5e9,
            "nothing is faster than the link"
        );
        let unknown = Profile::assumed(&properties(Link::new("PCIe", None)));
        assert_eq!(unknown.link_bytes_per_second, ASSUMED_LINK);
    }

    #[test]
    fn what_is_assumed_is_something_to_run_with() {
        for link in [None, Some(1.0), Some(1e12)] {
            assert_eq!(
                Profile::assumed(&properties(Link::new("any", link))).defect(),
                None
            );
        }
        let mut profile = Profile::assumed(&properties(Link::new("any", None)));
        profile.memcpy_bytes_per_second = f64::NAN;
        assert!(profile.defect().is_some());
    }
}
