//! The guide's ways to move tensors, and how long each should take by a profile.
//!
//! They are the driver's calls, without what torch does around each: no profile knows that. With n tensors of b bytes, the
//! link's rate B, one thread's memcpy m, the driver's own way with pageable tensors of such a size P, a short copy and the wait for
//! it L, and c for one more copy, which the first of n has in its L:
//!
//! | way | time |
//! | --- | --- |
//! | `to` | each: L + b/P |
//! | `to`, non-blocking | each: b/P, one more: c; then L |
//! | `pin_memory().to` | each: b/m + L + b/B |
//! | `pin_memory().to`, non-blocking | the longer of filling (each: b/m, one more: c) and the link (each: b/B), one copy more, then L |
//! | pinned before, `to` | each: L + b/B |
//! | pinned before, non-blocking | the longer of the calls (one more: c) and the link (each: b/B), then L |
//! | pinned by t threads | the longer of filling by all (each: b/mt, but no faster than the lanes of pinlane and the link do it together) and the above, one fill more |
//! | to the host, `to` | each: L + b/P, and page faults that no profile knows |
//! | to the host, non-blocking | as pinned before, non-blocking |
//!
//! Pinned memory comes from a cache that is filled: what pinning costs the first time is not in it.

use pinlane::{Amount, Direction, HostEnd, Profile};
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
    ToHost,
    ToHostNonBlocking,
}

impl Plain {
    /// The guide's ways for what is described. It has none for strided memory and files: its users make the one contiguous,
    /// and read the other, before anything is moved.
    pub(crate) fn of(description: &Description, cores: usize) -> Vec<Self> {
        match (description.direction(), description.memory()) {
            (Direction::ToHost, _) => vec![Self::ToHost, Self::ToHostNonBlocking],
            (_, HostEnd::Pageable) => vec![
                Self::To,
                Self::ToNonBlocking,
                Self::PinThenTo,
                Self::PinThenToNonBlocking,
                Self::PinInThreads(cores.clamp(1, MOST_THREADS)),
                Self::PinnedTo,
                Self::PinnedToNonBlocking,
            ],
            (_, HostEnd::Pinned) => vec![Self::PinnedTo, Self::PinnedToNonBlocking],
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
            Self::ToHost => "t.to(\"cpu\")",
            Self::ToHostNonBlocking => "t.to(\"cpu\", non_blocking=True), one sync",
        }
    }

    /// How long it should take, and why.
    pub(crate) fn predict(self, description: &Description, profile: &Profile) -> Way {
        let load = Load::new(description, profile);
        let Load {
            tensors,
            more,
            bytes,
            latency,
            call,
            plain,
            ..
        } = load;
        let (link, memcpy) = (profile.link_bytes_per_second, profile.memcpy_bytes_per_second);
        let plain_rate = if plain > 0.0 { bytes / plain } else { 0.0 };
        let rate = |rate: f64| Amount::Rate(rate).to_string();
        let each_waits = format!(
            "each of {tensors} calls waits for its copy ({:.1?})",
            profile.short_copy
        );
        let one_wait = "one wait at the end";
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
                tensors * latency + bytes / memcpy + bytes / link,
                format!(
                    "{each_waits}; one thread's copy ({}) and the link ({}) take turns",
                    rate(memcpy),
                    rate(link)
                ),
            ),
            Self::PinThenToNonBlocking => {
                let fill = bytes / memcpy + more * call;
                let last = load.longest / if fill > bytes / link { link } else { memcpy };
                (
                    fill.max(bytes / link) + last + latency,
                    format!(
                        "one thread's copy ({}) goes on while the link carries the tensor before",
                        rate(memcpy)
                    ),
                )
            }
            Self::PinInThreads(threads) => {
                let at_once = (threads as f64).min(tensors.max(1.0));
                let fill = bytes / (memcpy * at_once).min(profile.staged_bytes_per_second);
                (
                    fill.max(load.enqueued()) + load.longest / memcpy + latency,
                    format!("{threads} threads copy with {} each; one enqueues", rate(memcpy)),
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
                        "{tensors} calls of {:.1?} each take longer than the bytes; {one_wait}",
                        profile.copy_call
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
        Way {
            owner: Owner::Guide,
            name: self.name(),
            predicted_seconds: seconds,
            at_least: self == Self::ToHost,
            reason,
            measured_seconds: None,
        }
    }
}

/// What is to be moved, in the profile's terms.
struct Load {
    tensors: f64,
    /// Those after the first.
    more: f64,
    bytes: f64,
    /// The bytes of the largest tensor.
    longest: f64,
    /// Seconds that the driver's own way takes for them in pageable memory, besides its calls.
    plain: f64,
    /// Seconds of one copy that is waited for, without its bytes.
    latency: f64,
    call: f64,
    link: f64,
}

impl Load {
    fn new(description: &Description, profile: &Profile) -> Self {
        let tensors = description.count() as f64;
        let longest = description.groups().iter().map(crate::Group::bytes).max();
        let plain = description.groups().iter().map(|group| {
            let (count, bytes) = (group.count() as f64, group.bytes());
            count * bytes as f64 / profile.plain_rate(usize::try_from(bytes).unwrap_or(usize::MAX))
        });
        Self {
            tensors,
            plain: plain.sum(),
            more: (tensors - 1.0).max(0.0),
            bytes: description.bytes() as f64,
            longest: longest.unwrap_or_default() as f64,
            latency: profile.short_copy.as_secs_f64(),
            call: profile.copy_call.as_secs_f64(),
            link: profile.link_bytes_per_second,
        }
    }

