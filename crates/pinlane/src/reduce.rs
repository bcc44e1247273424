//! Sums over a tensor's elements on the host: for checks, not for speed records.
//!
//! Integers and booleans are summed exactly. Floats are summed in `f64`, in blocks whose sums are added with
//! compensation, so that the error does not grow with the number of elements.

use half::{bf16, f16};

use crate::{DType, DTypeError, Element, Layout, LayoutError, StridedCopy};

/// What is gathered at a time, in bytes; a multiple of every element's width that fits in the nearest cache.
const BLOCK: usize = 8192;

/// The sum of the elements that `layout` places in `storage`, each a `dtype`. No element sums to 0.
///
/// # Errors
///
/// [`LayoutError::DType`] for complex numbers and floats below 16 bits, or for a byte that is no boolean, and
/// [`LayoutError::OutsideTensor`] if the storage is too small.
///
/// ```
/// use pinlane::{DType, Element, Layout, reduce};
///
/// let matrix = [1.0_f32, 2.0, 3.0, 4.0];
/// let column = Layout::contiguous(&[2, 2])?.select(1, 0)?;
/// assert_eq!(reduce::sum(DType::F32, &column, f32::as_bytes(&matrix))?, 4.0);
/// # Ok::<(), pinlane::LayoutError>(())
/// ```
pub fn sum(dtype: DType, layout: &Layout, storage: &[u8]) -> Result<f64, LayoutError> {
    match dtype {
        DType::Bool => integers::<bool>(layout, storage),
        DType::U8 => integers::<u8>(layout, storage),
        DType::I8 => integers::<i8>(layout, storage),
        DType::I16 => integers::<i16>(layout, storage),
        DType::U16 => integers::<u16>(layout, storage),
        DType::I32 => integers::<i32>(layout, storage),
        DType::U32 => integers::<u32>(layout, storage),
        DType::I64 => integers::<i64>(layout, storage),
        DType::U64 => integers::<u64>(layout, storage),
        DType::F16 => floats::<f16>(layout, storage),
        DType::BF16 => floats::<bf16>(layout, storage),
        DType::F32 => floats::<f32>(layout, storage),
        DType::F64 => floats::<f64>(layout, storage),
        _ => Err(DTypeError::Unsupported {
            operation: "summing",
            dtype,
        }
        .into()),
    }
}

/// The mean of the elements that `layout` places in `storage`, each a `dtype`. Of no element it is NaN.
///
/// # Errors
///
/// As for [`sum`].
pub fn mean(dtype: DType, layout: &Layout, storage: &[u8]) -> Result<f64, LayoutError> {
    Ok(sum(dtype, layout, storage)? / layout.elements() as f64)
}

fn integers<T: Element + Into<i128>>(layout: &Layout, storage: &[u8]) -> Result<f64, LayoutError> {
    // Wide enough for `isize::MAX` elements of 64 bits.
    let mut sum = 0_i128;
    for_each_block(layout, storage, |block: &[T]| {
        sum += block.iter().map(|&element| element.into()).sum::<i128>();
    })?;
    Ok(sum as f64)
}

fn floats<T: Element + Into<f64>>(layout: &Layout, storage: &[u8]) -> Result<f64, LayoutError> {
    let mut sum = Compensated::default();
    for_each_block(layout, storage, |block: &[T]| sum.add(pairwise(block)))?;
    Ok(sum.value())
}

/// Hands the elements to `each` in logical order, as many at a time as fit in a block.
fn for_each_block<T: Element>(
    layout: &Layout,
    storage: &[u8],
    mut each: impl FnMut(&[T]),
) -> Result<(), LayoutError> {
    let copy = StridedCopy::new(layout, T::DTYPE)?;
    // Aligned for every element.
    let mut block = [0_u128; BLOCK / size_of::<u128>()];
    let block: &mut [u8] = bytemuck::cast_slice_mut(&mut block);
    for start in (0..copy.bytes()).step_by(BLOCK) {
        let block = &mut block[..BLOCK.min(copy.bytes() - start)];
        copy.gather_slice(storage, start, block)?;
        each(T::cast(T::DTYPE, block)?);
    }
    Ok(())
}

/// The sum by halves: the error grows with the logarithm of the length.
fn pairwise<T: Element + Into<f64>>(elements: &[T]) -> f64 {
    const SHORT: usize = 16;
    if elements.len() <= SHORT {
        return elements.iter().map(|&element| element.into()).sum();
    }
    let (left, right) = elements.split_at(elements.len() / 2);
    pairwise(left) + pairwise(right)
}

