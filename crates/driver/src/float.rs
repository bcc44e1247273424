//! Floating-point formats, and how elements of one become elements of another: one rule, which the host and every device
//! keep bit by bit.

mod coding;
mod conversion;
mod host;
mod single;

use std::fmt;

pub use conversion::Conversion;

/// A floating-point format that a driver may be asked to convert from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float {
    /// IEEE 754 double precision.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an [`F32`](Self::F32).
    BF16,
    /// 4 bits of exponent, 3 of mantissa, no infinity.
    F8E4M3,
    /// 5 bits of exponent, 2 of mantissa.
    F8E5M2,
    /// 8 bits, all of them exponent: powers of two, which have no sign and no zero. To be converted from, never to.
    F8E8M0,
    /// [`F8E4M3`](Self::F8E4M3) with another bias, no negative zero and one NaN.
    F8E4M3Fnuz,
    /// [`F8E5M2`](Self::F8E5M2) with another bias, no negative zero, no infinity and one NaN.
    F8E5M2Fnuz,
}

impl Float {
    /// Every format.
    pub const ALL: [Self; 9] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::F8E8M0,
        Self::F8E4M3Fnuz,
        Self::F8E5M2Fnuz,
    ];

    /// The width of an element in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 | Self::F8E4M3Fnuz | Self::F8E5M2Fnuz => 1,
        }
    }
}

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E8M0 => "F8_E8M0",
            Self::F8E4M3Fnuz => "F8_E4M3FNUZ",
            Self::F8E5M2Fnuz => "F8_E5M2FNUZ",
        })
    }
}
