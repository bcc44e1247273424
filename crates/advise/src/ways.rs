//! The guide's ways to move tensors, and how long each should take by a profile.
//!
//! They are the driver's calls, without what torch does around each: no profile knows that. With n tensors of b bytes, the
//! link's rate B, one thread's memcpy m, torch's `pin_memory` p, the driver's own way with pageable tensors of such a size P, a short copy and the wait for
//! it L, and c for one more copy, which the first of n has in its L:
//!
//! | way | time |
//! | --- | --- |
//! | `to` | each: L + b/P |
//! | `to`, non-blocking | each: b/P, one more: c; then L |
//! | `pin_memory().to` | each: b/p + L + b/B |
//! | `pin_memory().to`, non-blocking | the longer of filling (each: b/p, one more: c) and the link (each: b/B), one copy more, then L |
//! | pinned before, `to` | each: L + b/B |
//! | pinned before, non-blocking | the longer of the calls (one more: c) and the link (each: b/B), then L |
//! | pinned by t threads | the longer of filling by all (each: b/mt or b/p, but no faster than all cores and the link do it together) and the above, one copy or fill more |
//! | one pinned buffer, by one thread | each: b/m + L + b/B |
//! | from a file: read, `pin_memory().to`, non-blocking | each: b/m to read; then as from pageable memory |
//! | to the host, `to` | each: L + b/P, and page faults that no profile knows |
//! | to the host, non-blocking | as pinned before, non-blocking |
//!
//! `pin_memory` copies with as many cores as the tensor has pieces of 128 KiB, as torch does: p is their m together, but no more than
//! the measured rate at which all lanes fill while the link reads. Reading is taken for one thread's copy out of the page cache; a
//! disk takes longer. Pinned memory comes from a cache that is filled: what pinning costs the first time is not in it.
//!
//! Tensors without bytes are none of the n: torch copies nothing of them and waits for nothing, so they take no time here.

use std::time::Duration;

use pinlane::{Amount, Direction, HostEnd, Profile};
use pinlane_guide::plain::PIECE;
use serde::Serialize;

use crate::Description;

/// A way, how long it should take, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Way {
    /// Whose it is.
    pub owner: Owner,
    /// What it is called.
    pub name: &'static str,
    /// By the profile.
    pub predicted_seconds: f64,
    /// Whether it takes longer than that, by something that no profile knows.
    pub at_least: bool,
    /// By what.
    pub reason: String,
    /// How long it took, where it was done.
    pub measured_seconds: Option<f64>,
}

/// Whose a way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The guide's, which is torch's.
    Guide,
    /// Pinlane's.
    Pinlane,
}

/// The most threads that pin: what the guide's library takes by itself is up to the cores, and more gain nothing.
pub const MOST_THREADS: usize = 8;

/// One of the guide's ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    To,
    ToNonBlocking,
    PinThenTo,
    PinThenToNonBlocking,
    PinnedTo,
    PinnedToNonBlocking,
    PinInThreads(usize),
    Shuttle,
    ReadThenPin,
    ToHost,
    ToHostNonBlocking,
}