/// A sum that keeps what each addition rounds away (Neumaier's).
#[derive(Default)]
struct Compensated {
    sum: f64,
    rounded_away: f64,
}

impl Compensated {
    fn add(&mut self, term: f64) {
        let sum = self.sum + term;
        self.rounded_away += if self.sum.abs() >= term.abs() {
            (self.sum - sum) + term
        } else {
            (term - sum) + self.sum
        };
        self.sum = sum;
    }

    fn value(&self) -> f64 {
        // Nothing meaningful is rounded away from an infinity.
        if self.sum.is_finite() {
            self.sum + self.rounded_away
        } else {
            self.sum
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of<T: Element>(elements: &[T]) -> f64 {
        let layout = Layout::contiguous(&[elements.len()]).expect("small");
        sum(T::DTYPE, &layout, T::as_bytes(elements)).expect("a number")
    }

    #[test]
    fn every_number_sums() {
        assert_eq!(sum_of(&[true, false, true]), 2.0);
        assert_eq!(sum_of(&[200_u8; 9000]), 1_800_000.0);
        assert_eq!(sum_of(&[i8::MIN, -1]), -129.0);
        assert_eq!(sum_of(&[i16::MAX; 2]), 65534.0);
        assert_eq!(sum_of(&[u16::MAX; 2]), 131_070.0);
        assert_eq!(sum_of(&[i32::MIN; 2]), -4_294_967_296.0);
        assert_eq!(sum_of(&[u32::MAX; 2]), 8_589_934_590.0);
        assert_eq!(sum_of(&[1_i64 << 62, 1, -(1 << 62)]), 1.0);
        assert_eq!(sum_of(&[u64::MAX; 2]), 2.0_f64.powi(65));
        assert_eq!(sum_of(&[f16::from_f32(0.5); 5000]), 2500.0);
        assert_eq!(sum_of(&[bf16::from_f32(0.5); 5000]), 2500.0);
        assert_eq!(sum_of(&[0.25_f32; 5000]), 1250.0);
        assert_eq!(sum_of::<f64>(&[]), 0.0);
    }

    #[test]
    fn what_blocks_round_away_is_kept() {
        // Each block of ones is lost beside 2^60 if it is just added.
        let mut elements = vec![1.0_f64; 1024 * 101];
        elements[..1024].fill(0.0);
        elements[0] = 60_f64.exp2();
        *elements.last_mut().expect("many") = -60_f64.exp2();
        assert_eq!(sum_of(&elements[..1024 * 100]), 60_f64.exp2() + 1024.0 * 99.0);
        let rounded = (sum_of(&elements) - (1024.0 * 100.0 - 1.0)).abs();
        assert!(rounded <= 256.0, "{rounded}");
    }

    #[test]
    fn what_is_not_finite_shows_in_the_sum() {
        assert_eq!(sum_of(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(sum_of(&vec![f64::MAX; 4096]), f64::INFINITY);
        assert!(sum_of(&[f32::INFINITY, f32::NEG_INFINITY]).is_nan());
        assert!(sum_of(&[f32::NAN, 1.0]).is_nan());
    }

    #[test]
    fn only_what_the_layout_reaches_counts() {
        let storage: Vec<i32> = (0..12).collect();
        let bytes = i32::as_bytes(&storage);
        let column = Layout::contiguous(&[3, 4]).unwrap().select(1, 2).unwrap();
        assert_eq!(sum(DType::I32, &column, bytes), Ok(18.0));
        assert_eq!(mean(DType::I32, &column, bytes), Ok(6.0));
        let repeated = column.unsqueeze(0).unwrap().expand(&[5, 3]).unwrap();
        assert_eq!(sum(DType::I32, &repeated, bytes), Ok(90.0));
        assert!(matches!(
            sum(DType::I32, &column, &bytes[..40]),
            Err(LayoutError::OutsideTensor { .. })
        ));
    }

    #[test]
    fn the_mean_of_nothing_is_not_a_number() {
        let empty = Layout::contiguous(&[0]).unwrap();
        assert!(mean(DType::F32, &empty, &[]).unwrap().is_nan());
    }

    #[test]
    fn what_has_no_order_of_numbers_does_not_sum() {
        let one = Layout::contiguous(&[]).unwrap();
        for dtype in [DType::C64, DType::C128, DType::F8E4M3, DType::F8E8M0] {
            assert_eq!(
                sum(dtype, &one, &[0; 16]),
                Err(LayoutError::DType(DTypeError::Unsupported {
                    operation: "summing",
                    dtype
                }))
            );
        }
        assert!(sum(DType::Bool, &one, &[2]).is_err());
    }
}
