//! Random contents for a tensor's bytes, the same for the same seed.
//!
//! The generator is xoshiro256++, seeded from a `u64` by SplitMix64: both are fixed algorithms. One value of the generator
//! makes one uniform element, so that a tensor's contents depend on nothing but seed, dtype and number of elements; a
//! test pins the first of them.

use half::{bf16, f16};
use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};
use rand_distr::{Distribution, StandardNormal};

use crate::{DType, DTypeError, fill::whole_elements};

/// Fills `bytes`, elements of `dtype`, with numbers drawn evenly from `0 <= x < 1`: multiples of half the dtype's
/// epsilon, so that rounding never makes a 1.
///
/// # Errors
///
/// [`DTypeError::Unsupported`] unless `dtype` is F16, BF16, F32 or F64, and [`DTypeError::PartialElement`].
///
/// ```
/// use pinlane::{DType, Element, random};
///
/// let mut bytes = vec![0; 4000];
/// random::uniform(DType::F32, &mut bytes, 42)?;
/// assert!(f32::to_vec(DType::F32, &bytes)?.iter().all(|x| (0.0..1.0).contains(x)));
/// # Ok::<(), pinlane::DTypeError>(())
/// ```
pub fn uniform(dtype: DType, bytes: &mut [u8], seed: u64) -> Result<(), DTypeError> {
    const OPERATION: &str = "drawing uniform numbers";
    whole_elements(dtype, bytes, OPERATION)?;
    let mut generator = Xoshiro256PlusPlus::seed_from_u64(seed);
    // As many of the upper bits as the dtype has digits, behind the point.
    let mut draw = |digits: u32| (generator.next_u64() >> (64 - digits)) as f64 * (-f64::from(digits)).exp2();
    match dtype {
        DType::F16 => write(bytes, || f16::from_f64(draw(f16::MANTISSA_DIGITS)).to_ne_bytes()),
        DType::BF16 => write(bytes, || {
            bf16::from_f64(draw(bf16::MANTISSA_DIGITS)).to_ne_bytes()
        }),
        DType::F32 => write(bytes, || (draw(f32::MANTISSA_DIGITS) as f32).to_ne_bytes()),
        DType::F64 => write(bytes, || draw(f64::MANTISSA_DIGITS).to_ne_bytes()),
        _ => {
            return Err(DTypeError::Unsupported {
                operation: OPERATION,
                dtype,
            });
        }
    }
    Ok(())
}

/// Fills `bytes`, elements of `dtype`, with numbers of the normal distribution of mean 0 and variance 1.
///
/// # Errors
///
/// As for [`uniform`].
pub fn normal(dtype: DType, bytes: &mut [u8], seed: u64) -> Result<(), DTypeError> {
    const OPERATION: &str = "drawing normal numbers";
    whole_elements(dtype, bytes, OPERATION)?;
    let mut generator = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = || -> f64 { StandardNormal.sample(&mut generator) };
    match dtype {
        DType::F16 => write(bytes, || f16::from_f64(draw()).to_ne_bytes()),
        DType::BF16 => write(bytes, || bf16::from_f64(draw()).to_ne_bytes()),
        DType::F32 => write(bytes, || (draw() as f32).to_ne_bytes()),
        DType::F64 => write(bytes, || draw().to_ne_bytes()),
        _ => {
            return Err(DTypeError::Unsupported {
                operation: OPERATION,
                dtype,
            });
        }
    }
    Ok(())
}

fn write<const WIDTH: usize>(bytes: &mut [u8], next: impl FnMut() -> [u8; WIDTH]) {
    let (elements, []) = bytes.as_chunks_mut() else {
        unreachable!("the caller has checked that the bytes are whole elements");
    };
    elements.fill_with(next);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Element;

    type Fill = fn(DType, &mut [u8], u64) -> Result<(), DTypeError>;

    fn drawn<T: Element + Into<f64>>(fill: Fill, elements: usize, seed: u64) -> Vec<f64> {
        let mut bytes = vec![0; elements * size_of::<T>()];
        fill(T::DTYPE, &mut bytes, seed).expect("a float");
        let values = T::to_vec(T::DTYPE, &bytes).expect("just written");
        values.into_iter().map(Into::into).collect()
    }

    fn moments(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance)
    }

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 0.02
    }

    #[test]
    fn uniform_numbers_lie_from_zero_to_below_one_and_are_spread_evenly() {
        for values in [
            drawn::<f16>(uniform, 50_000, 1),
            drawn::<bf16>(uniform, 50_000, 2),
            drawn::<f32>(uniform, 50_000, 3),
            drawn::<f64>(uniform, 50_000, 4),
        ] {
            assert!(values.iter().all(|x| (0.0..1.0).contains(x)));
            let (mean, variance) = moments(&values);
            assert!(near(mean, 0.5) && near(variance, 1.0 / 12.0), "{mean} {variance}");
        }
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        for values in [
            drawn::<f16>(normal, 50_000, 1),
            drawn::<bf16>(normal, 50_000, 2),
            drawn::<f32>(normal, 50_000, 3),
            drawn::<f64>(normal, 50_000, 4),
        ] {
            let (mean, variance) = moments(&values);
            assert!(near(mean, 0.0) && near(variance, 1.0), "{mean} {variance}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        for fill in [uniform as Fill, normal] {
            assert_eq!(drawn::<f32>(fill, 100, 9), drawn::<f32>(fill, 100, 9));
            assert_eq!(drawn::<f32>(fill, 100, 9)[..50], drawn::<f32>(fill, 50, 9));
            assert_ne!(drawn::<f32>(fill, 100, 9), drawn::<f32>(fill, 100, 10));
        }
        assert_eq!(
            drawn::<f64>(uniform, 2, 42),
            [0.8143051451229099, 0.3188210400616611]
        );
        assert_eq!(
            drawn::<f64>(normal, 2, 42),
            [0.8343975468437959, -0.514962928147295]
        );
    }

    #[test]
    fn only_floats_of_16_to_64_bits_are_drawn() {
        for fill in [uniform as Fill, normal] {
            for dtype in [DType::I32, DType::Bool, DType::F8E4M3, DType::F4, DType::C64] {
                assert!(matches!(
                    fill(dtype, &mut [0; 8], 0),
                    Err(DTypeError::Unsupported { .. })
                ));
            }
            assert!(matches!(
                fill(DType::F32, &mut [0; 7], 0),
                Err(DTypeError::PartialElement { .. })
            ));
            assert_eq!(fill(DType::F32, &mut [], 0), Ok(()));
        }
    }
}