impl Plain {
    /// The guide's ways for what is described. It has none for strided memory: its users make that contiguous before anything is
    /// moved.
    pub(crate) fn of(description: &Description, cores: usize) -> Vec<Self> {
        match (description.direction(), description.memory()) {
            (Direction::ToHost, _) => vec![Self::ToHost, Self::ToHostNonBlocking],
            (_, HostEnd::Pageable) => vec![
                Self::To,
                Self::ToNonBlocking,
                Self::PinThenTo,
                Self::PinThenToNonBlocking,
                Self::PinInThreads(cores.clamp(1, MOST_THREADS)),
                Self::Shuttle,
                Self::PinnedTo,
                Self::PinnedToNonBlocking,
            ],
            (_, HostEnd::Pinned) => vec![Self::PinnedTo, Self::PinnedToNonBlocking],
            (_, HostEnd::File) => vec![Self::ReadThenPin],
            _ => Vec::new(),
        }
    }

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::To => "t.to(device)",
            Self::ToNonBlocking => "t.to(device, non_blocking=True), one sync",
            Self::PinThenTo => "t.pin_memory().to(device)",
            Self::PinThenToNonBlocking => "t.pin_memory().to(device, non_blocking=True), one sync",
            Self::PinInThreads(_) => "pinned by threads, non-blocking, one sync",
            Self::PinnedTo => "pinned before: t.to(device)",
            Self::PinnedToNonBlocking => "pinned before: t.to(device, non_blocking=True), one sync",
            Self::Shuttle => "one pinned buffer for all, by one thread: copy, to, wait",
            Self::ReadThenPin => "read, t.pin_memory().to(device, non_blocking=True), one sync",
            Self::ToHost => "t.to(\"cpu\")",
            Self::ToHostNonBlocking => "t.to(\"cpu\", non_blocking=True), one sync",
        }
    }

    /// How long it should take on a host with so many cores, and why.
    pub(crate) fn predict(self, description: &Description, profile: &Profile, cores: usize) -> Way {
        let load = Load::new(description, profile, cores);
        if load.tensors == 0.0 {
            return Way {
                owner: Owner::Guide,
                name: self.name(),
                predicted_seconds: 0.0,
                at_least: false,
                reason: "tensors without bytes: nothing is copied, and nothing waited for".to_owned(),
                measured_seconds: None,
            };
        }
        let Load {
            tensors,
            more,
            bytes,
            latency,
            call,
            plain,
            pinned,
            ..
        } = load;
        let (link, memcpy) = (profile.link_bytes_per_second, profile.memcpy_bytes_per_second);
        let plain_rate = bytes / plain;
        let rate = |rate: f64| Amount::Rate(rate).to_string();
        let time = |time: Duration| Amount::Time(time).to_string();
        let calls = if tensors == 1.0 {
            "the call".to_owned()
        } else {
            format!("each of {tensors} calls")
        };
        let each_waits = format!("{calls} waits for its copy ({})", time(profile.short_copy));
        let one_wait = "one wait at the end";
        let pinned_by = format!(
            "{} copies into pinned memory ({})",
            if load.pinning_threads > 1 {
                "torch's pin_memory, by all cores,"
            } else {
                "one thread"
            },
            rate(bytes / pinned)
        );
        let (seconds, reason) = match self {
            Self::To => (
                tensors * latency + plain,
                format!(
                    "{each_waits}; the driver stages pageable memory with {}",
                    rate(plain_rate)
                ),
            ),
            Self::ToNonBlocking => (
                more * call + plain + latency,
                format!(
                    "{one_wait}; but the driver stages pageable memory with {}, and the caller waits for that",
                    rate(plain_rate)
                ),
            ),
            Self::PinThenTo => (
                tensors * latency + pinned + bytes / link,
                format!(
                    "{each_waits}; {pinned_by} and takes turns with the link ({})",
                    rate(link)
                ),
            ),
            Self::PinThenToNonBlocking => {
                let fill = pinned + more * call;
                (
                    load.beside(fill, bytes / link) + latency,
                    format!("{pinned_by} while the link carries the tensor before"),
                )
            }
            Self::Shuttle => (
                tensors * latency + bytes / memcpy + bytes / link,
                format!(
                    "{each_waits}; one thread's copy ({}) and the link ({}) take turns, for the buffer is one",
                    rate(memcpy),
                    rate(link)
                ),
            ),
            Self::ReadThenPin => {
                let fill = bytes / memcpy + pinned + more * call;
                (
                    load.beside(fill, bytes / link) + latency,
                    format!(
                        "one thread reads, no faster than it copies out of the page cache ({}), and longer from a disk; then {pinned_by}",
                        rate(memcpy)
                    ),
                )
            }
            Self::PinInThreads(threads) => {
                let at_once = (threads as f64).min(tensors);
                // Alone, each has all cores to copy with.
                let together = (memcpy * at_once).min(profile.staged_bytes_per_second.max(memcpy));
                let fill = pinned.min(bytes / together);
                // Several have to get to work, as lanes have.
                let ramp = if at_once > 1.0 {
                    profile.ramp(Direction::ToDevice, bytes as u64).as_secs_f64()
                } else {
                    0.0
                };
                (
                    load.beside(fill, load.enqueued()) + ramp + latency,
                    format!(
                        "{at_once:.0} of {threads} threads at once copy with {} in all; one enqueues",
                        rate(bytes / fill)
                    ),
                )
            }
            Self::PinnedTo => (
                tensors * latency + bytes / link,
                format!(
                    "{each_waits}; nothing is staged, and the link carries {}",
                    rate(link)
                ),
            ),
            Self::PinnedToNonBlocking | Self::ToHostNonBlocking => (
                load.enqueued() + latency,
                if load.is_bound_by_calls() {
                    format!(
                        "{tensors} calls of {} each take longer than the bytes; {one_wait}",
                        time(profile.copy_call)
                    )
                } else {
                    format!("the link carries {}; {one_wait}", rate(link))
                },
            ),
            Self::ToHost => (
                tensors * latency + plain,
                format!(
                    "{each_waits}; the driver's own way with pageable memory is taken for {}; the faults of fresh pages come on top",
                    rate(plain_rate)
                ),
            ),
        };
        let without = description.count() as f64 - tensors;
        let reason = if without > 0.0 {
            format!("{reason}; {without} without bytes take no copy")
        } else {
            reason
        };
        Way {
            owner: Owner::Guide,
            name: self.name(),
            predicted_seconds: seconds,
            at_least: matches!(self, Self::ToHost | Self::ReadThenPin),
            reason,
            measured_seconds: None,
        }
    }
}

