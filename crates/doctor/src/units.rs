//! Rates and sizes as people read them.

use pinlane::Amount;

/// `48.0 GB/s`.
pub(crate) fn rate(bytes_per_second: f64) -> String {
    Amount::Rate(bytes_per_second).to_string()
}

/// `256 MiB`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    pinlane_guide::units::bytes(bytes)
}
