//! A profile's values with their units, for people.

use std::{fmt, time::Duration};

use super::Profile;
use crate::units;

/// One value of a profile.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Quantity {
    /// What it is, in a few words.
    pub name: &'static str,
    /// How much.
    pub amount: Amount,
    /// Whether [`Profile::measure`] finds it. Others stay as assumed.
    pub measured: bool,
}

/// A value with its unit. Prints as `55.2 GB/s`, `8.00 us`, `4 MiB`, `12`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Amount {
    /// Bytes per second.
    Rate(f64),
    /// A time.
    Time(Duration),
    /// Bytes.
    Bytes(u64),
    /// A number of things.
    Count(u64),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::Rate(rate) => format!("{:.1} GB/s", rate / 1e9),
            Self::Time(Duration::ZERO) => "not at all".to_owned(),
            Self::Time(time) => units::time(time.as_secs_f64()),
            Self::Bytes(bytes) => match bytes {
                0 => "0 B".to_owned(),
                u64::MAX => "no limit".to_owned(),
                bytes if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
                bytes if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
                bytes => format!("{bytes} B"),
            },
            Self::Count(count) => count.to_string(),
        };
        f.pad(&text)
    }
}

impl Profile {
    /// Every value, in an order for people.
    #[must_use]
    pub fn quantities(&self) -> Vec<Quantity> {
        // In full, so that a field which is added is shown too.
        let Self {
            link_bytes_per_second,
            memcpy_bytes_per_second,
            staged_bytes_per_second,
            plain_bytes_per_second,
            small_plain_bytes_per_second,
            cached_bytes_per_second,
            gathered_bytes_per_second,
            short_copy,
            copy_start,
            gather_start,
            ramp_to_device,
            ramp_to_host,
            copy_call,
            latency,
            tensor_to_device,
            tensor_to_host,
            tensor_tenfold,
            lanes,
            lanes_to_host,
            lanes_from_files,
            slots_per_lane,
            slot_bytes,
            inline_bytes,
            plain_bytes,
            streamed_up_to,
            streamed_from,
            patience,
            gathered_runs,
            gathered_run_bytes,
        } = *self;
        let bytes = |bytes: usize| Amount::Bytes(bytes as u64);
        let count = |count: usize| Amount::Count(count as u64);
        let value = |name, amount, measured| Quantity {
            name,
            amount,
            measured,
        };
        let measured = |name, amount| value(name, amount, true);
        let assumed = |name, amount| value(name, amount, false);
        vec![
            measured("link, one direction", Amount::Rate(link_bytes_per_second)),
            measured("memcpy, one thread", Amount::Rate(memcpy_bytes_per_second)),
            measured("pageable, by all lanes", Amount::Rate(staged_bytes_per_second)),
            measured("pageable, by the driver", Amount::Rate(plain_bytes_per_second)),
            measured(
                "a small tensor, by the driver",
                Amount::Rate(small_plain_bytes_per_second),
            ),
            measured(
                "within the caches, one thread",
                Amount::Rate(cached_bytes_per_second),
            ),
            measured("gathered by a kernel", Amount::Rate(gathered_bytes_per_second)),
            measured("one copy, the short way", Amount::Time(short_copy)),
            measured("its start on the engine", Amount::Time(copy_start)),
            measured("a transfer, the long way", Amount::Time(latency)),
            measured("one more copy in it", Amount::Time(copy_call)),
            measured("a kernel in it", Amount::Time(gather_start)),
            measured("all lanes at work, to the device", Amount::Time(ramp_to_device)),
            measured("all lanes at work, to the host", Amount::Time(ramp_to_host)),
            measured("one more tensor to the device", Amount::Time(tensor_to_device)),
            measured("one more tensor to the host", Amount::Time(tensor_to_host)),
            measured("more for each tenfold of 1000", Amount::Time(tensor_tenfold)),
            measured("lanes to the device", count(lanes)),
            measured("lanes to the host", count(lanes_to_host)),
            assumed("lanes from files to the device", count(lanes_from_files)),
            assumed("slots for each lane", count(slots_per_lane)),
            measured("slot", bytes(slot_bytes)),
            measured("by the caller's thread up to", bytes(inline_bytes)),
            measured("left to the driver up to", bytes(plain_bytes)),
            assumed("past the caches into slots up to", Amount::Bytes(streamed_up_to)),
            assumed("past the caches on the host from", Amount::Bytes(streamed_from)),
            assumed("spinning before sleeping", Amount::Time(patience)),
            assumed("gathered by a kernel from pieces", count(gathered_runs)),
            measured("gathered pieces, mean up to", bytes(gathered_run_bytes)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_print_with_their_units() {
        let shown = [
            Amount::Rate(55.16e9),
            Amount::Time(Duration::from_nanos(7500)),
            Amount::Time(Duration::ZERO),
            Amount::Bytes(4 << 20),
            Amount::Bytes(48 << 10),
            Amount::Bytes(1000),
            Amount::Bytes(0),
            Amount::Bytes(u64::MAX),
            Amount::Count(12),
        ]
        .map(|amount| amount.to_string());
        assert_eq!(
            shown,
            [
                "55.2 GB/s",
                "7.50 us",
                "not at all",
                "4 MiB",
                "48 KiB",
                "1000 B",
                "0 B",
                "no limit",
                "12"
            ]
        );
    }
}
