//! Times, sizes, rates and counts as people read them.

/// A unit of time: its name and its length in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeUnit {
    /// `ns`, `us`, `ms` or `s`.
    pub name: &'static str,
    /// One of it, in seconds.
    pub seconds: f64,
}

const TIME_UNITS: [TimeUnit; 4] = [
    TimeUnit {
        name: "s",
        seconds: 1.0,
    },
    TimeUnit {
        name: "ms",
        seconds: 1e-3,
    },
    TimeUnit {
        name: "us",
        seconds: 1e-6,
    },
    TimeUnit {
        name: "ns",
        seconds: 1e-9,
    },
];

/// The largest unit of which `seconds` is at least one; nanoseconds below that.
#[must_use]
pub fn time_unit(seconds: f64) -> TimeUnit {
    TIME_UNITS
        .into_iter()
        .find(|unit| seconds >= unit.seconds)
        .unwrap_or(TIME_UNITS[3])
}

/// A time with its unit: `35.26 us`.
#[must_use]
pub fn time(seconds: f64) -> String {
    let unit = time_unit(seconds);
    format!("{:.2} {}", seconds / unit.seconds, unit.name)
}

/// A size in binary units: `16 MiB`, `1.5 GiB`, `400 B`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A rate in decimal units, as links are named: `7.5 GB/s`.
#[must_use]
pub fn rate(bytes: u64, seconds: f64) -> String {
    format!("{:.1} GB/s", bytes as f64 / seconds / 1e9)
}

/// A number with the word for what there are so many of: `1 copy`, `2 copies`.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_the_largest_unit_that_it_fills() {
        assert_eq!(time(35.26e-6), "35.26 us");
        assert_eq!(time(11.03e-3), "11.03 ms");
        assert_eq!(time(2.5), "2.50 s");
        assert_eq!(time(4e-10), "0.40 ns");
        assert_eq!(time(0.0), "0.00 ns");
    }

    #[test]
    fn sizes_are_binary_and_rates_decimal() {
        assert_eq!(bytes(400), "400 B");
        assert_eq!(bytes(16 << 20), "16 MiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(rate(7_500_000_000, 1.0), "7.5 GB/s");
    }

    #[test]
    fn one_of_a_thing_has_the_word_for_one() {
        assert_eq!(counted(0, "copy", "copies"), "0 copies");
        assert_eq!(counted(1, "copy", "copies"), "1 copy");
        assert_eq!(counted(2, "copy", "copies"), "2 copies");
    }
}
