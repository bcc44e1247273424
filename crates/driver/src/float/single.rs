//! The same steps as `coding` by way of the bits of an `f32`, between that and the two formats of 16 bits, which
//! most models are of: without branches, and in 32 bits, so that the compiler makes vectors of it.
//!
//! Each bit of the result is the same, which the tests hold it to.

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0xff << 23;
const QUIET: u32 = 1 << 22;

/// What an exponent of `F16` grows by as one of `F32`.
const REBIAS: u32 = (127 - 15) << 23;

/// The smallest value that `F16` has a normal code for, as `F32`.
const SMALLEST_NORMAL: u32 = (127 - 14) << 23;

#[inline]
pub(super) fn of_bf16(code: u64) -> u32 {
    (code as u32) << 16
}

#[inline]
pub(super) fn of_f16(code: u64) -> u32 {
    let code = code as u32;
    let sign = (code & 0x8000) << 16;
    let magnitude = (code & 0x7fff) << 13;
    let rebiased = magnitude + REBIAS;
    // Its bits counted from the smallest normal on; what is taken from that is exact, and normal itself.
    let subnormal = f32::from_bits(magnitude + SMALLEST_NORMAL) - f32::from_bits(SMALLEST_NORMAL);
    let is_special = code & 0x7c00 == 0x7c00;
    let is_subnormal = code & 0x7c00 == 0;
    let finite = if is_subnormal {
        subnormal.to_bits()
    } else {
        rebiased
    };
    sign | if is_special { rebiased + REBIAS } else { finite }
}

/// A code of `F32` with a NaN made quiet.
#[inline]
pub(super) fn quiet(single: u32) -> u64 {
    let is_nan = single & !SIGN > INFINITY;
    u64::from(if is_nan { single | QUIET } else { single })
}

#[inline]
pub(super) fn to_bf16(single: u32) -> u64 {
    let is_nan = single & !SIGN > INFINITY;
    let rounded = single.wrapping_add(0x7fff + (single >> 16 & 1)) >> 16;
    u64::from(if is_nan { (single | QUIET) >> 16 } else { rounded })
}

#[inline]
pub(super) fn to_f16(single: u32) -> u64 {
    let sign = (single & SIGN) >> 16;
    let magnitude = single & !SIGN;
    // Of no use, and perhaps negative, for what is below the smallest normal.
    let rounded = magnitude
        .wrapping_sub(REBIAS)
        .wrapping_add(0xfff + (magnitude >> 13 & 1))
        >> 13;
    // What `F16` has no normal code for: where a half is added, the last bit that is left is its smallest value, and the
    // addition rounds as everything here does.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5_f32.to_bits();
    let finite = if magnitude < SMALLEST_NORMAL {
        subnormal
    } else {
        rounded
    };
    // From halfway behind the largest value on.
    let finite = if magnitude >= REBIAS + (0x7bff << 13) + 0x1000 {
        0x7c00
    } else {
        finite
    };
    let is_nan = magnitude > INFINITY;
    let nan = 0x7c00 | (magnitude | QUIET) >> 13 & 0x3ff;
    u64::from(sign | if is_nan { nan } else { finite })
}
