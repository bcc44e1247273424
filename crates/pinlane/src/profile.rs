//! What this machine can do, as the planner sees it: rates, latencies, and the sizes that follow from them.

use std::time::Duration;

use pinlane_driver::{Properties, sync::available_parallelism};

/// Rates and latencies of one device and its host. Assumed from the hardware where nothing was measured.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// The link in one direction, bytes per second.
    pub link_bytes_per_second: f64,
    /// One thread copying between pageable and pinned memory, bytes per second.
    pub memcpy_bytes_per_second: f64,
    /// Host time to enqueue one copy.
    pub copy_call: Duration,
    /// From enqueueing a copy to seeing it done, without its bytes.
    pub latency: Duration,
    /// Lanes to run at most.
    pub lanes: usize,
    /// Slots for each lane.
    pub slots_per_lane: usize,
    /// Bytes of a slot: the longest chunk.
    pub slot_bytes: usize,
    /// Up to this many bytes the caller's own thread does the work: a hand-off would cost more than it saves.
    pub inline_bytes: usize,
    /// Up to this many bytes one pageable tensor is left to the driver.
    pub plain_bytes: usize,
    /// Up to this many bytes, slots are filled with stores that go past the caches. Beyond, the slots themselves stay in the
    /// caches, and the link reads them from there.
    pub streamed_up_to: u64,
    /// From this many bytes on, results on the host are written with stores that go past the caches: they would not stay
    /// there for whoever reads them.
    pub streamed_from: u64,
    /// How long who waits for copies spins before it sleeps. Waking up is noticed to take 40 to 120 microseconds.
    pub patience: Duration,
    /// From this many pieces on that lie apart on the device, a kernel moves a chunk where the driver has one: it takes
    /// one launch, and copies a call each, and a turn of the copy engine.
    pub gathered_runs: usize,
    /// The mean length of those pieces up to which the kernel is the faster, in bytes. It needs the device's compute, which
    /// long copies do without.
    pub gathered_run_bytes: usize,
}

/// The rate assumed for a link that the driver knows nothing of: PCIe Gen4 x16 in practice.
const ASSUMED_LINK: f64 = 25e9;
/// One core's memcpy out of cache on current servers.
const ASSUMED_MEMCPY: f64 = 10e9;

/// The copies of a simulated device are the processor's own: they should find a slot still in its caches. On two cores this
/// moves 256 MiB half as fast again as slots of 4 MiB do.
const SLOT_IN_CACHE: usize = 512 << 10;

impl Profile {
    /// What the hardware suggests, before anything was measured.
    ///
    /// Lanes: as many cores as it takes to fill the link with memcpy, no more than the host has, at least one.
    #[must_use]
    pub fn assumed(properties: &Properties) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let link = properties.link.bytes_per_second.unwrap_or(ASSUMED_LINK);
        // A memory bus shared by many copying threads gives each of them about half of what one alone gets.
        let to_fill_the_link = (link / (ASSUMED_MEMCPY / 2.0)).ceil() as usize;
        Self {
            link_bytes_per_second: link,
            memcpy_bytes_per_second: ASSUMED_MEMCPY,
            copy_call: Duration::from_micros(2),
            latency: Duration::from_micros(8),
            lanes: to_fill_the_link.clamp(1, cores.max(1)),
            slots_per_lane: 3,
            slot_bytes: if properties.simulated {
                SLOT_IN_CACHE
            } else {
                4 << 20
            },
            inline_bytes: if properties.simulated { 1 << 20 } else { 512 << 10 },
            plain_bytes: if properties.simulated { 4 << 10 } else { 32 << 10 },
            streamed_up_to: if properties.simulated { 0 } else { 128 << 20 },
            streamed_from: if properties.simulated { u64::MAX } else { 32 << 20 },
            patience: if properties.simulated {
                Duration::ZERO
            } else {
                Duration::from_millis(2)
            },
            gathered_runs: 8,
            gathered_run_bytes: 64 << 10,
        }
    }

    /// Below this size a pinned tensor is cheaper to pack with others than to copy by itself.
    pub(crate) fn direct_bytes(&self) -> u64 {
        (self.copy_call.as_secs_f64() * self.memcpy_bytes_per_second) as u64
    }
}
