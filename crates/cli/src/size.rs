//! Sizes as people type them.

/// Reads `4096`, `4KiB`, `1M`. `K`, `M`, `G`, `T` and those with `iB` are powers of 1024, those with `B` of 1000, as in the
/// tools of the system.
///
/// # Errors
///
/// What was expected, for a size of any other form and for one that is too large.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let expected = || format!("{text:?} is no size; write bytes, such as 4096, or 4KiB, 1M, 2GB");
    let digits = text.len()
        - text
            .trim_start_matches(|character: char| character.is_ascii_digit())
            .len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let unit = unit.trim_start();
    let (letter, rest) = unit.split_at_checked(1).unwrap_or((unit, ""));
    let power = match letter.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(expected()),
    };
    let base: u64 = match (power, rest.to_ascii_lowercase().as_str()) {
        (_, "") | (1.., "ib") => 1024,
        (1.., "b") => 1000,
        _ => return Err(expected()),
    };
    let bytes = number.checked_mul(base.pow(power));
    bytes.ok_or_else(|| format!("{text:?} is more bytes than can be counted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_bytes_and_in_both_kinds_of_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("4KiB", 4096),
            ("4 kib", 4096),
            ("1M", 1 << 20),
            ("2GB", 2_000_000_000),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "KiB",
            "-1",
            "1.5M",
            "4X",
            "4KiBs",
            "4BB",
            "4é",
            "99999999999999999999",
            "99999999999T",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
