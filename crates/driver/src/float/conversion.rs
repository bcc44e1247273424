//! A pair of formats, and what becomes of elements of the one.

use std::fmt;

use super::{Float, host};

/// Which format elements have, and which they are to get.
///
/// The result is the nearest value that the new format has, rounded once, and of two that are as near that with an even
/// mantissa. What is too large becomes infinity, or NaN in a format without infinities. NaN stays NaN, with its sign and as many
/// upper bits of its mantissa as there is room for. Nothing is flushed to zero.
///
/// ```
/// use pinlane_driver::{Conversion, Float};
///
/// let to_bf16 = Conversion::new(Float::F32, Float::BF16).expect("BF16 has signs and zero");
/// let (from, mut to) = ([1.0_f32, -0.1].map(f32::to_le_bytes).concat(), [0; 4]);
/// to_bf16.convert(&from, &mut to);
/// assert_eq!(to, [0x80, 0x3f, 0xcd, 0xbd]);
/// assert_eq!(Conversion::new(Float::F32, Float::F8E8M0), None); // it has neither
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conversion {
    from: Float,
    to: Float,
}

impl Conversion {
    /// The conversion between two formats; `None` to [`F8E8M0`](Float::F8E8M0), which has no sign and no zero.
    #[must_use]
    pub fn new(from: Float, to: Float) -> Option<Self> {
        (to != Float::F8E8M0).then_some(Self { from, to })
    }

    /// Every conversion there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let from = Float::ALL.into_iter();
        from.flat_map(|from| Float::ALL.into_iter().filter_map(move |to| Self::new(from, to)))
    }

    /// What the elements are.
    #[must_use]
    pub fn from(self) -> Float {
        self.from
    }

    /// What they become.
    #[must_use]
    pub fn to(self) -> Float {
        self.to
    }

    /// Converts as many elements as there are, on the calling thread. Both slices may begin at any address.
    ///
    /// # Panics
    ///
    /// Where one holds more elements than the other, or a part of one.
    pub fn convert(self, src: &[u8], dst: &mut [u8]) {
        let elements = src.len() / self.from.bytes();
        assert_eq!(
            (src.len(), dst.len()),
            (elements * self.from.bytes(), elements * self.to.bytes()),
            "as many whole elements of {} as of {}",
            self.from,
            self.to
        );
        // SAFETY: slices of as many elements, which borrowing keeps apart.
        unsafe { self.convert_at(src.as_ptr(), dst.as_mut_ptr(), elements) };
    }

    /// The same at addresses.
    ///
    /// # Safety
    ///
    /// `src` is valid for reads of so many elements and `dst` for writes of as many; they do not overlap.
    pub(crate) unsafe fn convert_at(self, src: *const u8, dst: *mut u8, elements: usize) {
        // SAFETY: the caller's promise.
        unsafe { host::convert(self, src, dst, elements) };
    }
}

