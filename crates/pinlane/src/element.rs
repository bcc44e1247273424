//! Rust's types for the dtypes that have one, and the casts between their slices and bytes.

use bytemuck::{CheckedBitPattern, NoUninit};
use half::{bf16, f16};

use crate::{DType, DTypeError};

/// A Rust type that is the element of a dtype, in memory bit for bit.
///
/// Complex numbers are `[f32; 2]` and `[f64; 2]`, real part first. The trait is sealed: each implementation is as wide
/// as its dtype.
///
/// ```
/// use pinlane::{DType, Element};
///
/// let values = [1.0_f32, 2.0];
/// let bytes = f32::as_bytes(&values);
/// assert_eq!(bytes.len(), 8);
/// assert_eq!(f32::cast(DType::F32, bytes)?, &values);
/// assert!(u32::cast(DType::F32, bytes).is_err()); // elements of F32 are no u32
/// # Ok::<(), pinlane::DTypeError>(())
/// ```
pub trait Element: CheckedBitPattern + NoUninit + Send + Sync + sealed::Sealed {
    /// The dtype whose element this is.
    const DTYPE: DType;

    /// Reads `bytes`, elements of `dtype`, in place.
    ///
    /// # Errors
    ///
    /// [`DTypeError::Mismatch`] if `dtype` is not [`DTYPE`](Self::DTYPE), [`DTypeError::PartialElement`],
    /// [`DTypeError::Misaligned`], and [`DTypeError::NotABool`].
    fn cast(dtype: DType, bytes: &[u8]) -> Result<&[Self], DTypeError> {
        check_elements::<Self>(dtype, bytes)?;
        check_alignment::<Self>(bytes)?;
        bytemuck::checked::try_cast_slice(bytes).map_err(|_| not_a_bool(bytes))
    }

    /// Reads and writes `bytes`, elements of `dtype`, in place.
    ///
    /// # Errors
    ///
    /// As for [`cast`](Self::cast).
    fn cast_mut(dtype: DType, bytes: &mut [u8]) -> Result<&mut [Self], DTypeError> {
        // The error must look at the bytes, which the mutable cast would still hold: so the check comes first.
        Self::cast(dtype, bytes)?;
        Ok(bytemuck::checked::cast_slice_mut(bytes))
    }

    /// Copies `bytes`, elements of `dtype`, out. They may start at any address.
    ///
    /// # Errors
    ///
    /// As for [`cast`](Self::cast), but for the alignment.
    fn to_vec(dtype: DType, bytes: &[u8]) -> Result<Vec<Self>, DTypeError> {
        check_elements::<Self>(dtype, bytes)?;
        bytes
            .chunks_exact(size_of::<Self>())
            .map(|element| bytemuck::checked::try_pod_read_unaligned(element).map_err(|_| not_a_bool(bytes)))
            .collect()
    }

    /// The bytes of `elements`.
    fn as_bytes(elements: &[Self]) -> &[u8] {
        bytemuck::cast_slice(elements)
    }
}

fn check_elements<T: Element>(dtype: DType, bytes: &[u8]) -> Result<(), DTypeError> {
    if dtype != T::DTYPE {
        return Err(DTypeError::Mismatch {
            dtype,
            asked: T::DTYPE,
        });
    }
    if !bytes.len().is_multiple_of(size_of::<T>()) {
        return Err(DTypeError::PartialElement {
            dtype,
            bytes: bytes.len(),
        });
    }
    Ok(())
}

fn check_alignment<T: Element>(bytes: &[u8]) -> Result<(), DTypeError> {
    let past = bytes.as_ptr().addr() % align_of::<T>();
    // bytemuck casts an empty slice from an aligned address only, as any other.
    if past != 0 {
        return Err(DTypeError::Misaligned {
            dtype: T::DTYPE,
            alignment: align_of::<T>(),
            past,
        });
    }
    Ok(())
}

/// Only `bool` has bit patterns that are no value; `bytes` holds at least one of them.
fn not_a_bool(bytes: &[u8]) -> DTypeError {
    let index = bytes.iter().take_while(|&&byte| byte <= 1).count();
    DTypeError::NotABool {
        index,
        value: bytes.get(index).copied().unwrap_or_default(),
    }
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $element {}

        impl Element for $element {
            const DTYPE: DType = DType::$dtype;
        }

        const _: () = assert!(size_of::<$element>() * 8 == DType::$dtype.bits());
    )*};
}

elements! {
    bool => Bool,
    u8 => U8,
    i8 => I8,
    i16 => I16,
    u16 => U16,
    i32 => I32,
    u32 => U32,
    i64 => I64,
    u64 => U64,
    f16 => F16,
    bf16 => BF16,
    f32 => F32,
    f64 => F64,
    [f32; 2] => C64,
    [f64; 2] => C128,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_gives_the_same_values_in_place_and_copied() {
        let values = [[1.5_f64, -2.0], [0.0, f64::INFINITY]];
        let bytes = <[f64; 2]>::as_bytes(&values);
        assert_eq!(<[f64; 2]>::cast(DType::C128, bytes), Ok(&values[..]));
        assert_eq!(<[f64; 2]>::to_vec(DType::C128, bytes), Ok(values.to_vec()));
    }

    #[test]
    fn a_write_through_a_cast_changes_the_bytes() {
        let mut storage = [7_u64];
        u64::cast_mut(DType::U64, bytemuck::cast_slice_mut(&mut storage)).expect("aligned")[0] += 1;
        assert_eq!(storage, [8]);
    }

    #[test]
    fn another_dtype_of_the_same_width_is_refused() {
        assert_eq!(
            f16::cast(DType::BF16, &[]),
            Err(DTypeError::Mismatch {
                dtype: DType::BF16,
                asked: DType::F16
            })
        );
    }

    #[test]
    fn bytes_that_are_misaligned_are_refused_in_place_and_copied_out() {
        let storage = [1_u32, 2, 3];
        let bytes = u32::as_bytes(&storage);
        let shifted = &bytes[2..10];
        assert_eq!(
            u32::cast(DType::U32, shifted),
            Err(DTypeError::Misaligned {
                dtype: DType::U32,
                alignment: 4,
                past: 2
            })
        );
        let copied = u32::to_vec(DType::U32, shifted).expect("copied");
        assert_eq!(u32::as_bytes(&copied), shifted);
    }

    #[test]
    fn bytes_that_end_within_an_element_are_refused() {
        let storage = [0_u32; 2];
        let bytes = &u32::as_bytes(&storage)[..7];
        let error = DTypeError::PartialElement {
            dtype: DType::U32,
            bytes: 7,
        };
        assert_eq!(u32::cast(DType::U32, bytes), Err(error.clone()));
        assert_eq!(u32::to_vec(DType::U32, bytes), Err(error));
    }

    #[test]
    fn a_byte_that_is_neither_true_nor_false_is_named() {
        let mut bytes = [0, 1, 1, 2, 3];
        let error = DTypeError::NotABool { index: 3, value: 2 };
        assert_eq!(bool::cast(DType::Bool, &bytes), Err(error.clone()));
        assert_eq!(bool::cast_mut(DType::Bool, &mut bytes), Err(error.clone()));
        assert_eq!(bool::to_vec(DType::Bool, &bytes), Err(error));
        assert_eq!(
            bool::to_vec(DType::Bool, &bytes[..3]),
            Ok(vec![false, true, true])
        );
    }
}
