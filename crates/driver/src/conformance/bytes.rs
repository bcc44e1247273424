//! Bytes that can be told apart: every case writes patterns, and checks every byte of what comes back.

use super::{Outcome, Stop};

/// The byte at `index` of the pattern `seed`.
pub(super) fn byte(seed: u64, index: usize) -> u8 {
    let mixed = (index as u64 ^ seed.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// The first `bytes` bytes of the pattern `seed`.
pub(super) fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| byte(seed, index)).collect()
}

/// Fails unless the two are equal, and names the first byte that differs.
pub(super) fn ensure_equal(found: &[u8], expected: &[u8], what: &str) -> Outcome {
    if found.len() != expected.len() {
        let lengths = format!("{} bytes instead of {}", found.len(), expected.len());
        return Err(Stop::Failed(format!("{what}: {lengths}")));
    }
    match (0..found.len()).find(|&index| found[index] != expected[index]) {
        None => Ok(()),
        Some(at) => Err(Stop::Failed(format!(
            "{what}: byte {at} of {} is {:#04x} and should be {:#04x}",
            found.len(),
            found[at],
            expected[at]
        ))),
    }
}

/// Fails unless `found` is the pattern `seed` from its beginning.
pub(super) fn ensure_pattern(found: &[u8], seed: u64, what: &str) -> Outcome {
    ensure_equal(found, &pattern(seed, found.len()), what)
}
