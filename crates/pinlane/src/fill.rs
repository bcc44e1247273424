//! Known contents for a tensor's bytes: one value, or a sequence.
//!
//! Values are given as a [`Scalar`]; a value that the dtype does not have is an error. Zeros need nothing from here: all
//! bits zero are zero in every dtype that has one.

use crate::{DType, DTypeError, Scalar};

/// Fills `bytes`, elements of `dtype`, with one value.
///
/// # Errors
///
/// [`FillError::NoSuchValue`] if the dtype lacks the value, and [`FillError::DType`] if it has no numbers that a host
/// can write, or if `bytes` ends within an element.
///
/// ```
/// use pinlane::{DType, fill};
///
/// let mut bytes = [0; 6];
/// fill::full(DType::I16, &mut bytes, -1)?;
/// assert_eq!(bytes, [0xFF; 6]);
/// assert!(fill::full(DType::U16, &mut bytes, -1).is_err());
/// # Ok::<(), pinlane::FillError>(())
/// ```
pub fn full(dtype: DType, bytes: &mut [u8], value: impl Into<Scalar>) -> Result<(), FillError> {
    let value = value.into();
    let mut element = [0; 16];
    let element = &mut element[..whole_elements(dtype, bytes, "filling with a number")?];
    value.write(dtype, element)?;
    if bytes.is_empty() {
        return Ok(());
    }
    let mut filled = element.len();
    bytes[..filled].copy_from_slice(element);
    while filled < bytes.len() {
        let more = filled.min(bytes.len() - filled);
        bytes.copy_within(..more, filled);
        filled += more;
    }
    Ok(())
}

/// The numbers from `start` on, `step` apart, that come before `end`: torch's `arange`. Exact if all three are
/// integers, else counted in `f64` as `start + index * step`.
///
/// ```
/// use pinlane::{Arange, DType, Element};
///
/// let numbers = Arange::new(0.0, 1.0, 0.25)?;
/// let mut bytes = vec![0; numbers.elements() * 8];
/// numbers.fill(DType::F64, &mut bytes)?;
/// assert_eq!(f64::to_vec(DType::F64, &bytes)?, [0.0, 0.25, 0.5, 0.75]);
/// # Ok::<(), pinlane::FillError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arange {
    start: Scalar,
    step: Scalar,
    elements: usize,
}

impl Arange {
    /// # Errors
    ///
    /// [`FillError::Arange`] if `step` is zero or leads away from `end`, if one of the three is not finite, or if there
    /// are more numbers than memory can hold.
    pub fn new(
        start: impl Into<Scalar>,
        end: impl Into<Scalar>,
        step: impl Into<Scalar>,
    ) -> Result<Self, FillError> {
        let (start, end, step) = (start.into(), end.into(), step.into());
        let elements = match (start, end, step) {
            (Scalar::Integer(start), Scalar::Integer(end), Scalar::Integer(step)) => {
                end.checked_sub(start).and_then(|length| steps(length, step))
            }
            _ => {
                let steps = (end.to_f64() - start.to_f64()) / step.to_f64();
                // A step of zero, and what is not finite, give NaN or infinity: in no range.
                let is_finite = step.to_f64().is_finite() && (0.0..isize::MAX as f64).contains(&steps);
                is_finite.then_some(steps.ceil() as usize)
            }
        };
        match elements {
            Some(elements) => Ok(Self {
                start,
                step,
                elements,
            }),
            None => Err(FillError::Arange { start, end, step }),
        }
    }

