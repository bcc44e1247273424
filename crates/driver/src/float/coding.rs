//! How a format's bits stand for a value, by way of the bits of an `f64`, which has every value of every other format.
//!
//! So a conversion is two steps: [`widen`](Coding::widen), which loses nothing, and [`narrow`](Coding::narrow), which rounds
//! once. `crates/cuda/kernels/convert.cu` takes the same steps; whoever changes one changes the other, and the conformance
//! suite compares them.
//!
//! This is the rule. What else converts on the host, `single` and tables, comes to the same in less time.
//!
//! All of it is integer arithmetic. What processors do with a NaN, and whether they flush subnormals, differs; and an `f64`
//! that is first rounded to `f32`, as is usual, may end at the wrong one of two neighbours.

/// What the codes of the largest exponent mean, and a negative zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Specials {
    /// Infinities and NaNs, as in IEEE 754.
    Ieee,
    /// Values, but for that with all bits of the mantissa, which is NaN.
    OneNan,
    /// Values. NaN is what would be the negative zero.
    Unsigned,
}

const MANTISSA: u32 = 52;
const BIAS: i32 = 1023;
const SIGN: u64 = 1 << 63;
const INFINITY: u64 = 0x7ff << MANTISSA;
/// What tells a NaN that means nothing in particular from one that traps.
const QUIET: u64 = 1 << (MANTISSA - 1);
const FRACTION: u64 = (1 << MANTISSA) - 1;

/// A format's coding. The provided methods serve for all that have a sign, an exponent and a mantissa.
pub(super) trait Coding {
    /// Bits of the exponent.
    const EXPONENT: u32;
    /// Bits of the mantissa.
    const MANTISSA: u32;
    /// What is added to the exponent of two of a value in `1..2`.
    const BIAS: i32;
    const SPECIALS: Specials;

    /// The bits of the same value as an `f64`. A NaN keeps its sign and the bits of its mantissa, at the upper end.
    #[inline]
    fn widen(code: u64) -> u64 {
        let magnitude_bits = Self::EXPONENT + Self::MANTISSA;
        let magnitude = code & ((1 << magnitude_bits) - 1);
        let sign = (code >> magnitude_bits & 1) << 63;
        let exponent = (magnitude >> Self::MANTISSA) as i32;
        let mantissa = magnitude & ((1 << Self::MANTISSA) - 1);
        let largest = (1 << Self::EXPONENT) - 1;
        match Self::SPECIALS {
            // The exponent and the mantissa stand as they do in an `f64`: so infinities and NaNs are both right.
            Specials::Ieee if exponent == largest => {
                return sign | INFINITY | mantissa << (MANTISSA - Self::MANTISSA);
            }
            Specials::OneNan if magnitude + 1 == 1 << magnitude_bits => return sign | INFINITY | QUIET,
            Specials::Unsigned if sign != 0 && magnitude == 0 => return INFINITY | QUIET,
            _ => {}
        }
        if magnitude == 0 {
            return sign;
        }
        if exponent == 0 {
            // A subnormal: the highest bit that is set becomes the one that is left out.
            let top = 63 - mantissa.leading_zeros();
            let exponent = top as i32 + 1 - Self::BIAS - Self::MANTISSA as i32 + BIAS;
            return sign | (exponent as u64) << MANTISSA | mantissa << (MANTISSA - top) & FRACTION;
        }
        let exponent = exponent - Self::BIAS + BIAS;
        sign | (exponent as u64) << MANTISSA | mantissa << (MANTISSA - Self::MANTISSA)
    }

    /// The code of the value that is nearest to an `f64` of these bits; of two, that with an even mantissa.
    #[inline]
    fn narrow(bits: u64) -> u64 {
        let magnitude_bits = Self::EXPONENT + Self::MANTISSA;
        let sign = (bits >> 63) << magnitude_bits;
        let magnitude = bits & !SIGN;
        let largest: u64 = ((1 << Self::EXPONENT) - 1) << Self::MANTISSA;
        if magnitude > INFINITY {
            let payload = (magnitude & FRACTION) >> (MANTISSA - Self::MANTISSA);
            return match Self::SPECIALS {
                Specials::Ieee => sign | largest | 1 << (Self::MANTISSA - 1) | payload,
                Specials::OneNan => sign | ((1 << magnitude_bits) - 1),
                Specials::Unsigned => 1 << magnitude_bits,
            };
        }
        let biased = (magnitude >> MANTISSA) as i32;
        let fraction = magnitude & FRACTION;
        let significand = if biased == 0 {
            fraction
        } else {
            fraction | 1 << MANTISSA
        };
        // The exponent that the format would have; a value below its smallest loses one more bit for each step.
        let exponent = biased.max(1) - BIAS + Self::BIAS;
        let below = (1 - exponent).max(0) as u32;
        // Beyond 54 bits nothing is left, not even a half.
        let shift = (MANTISSA - Self::MANTISSA + below).min(MANTISSA + 2);
        // What is cut off carries if it is more than a half, or a half and what is kept is odd. Which it is nobody foresees, so
        // there is no branch.
        let half = 1 << (shift - 1);
        let odd = significand >> shift & 1;
        let rounded = (significand + (half - 1) + odd) >> shift;
        // The bit that is left out of the mantissa counts the exponent up by the one that is missing here, and so does a
        // carry.
        let code = ((exponent.max(1) - 1) as u64) << Self::MANTISSA;
        let code = code + rounded;
        match Self::SPECIALS {
            Specials::Ieee => sign | code.min(largest),
            Specials::OneNan => sign | code.min((1 << magnitude_bits) - 1),
            Specials::Unsigned if code >> magnitude_bits != 0 => 1 << magnitude_bits,
            Specials::Unsigned if code == 0 => 0,
            Specials::Unsigned => sign | code,
        }
    }
}

macro_rules! codings {
    ($($name:ident: $exponent:literal, $mantissa:literal, $bias:literal, $specials:ident;)*) => {$(
        pub(super) struct $name;

        impl Coding for $name {
            const EXPONENT: u32 = $exponent;
            const MANTISSA: u32 = $mantissa;
            const BIAS: i32 = $bias;
            const SPECIALS: Specials = Specials::$specials;
        }
    )*};
}

codings! {
    F32: 8, 23, 127, Ieee;
    F16: 5, 10, 15, Ieee;
    BF16: 8, 7, 127, Ieee;
    F8E4M3: 4, 3, 7, OneNan;
    F8E5M2: 5, 2, 15, Ieee;
    F8E4M3Fnuz: 4, 3, 8, Unsigned;
    F8E5M2Fnuz: 5, 2, 16, Unsigned;
}

pub(super) struct F64;

impl Coding for F64 {
    const EXPONENT: u32 = 11;
    const MANTISSA: u32 = MANTISSA;
    const BIAS: i32 = BIAS;
    const SPECIALS: Specials = Specials::Ieee;

    #[inline]
    fn widen(code: u64) -> u64 {
        code
    }

    #[inline]
    fn narrow(bits: u64) -> u64 {
        let is_nan = bits & !SIGN > INFINITY;
        if is_nan { bits | QUIET } else { bits }
    }
}

/// Only to be converted from: see [`Float::F8E8M0`](super::Float::F8E8M0).
pub(super) struct F8E8M0;

impl F8E8M0 {
    #[inline]
    pub(super) fn widen(code: u64) -> u64 {
        match code {
            0xff => INFINITY | QUIET,
            _ => (code + (BIAS - 127) as u64) << MANTISSA,
        }
    }
}