/// What is to be moved, in the profile's terms.
struct Load {
    /// Those with bytes.
    tensors: f64,
    /// Those after the first.
    more: f64,
    bytes: f64,
    /// The bytes of the largest tensor.
    longest: f64,
    /// Seconds that the driver's own way takes for them in pageable memory, besides its calls.
    plain: f64,
    /// Seconds that torch's `pin_memory` takes for them.
    pinned: f64,
    /// The most threads that copy one of them so.
    pinning_threads: usize,
    /// The rate of that, with the largest.
    longest_pinned: f64,
    /// Seconds of one copy that is waited for, without its bytes.
    latency: f64,
    call: f64,
    link: f64,
}

impl Load {
    fn new(description: &Description, profile: &Profile, cores: usize) -> Self {
        let with_bytes = description.groups().iter().filter(|group| group.bytes() > 0);
        let tensors = with_bytes.map(crate::Group::count).sum::<usize>() as f64;
        let longest = description.groups().iter().map(crate::Group::bytes).max();
        let plain = description.groups().iter().map(|group| {
            let (count, bytes) = (group.count() as f64, group.bytes());
            count * bytes as f64 / profile.plain_rate(usize::try_from(bytes).unwrap_or(usize::MAX))
        });
        let pinned = description.groups().iter().map(|group| {
            let (count, bytes) = (group.count() as f64, group.bytes());
            count * bytes as f64 / pin_rate(profile, bytes, cores)
        });
        let longest_bytes = longest.unwrap_or_default();
        Self {
            tensors,
            plain: plain.sum(),
            pinned: pinned.sum(),
            pinning_threads: pinning_threads(longest_bytes, cores),
            longest_pinned: pin_rate(profile, longest_bytes, cores),
            more: (tensors - 1.0).max(0.0),
            bytes: description.bytes() as f64,
            longest: longest.unwrap_or_default() as f64,
            latency: profile.short_copy.as_secs_f64(),
            call: profile.copy_call.as_secs_f64(),
            link: profile.link_bytes_per_second,
        }
    }

    /// Filling beside the link, each for so many seconds: the longer, and of the other what is not beside it, which is the last
    /// copy or the first fill.
    fn beside(&self, fill: f64, link: f64) -> f64 {
        let rate = if fill > link {
            self.link
        } else {
            self.longest_pinned
        };
        fill.max(link) + self.longest / rate
    }

    /// Calls, and bytes on the link, whichever takes longer.
    fn enqueued(&self) -> f64 {
        (self.more * self.call).max(self.bytes / self.link)
    }

    fn is_bound_by_calls(&self) -> bool {
        self.more * self.call > self.bytes / self.link
    }
}

/// The cores that torch copies a tensor of so many bytes with.
fn pinning_threads(bytes: u64, cores: usize) -> usize {
    let pieces = usize::try_from(bytes.div_ceil(PIECE as u64)).unwrap_or(usize::MAX);
    pieces.clamp(1, cores.max(1))
}

/// The rate of torch's `pin_memory` for one tensor of so many bytes: by its cores, but no faster than all lanes fill while the
/// link reads, which is measured.
fn pin_rate(profile: &Profile, bytes: u64, cores: usize) -> f64 {
    let one = profile.memcpy_bytes_per_second;
    let all = one * pinning_threads(bytes, cores) as f64;
    all.min(profile.staged_bytes_per_second.max(one))
}

#[cfg(test)]
mod tests;