    /// How many numbers there are.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Writes the numbers to `bytes`, elements of `dtype`.
    ///
    /// # Errors
    ///
    /// As for [`full`], and [`FillError::Length`] if there are not as many elements as numbers. What is written until
    /// then stays.
    pub fn fill(&self, dtype: DType, bytes: &mut [u8]) -> Result<(), FillError> {
        let width = whole_elements(dtype, bytes, "counting")?;
        if bytes.len() / width != self.elements {
            return Err(FillError::Length {
                numbers: self.elements,
                elements: bytes.len() / width,
            });
        }
        for (index, element) in bytes.chunks_exact_mut(width).enumerate() {
            let number = match (self.start, self.step) {
                (Scalar::Integer(start), Scalar::Integer(step)) => {
                    Scalar::Integer(start + index as i128 * step)
                }
                (start, step) => Scalar::Float(start.to_f64() + index as f64 * step.to_f64()),
            };
            number.write(dtype, element)?;
        }
        Ok(())
    }
}

/// How many steps begin before the whole length is walked, if they lead along it.
fn steps(length: i128, step: i128) -> Option<usize> {
    if length.signum() * step.signum() < 0 {
        return None;
    }
    let last_is_short = length.checked_rem(step)? != 0;
    let steps = length.checked_div(step)?.checked_add(last_is_short.into())?;
    isize::try_from(steps).ok()?.try_into().ok()
}

/// The width of an element, if `bytes` is a whole number of them.
pub(crate) fn whole_elements(
    dtype: DType,
    bytes: &[u8],
    operation: &'static str,
) -> Result<usize, DTypeError> {
    let width = dtype
        .element_bytes()
        .ok_or(DTypeError::Unsupported { operation, dtype })?;
    if !bytes.len().is_multiple_of(width) {
        return Err(DTypeError::PartialElement {
            dtype,
            bytes: bytes.len(),
        });
    }
    Ok(width)
}