    /// Calls, and bytes on the link, whichever takes longer.
    fn enqueued(&self) -> f64 {
        (self.more * self.call).max(self.bytes / self.link)
    }

    fn is_bound_by_calls(&self) -> bool {
        self.more * self.call > self.bytes / self.link
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles;

    fn predicted(text: &str) -> Vec<(Plain, f64)> {
        let description = Description::parse(text).unwrap();
        let profile = profiles::named("h200").unwrap();
        Plain::of(&description, profile.cores)
            .into_iter()
            .map(|way| (way, way.predict(&description, &profile.profile).predicted_seconds))
            .collect()
    }

    fn of(predicted: &[(Plain, f64)], way: Plain) -> f64 {
        predicted.iter().find(|(found, _)| *found == way).unwrap().1
    }

    #[test]
    fn what_the_guide_found_is_what_is_predicted() {
        for text in ["1000x1000 f32", "100x1M f32", "1x100k f32"] {
            let times = predicted(text);
            let to = of(&times, Plain::To);
            assert!(of(&times, Plain::ToNonBlocking) <= to, "{text}");
            assert!(of(&times, Plain::PinnedTo) < to, "{text}");
            assert!(
                of(&times, Plain::PinnedToNonBlocking) <= of(&times, Plain::PinnedTo),
                "{text}"
            );
            assert!(
                of(&times, Plain::PinThenTo) > of(&times, Plain::PinnedTo),
                "{text}"
            );
        }
        let one = predicted("1x100k f32");
        assert!(
            of(&one, Plain::PinThenTo) > 0.9 * of(&one, Plain::To),
            "pinning by hand gains nothing"
        );
        let tree = predicted("100x1M f32");
        assert!(of(&tree, Plain::PinInThreads(8)) < 0.5 * of(&tree, Plain::To));
    }

    #[test]
    fn rates_and_latencies_add_up_as_the_table_says() {
        let times = predicted("1000x1000 f32");
        let profile = profiles::named("h200").unwrap().profile;
        let expected = 1000.0 * profile.short_copy.as_secs_f64() + 4e6 / profile.small_plain_bytes_per_second;
        assert!((of(&times, Plain::To) / expected - 1.0).abs() < 1e-12);
        let calls = 999.0 * profile.copy_call.as_secs_f64() + profile.short_copy.as_secs_f64();
        assert!((of(&times, Plain::PinnedToNonBlocking) / calls - 1.0).abs() < 1e-12);
        let long = predicted("2x64MiB");
        let expected =
            2.0 * profile.short_copy.as_secs_f64() + 128.0 * 1048576.0 / profile.plain_bytes_per_second;
        assert!((of(&long, Plain::To) / expected - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_guide_has_no_way_for_files_and_strided_memory() {
        for text in ["1MiB file", "1MiB strided"] {
            assert_eq!(Plain::of(&Description::parse(text).unwrap(), 8), []);
        }
    }
}