impl fmt::Display for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::host::WORTH_A_TABLE, *};

    fn converted(from: Float, to: Float, src: &[u8]) -> Vec<u8> {
        let mut dst = vec![0; src.len() / from.bytes() * to.bytes()];
        let conversion = Conversion::new(from, to).expect("not to the one without signs");
        conversion.convert(src, &mut dst);
        dst
    }

    /// Bits of an `f32`: around everything that is a bound of a narrower format, and many that nobody chose.
    fn singles() -> Vec<u32> {
        let mut all: Vec<u32> = (0..=u32::MAX).step_by(65_521).collect();
        // Both signs, every exponent, and mantissas around what is a half, a tie or a carry at some width.
        for upper in 0..512_u32 {
            for width in 0..=23 {
                for near in [0_u32.wrapping_sub(1), 0, 1] {
                    let mantissa = (1_u32 << width).wrapping_add(near) & 0x7f_ffff;
                    all.extend([mantissa, 0x7f_ffff ^ mantissa].map(|mantissa| upper << 23 | mantissa));
                }
            }
        }
        all
    }

    #[test]
    fn singles_become_halves_as_in_the_crate_half() {
        let singles = singles();
        let bytes: Vec<u8> = singles.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let (to_f16, to_bf16) = (
            converted(Float::F32, Float::F16, &bytes),
            converted(Float::F32, Float::BF16, &bytes),
        );
        for (index, bits) in singles.iter().enumerate() {
            let single = f32::from_bits(*bits);
            let at = 2 * index..2 * index + 2;
            let expected = half::f16::from_f32(single).to_le_bytes();
            assert_eq!(to_f16[at.clone()], expected, "{bits:#x} to F16");
            let expected = half::bf16::from_f32(single).to_le_bytes();
            assert_eq!(to_bf16[at], expected, "{bits:#x} to BF16");
        }
    }

    #[test]
    fn every_half_becomes_the_single_of_the_crate_half() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let from_f16 = converted(Float::F16, Float::F32, &bytes);
        let from_bf16 = converted(Float::BF16, Float::F32, &bytes);
        for bits in 0..=u16::MAX {
            let at = 4 * usize::from(bits)..4 * usize::from(bits) + 4;
            let expected = half::f16::from_bits(bits).to_f32().to_le_bytes();
            assert_eq!(from_f16[at.clone()], expected, "F16 {bits:#x}");
            let expected = half::bf16::from_bits(bits).to_f32().to_le_bytes();
            assert_eq!(from_bf16[at], expected, "BF16 {bits:#x}");
        }
    }

    #[test]
    fn doubles_and_singles_become_each_other_as_in_rust() {
        for bits in singles() {
            let single = f32::from_bits(bits);
            let double = converted(Float::F32, Float::F64, &bits.to_le_bytes());
            let double = f64::from_le_bytes(double.try_into().expect("one element"));
            assert_eq!(double.is_nan(), single.is_nan(), "{bits:#x}");
            if !single.is_nan() {
                assert_eq!(double.to_bits(), f64::from(single).to_bits(), "{bits:#x}");
            }
            // Not quite in the middle between two singles, on either side of it, and in it.
            let half = 1 << 28;
            for near in [half - 1, half, half + 1] {
                let double = f64::from_bits(f64::from(single).to_bits() ^ near);
                let found = converted(Float::F64, Float::F32, &double.to_le_bytes());
                let found = f32::from_le_bytes(found.try_into().expect("one element"));
                assert_eq!(found.is_nan(), double.is_nan(), "{double:e}");
                if !double.is_nan() {
                    assert_eq!(found.to_bits(), (double as f32).to_bits(), "{double:e}");
                }
            }
        }
    }

    #[test]
    fn every_conversion_comes_to_the_same_by_way_of_doubles() {
        let singles: Vec<u8> = singles().into_iter().flat_map(u32::to_le_bytes).collect();
        let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        // More than are worth a table.
        let codes: Vec<u8> = (0..=u8::MAX).cycle().take(WORTH_A_TABLE).collect();
        for conversion in Conversion::all() {
            let Conversion { from, to } = conversion;
            let src = match from.bytes() {
                1 => &codes,
                2 => &halves,
                _ => &singles,
            };
            let by_way_of_doubles = converted(Float::F64, to, &converted(from, Float::F64, src));
            assert!(converted(from, to, src) == by_way_of_doubles, "{conversion}");
        }
    }

    #[test]
    fn a_double_is_rounded_once() {
        // Just above the middle of 1 and the half after it: as a single it would be in the middle, and then 1.
        let above = 1.0 + 2.0_f64.powi(-11) + 2.0_f64.powi(-40);
        let found = converted(Float::F64, Float::F16, &above.to_le_bytes());
        assert_eq!(found, half::f16::from_bits(0x3c01).to_le_bytes());
    }

    #[test]
    fn every_code_of_a_narrow_format_comes_back_from_every_wider_one() {
        let wider = [Float::F64, Float::F32, Float::BF16];
        for narrow in Float::ALL.into_iter().filter(|float| float.bytes() == 1) {
            for wide in wider {
                if narrow == Float::F8E8M0 {
                    continue;
                }
                let codes: Vec<u8> = (0..=u8::MAX).collect();
                let there = converted(narrow, wide, &codes);
                let back = converted(wide, narrow, &there);
                for (code, back) in codes.into_iter().zip(back) {
                    // Of the NaNs only those that are quiet come back as they were.
                    let quieted = match narrow {
                        Float::F8E5M2 if code & 0x7f > 0x7c => code | 2,
                        _ => code,
                    };
                    assert_eq!(back, quieted, "{narrow} {code:#x} by way of {wide}");
                }
            }
        }
    }

    /// The value that this code of a format with so many bits of mantissa and this bias has by the definition.
    fn value(code: u8, mantissa: u32, bias: i32) -> f64 {
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        let (exponent, fraction) = (code & 0x7f, f64::from(code & ((1 << mantissa) - 1)));
        let exponent = i32::from(exponent >> mantissa);
        let fraction = fraction / f64::from(1 << mantissa);
        match exponent {
            0 => sign * fraction * 2.0_f64.powi(1 - bias),
            _ => sign * (1.0 + fraction) * 2.0_f64.powi(exponent - bias),
        }
    }

    #[test]
    fn codes_of_eight_bits_have_the_values_of_their_definition() {
        for (float, mantissa, bias, first_special) in [
            (Float::F8E4M3, 3, 7, 0x7f),
            (Float::F8E5M2, 2, 15, 0x7c),
            (Float::F8E4M3Fnuz, 3, 8, 0x80),
            (Float::F8E5M2Fnuz, 2, 16, 0x80),
        ] {
            for code in (0..first_special).chain(0x81..0x80 + first_special.min(0x7f)) {
                let found = converted(float, Float::F64, &[code]);
                let found = f64::from_le_bytes(found.try_into().expect("one element"));
                let expected = value(code, mantissa, bias);
                assert_eq!(found.to_bits(), expected.to_bits(), "{float} {code:#x}");
            }
        }
        for (code, expected) in [(0, 2.0_f64.powi(-127)), (127, 1.0), (254, 2.0_f64.powi(127))] {
            let found = converted(Float::F8E8M0, Float::F64, &[code]);
            assert_eq!(found, expected.to_le_bytes(), "F8_E8M0 {code:#x}");
        }
    }

    #[test]
    fn what_is_not_a_number_or_too_large_for_eight_bits_is_told_by_each_as_it_can() {
        let narrowed = |to, value: f32| converted(Float::F32, to, &value.to_le_bytes())[0];
        for (float, largest, past, nan, negative_nan) in [
            // The largest value, what the value after it is, and NaN of either sign.
            (Float::F8E4M3, 448.0, 0x7f, 0x7f, 0xff),
            (Float::F8E5M2, 57_344.0, 0x7c, 0x7e, 0xfe),
            (Float::F8E4M3Fnuz, 240.0, 0x80, 0x80, 0x80),
            (Float::F8E5M2Fnuz, 57_344.0, 0x80, 0x80, 0x80),
        ] {
            let largest: f32 = largest;
            let step = largest - f32::from_bits(largest.to_bits() - (1 << (23 - mantissa_of(float))));
            let middle = largest + step / 2.0;
            let below = f32::from_bits(middle.to_bits() - 1);
            let above = f32::from_bits(middle.to_bits() + 1);
            let code = narrowed(float, largest);
            assert_eq!(narrowed(float, below), code, "{float}");
            assert_eq!(narrowed(float, above), past, "{float}");
            assert_eq!(narrowed(float, f32::INFINITY), past, "{float}");
            assert_eq!(narrowed(float, f32::from_bits(0x7fc0_0000)), nan, "{float}");
            assert_eq!(
                narrowed(float, f32::from_bits(0xffc0_0000)),
                negative_nan,
                "{float}"
            );
            let negative_zero = narrowed(float, -0.0);
            let has_one = matches!(float, Float::F8E4M3 | Float::F8E5M2);
            assert_eq!(negative_zero, if has_one { 0x80 } else { 0 }, "{float}");
        }
    }

    fn mantissa_of(float: Float) -> u32 {
        match float {
            Float::F8E4M3 | Float::F8E4M3Fnuz => 3,
            _ => 2,
        }
    }
}