/// Contents that a tensor can't have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// A value that the dtype does not have.
    #[error("a tensor of {dtype} can't hold {value}: the type has no such value; choose a wider one")]
    NoSuchValue {
        /// The elements' type.
        dtype: DType,
        /// The value that was to be written.
        value: Scalar,
    },
    /// A sequence that never ends, or never begins.
    #[error(
        "no sequence goes from {start} to {end} in steps of {step}: the step must lead towards the end, and the three \
         be finite and give a number of elements that fits in memory"
    )]
    Arange {
        /// The first number.
        start: Scalar,
        /// The number to stop before.
        end: Scalar,
        /// From one number to the next.
        step: Scalar,
    },
    /// A sequence of another length than the tensor.
    #[error("a sequence of {numbers} numbers was to fill {elements} elements")]
    Length {
        /// The numbers of the sequence.
        numbers: usize,
        /// The elements to be filled.
        elements: usize,
    },
    /// The elements' type has no numbers, or the bytes are no whole elements.
    #[error(transparent)]
    DType(#[from] DTypeError),
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::Element;

    fn filled<T: Element>(value: impl Into<Scalar>) -> Result<T, FillError> {
        let mut bytes = vec![0xAA; 3 * size_of::<T>()];
        full(T::DTYPE, &mut bytes, value)?;
        let values = T::to_vec(T::DTYPE, &bytes)?;
        assert!(
            bytes
                .chunks(size_of::<T>())
                .all(|element| element == T::as_bytes(&values[..1]))
        );
        Ok(values[0])
    }

    #[test]
    fn one_value_fills_every_element_of_every_dtype_with_numbers() {
        assert_eq!(filled::<bool>(true), Ok(true));
        assert_eq!(filled::<u8>(255), Ok(255));
        assert_eq!(filled::<i8>(-128), Ok(-128));
        assert_eq!(filled::<i16>(-2.0), Ok(-2));
        assert_eq!(filled::<u16>(65535), Ok(65535));
        assert_eq!(filled::<i32>(i32::MIN), Ok(i32::MIN));
        assert_eq!(filled::<u32>(u32::MAX), Ok(u32::MAX));
        assert_eq!(filled::<i64>(i64::MIN), Ok(i64::MIN));
        assert_eq!(filled::<u64>(u64::MAX), Ok(u64::MAX));
        assert_eq!(filled::<f16>(1.5), Ok(f16::from_f32(1.5)));
        assert_eq!(filled::<bf16>(f64::INFINITY), Ok(bf16::INFINITY));
        assert_eq!(filled::<f32>(0.1), Ok(0.1));
        assert_eq!(filled::<f64>(7), Ok(7.0));
        assert_eq!(filled::<[f32; 2]>(-1), Ok([-1.0, 0.0]));
        assert_eq!(filled::<[f64; 2]>(0.1), Ok([0.1, 0.0]));
    }

    #[test]
    fn a_value_that_the_dtype_lacks_is_refused() {
        assert!(filled::<bool>(2).is_err());
        assert!(filled::<u8>(-1).is_err());
        assert!(filled::<i32>(1.5).is_err());
        assert!(filled::<i64>(f64::NAN).is_err());
        assert!(filled::<u64>(1e300).is_err());
        assert!(filled::<f16>(1e6).is_err());
        assert!(filled::<bf16>(1e39).is_err());
        assert!(filled::<f32>(f64::MAX).is_err());
        assert!(full(DType::F8E4M3, &mut [0], 1).is_err());
        assert!(full(DType::F4, &mut [0], 1).is_err());
        assert!(full(DType::F32, &mut [0; 7], 1).is_err());
        assert_eq!(full(DType::F32, &mut [], 1), Ok(()));
    }

    fn numbers<T: Element>(arange: Arange) -> Vec<T> {
        let mut bytes = vec![0; arange.elements() * size_of::<T>()];
        arange.fill(T::DTYPE, &mut bytes).expect("the numbers fit");
        T::to_vec(T::DTYPE, &bytes).expect("just written")
    }

    #[test]
    fn a_sequence_stops_before_its_end_in_both_directions() {
        assert_eq!(numbers::<i32>(Arange::new(0, 7, 3).unwrap()), [0, 3, 6]);
        assert_eq!(numbers::<i32>(Arange::new(0, 6, 3).unwrap()), [0, 3]);
        assert_eq!(numbers::<i8>(Arange::new(2, -3, -2).unwrap()), [2, 0, -2]);
        assert_eq!(numbers::<f32>(Arange::new(1.0, 0.0, -0.5).unwrap()), [1.0, 0.5]);
        assert!(numbers::<u8>(Arange::new(4, 4, -1).unwrap()).is_empty());
        let top = numbers::<u64>(Arange::new(u64::MAX - 1, 1_i128 << 64, 1).unwrap());
        assert_eq!(top, [u64::MAX - 1, u64::MAX]);
    }

    #[test]
    fn a_sequence_without_end_is_refused() {
        assert!(Arange::new(0, 1, 0).is_err());
        assert!(Arange::new(0.0, 1.0, 0.0).is_err());
        assert!(Arange::new(0.0, 0.0, 0.0).is_err());
        assert!(Arange::new(0, 1, -1).is_err());
        assert!(Arange::new(0, 1, -2).is_err());
        assert!(Arange::new(0.0, 1.0, -5.0).is_err());
        assert!(Arange::new(0.0, f64::INFINITY, 1.0).is_err());
        assert!(Arange::new(0.0, 1.0, f64::INFINITY).is_err());
        assert!(Arange::new(f64::NAN, 1.0, 1.0).is_err());
        assert!(Arange::new(0, i128::MAX, 1).is_err());
        assert!(Arange::new(i128::MIN, i128::MAX, 1).is_err());
        assert!(Arange::new(i128::MIN, 0, -1).is_err());
    }

    #[test]
    fn a_sequence_fills_as_many_elements_as_it_has_numbers() {
        let three = Arange::new(0, 3, 1).unwrap();
        assert!(matches!(
            three.fill(DType::U16, &mut [0; 4]),
            Err(FillError::Length {
                numbers: 3,
                elements: 2
            })
        ));
        assert!(
            Arange::new(254, 257, 1)
                .unwrap()
                .fill(DType::U8, &mut [0; 3])
                .is_err()
        );
    }
}
