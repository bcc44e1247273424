//! What one element of a tensor is.
//!
//! Every dtype of the safetensors format, and complex128. A dtype is a name and a width: that is all that moving bytes
//! needs. What the bits mean matters only where values are made or read ([`Element`](crate::Element),
//! [`fill`](crate::fill), [`random`](crate::random), [`reduce`](crate::reduce)).

use std::{fmt, str::FromStr};

/// The type of a tensor's elements.
///
/// Non-exhaustive: hardware keeps inventing formats of few bits, and a new one must not break those who match on this.
///
/// ```
/// use pinlane::DType;
///
/// assert_eq!(DType::BF16.element_bytes(), Some(2));
/// assert_eq!(DType::F8E4M3.name(), "F8_E4M3");
/// assert_eq!("F6_E2M3".parse(), Ok(DType::F6E2M3));
/// assert_eq!(DType::F6E2M3.bytes_for(4), Ok(3));
/// assert!(DType::F6E2M3.bytes_for(3).is_err()); // 18 bits are no whole number of bytes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned integer of 8 bits.
    U8,
    /// Signed integer of 8 bits.
    I8,
    /// Signed integer of 16 bits.
    I16,
    /// Unsigned integer of 16 bits.
    U16,
    /// Signed integer of 32 bits.
    I32,
    /// Unsigned integer of 32 bits.
    U32,
    /// Signed integer of 64 bits.
    I64,
    /// Unsigned integer of 64 bits.
    U64,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an [`F32`](DType::F32).
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Complex: two [`F32`](DType::F32), real part first.
    C64,
    /// Complex: two [`F64`](DType::F64), real part first.
    C128,
    /// 8 bits: 4 of exponent, 3 of mantissa, finite values and NaN only.
    F8E4M3,
    /// 8 bits: 5 of exponent, 2 of mantissa.
    F8E5M2,
    /// 8 bits, all of them exponent: a power of two, the scale of a block. It has no zero.
    F8E8M0,
    /// [`F8E4M3`](DType::F8E4M3) with another bias, no negative zero and one NaN.
    F8E4M3Fnuz,
    /// [`F8E5M2`](DType::F8E5M2) with another bias, no negative zero, no infinity and one NaN.
    F8E5M2Fnuz,
    /// 4 bits: 2 of exponent, 1 of mantissa.
    F4,
    /// 6 bits: 2 of exponent, 3 of mantissa.
    F6E2M3,
    /// 6 bits: 3 of exponent, 2 of mantissa.
    F6E3M2,
}

impl DType {
    /// Every dtype.
    pub const ALL: [Self; 23] = [
        Self::Bool,
        Self::U8,
        Self::I8,
        Self::I16,
        Self::U16,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::F64,
        Self::C64,
        Self::C128,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::F8E8M0,
        Self::F8E4M3Fnuz,
        Self::F8E5M2Fnuz,
        Self::F4,
        Self::F6E2M3,
        Self::F6E3M2,
    ];

    /// The width of one element in bits.
    #[must_use]
    pub const fn bits(self) -> usize {
        match self {
            Self::F4 => 4,
            Self::F6E2M3 | Self::F6E3M2 => 6,
            Self::Bool | Self::U8 | Self::I8 => 8,
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 | Self::F8E4M3Fnuz | Self::F8E5M2Fnuz => 8,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 16,
            Self::I32 | Self::U32 | Self::F32 => 32,
            Self::I64 | Self::U64 | Self::F64 | Self::C64 => 64,
            Self::C128 => 128,
        }
    }

    /// The width of one element in bytes; `None` for a dtype whose elements share bytes.
    #[must_use]
    pub const fn element_bytes(self) -> Option<usize> {
        if self.is_sub_byte() {
            None
        } else {
            Some(self.bits() / 8)
        }
    }

    /// Whether several elements share a byte.
    #[must_use]
    pub const fn is_sub_byte(self) -> bool {
        self.bits() < 8
    }

    /// Whether its elements are floating-point numbers. Complex ones are pairs of them, and don't count.
    #[must_use]
    pub const fn is_floating_point(self) -> bool {
        match self {
            Self::F16 | Self::BF16 | Self::F32 | Self::F64 => true,
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 | Self::F8E4M3Fnuz | Self::F8E5M2Fnuz => true,
            Self::F4 | Self::F6E2M3 | Self::F6E3M2 => true,
            Self::Bool | Self::U8 | Self::I8 | Self::I16 | Self::U16 | Self::I32 | Self::U32 => false,
            Self::I64 | Self::U64 | Self::C64 | Self::C128 => false,
        }
    }

    /// The size in bytes of `elements` elements, packed.
    ///
    /// # Errors
    ///
    /// [`DTypeError::Overflow`] if that is more than an allocation can have (`isize::MAX`), [`DTypeError::PartialByte`]
    /// if it is no whole number of bytes.
    #[inline]
    pub const fn bytes_for(self, elements: usize) -> Result<usize, DTypeError> {
        let bits = elements as u128 * self.bits() as u128;
        if !bits.is_multiple_of(8) {
            return Err(DTypeError::PartialByte {
                dtype: self,
                elements,
            });
        }
        if bits / 8 > isize::MAX as u128 {
            return Err(DTypeError::Overflow {
                dtype: self,
                elements,
            });
        }
        Ok((bits / 8) as usize)
    }

    /// The name, spelled as in safetensors files (`"BF16"`, `"F8_E4M3"`); complex128, which they lack, is `"C128"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::I64 => "I64",
            Self::U64 => "U64",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::C64 => "C64",
            Self::C128 => "C128",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E8M0 => "F8_E8M0",
            Self::F8E4M3Fnuz => "F8_E4M3FNUZ",
            Self::F8E5M2Fnuz => "F8_E5M2FNUZ",
            Self::F4 => "F4",
            Self::F6E2M3 => "F6_E2M3",
            Self::F6E3M2 => "F6_E3M2",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = DTypeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.name() == name)
            .ok_or_else(|| DTypeError::UnknownName { name: name.into() })
    }
}

/// Bytes and a dtype that do not fit each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DTypeError {
    /// No dtype has that name.
    #[error(
        "no dtype is called {name:?}; names are spelled as in safetensors files, such as \"F32\" or \"F8_E4M3\""
    )]
    UnknownName {
        /// The name that was asked for.
        name: String,
    },
    /// More bytes than memory can have.
    #[error(
        "{elements} elements of {dtype} are more bytes than an allocation can have ({})",
        isize::MAX
    )]
    Overflow {
        /// The elements' type.
        dtype: DType,
        /// How many there are.
        elements: usize,
    },
    /// A sub-byte dtype whose last byte would be used in part.
    #[error(
        "{elements} elements of {dtype}, of {} bits each, fill no whole number of bytes; pad the shape",
        dtype.bits()
    )]
    PartialByte {
        /// The elements' type.
        dtype: DType,
        /// How many there are.
        elements: usize,
    },
    /// A read or write as another type than the elements have.
    #[error("elements of {dtype} were asked for as {asked}; name the Rust type of {dtype}")]
    Mismatch {
        /// The type that the elements have.
        dtype: DType,
        /// The type that they were asked for as.
        asked: DType,
    },
    /// Bytes that end in the middle of an element.
    #[error("{bytes} bytes are no whole number of elements of {dtype}")]
    PartialElement {
        /// The elements' type.
        dtype: DType,
        /// How many bytes there are.
        bytes: usize,
    },
    /// Bytes that do not start where a value of the type may.
    #[error(
        "the bytes start {past} past a multiple of {alignment}, which {dtype} needs to be read in place; copy them out \
         instead"
    )]
    Misaligned {
        /// The elements' type.
        dtype: DType,
        /// The alignment of its Rust type, in bytes.
        alignment: usize,
        /// How far past a multiple of the alignment the bytes start.
        past: usize,
    },
    /// A boolean that is neither.
    #[error("element {index}, read as BOOL, is {value:#04x}, which is neither 0 nor 1")]
    NotABool {
        /// The index of the first such element.
        index: usize,
        /// Its byte.
        value: u8,
    },
    /// A dtype that floating-point elements can't become.
    #[error(
        "floating-point elements were to become {dtype}, which would lose what they are; name F64, F32, F16, BF16, F8_E4M3, \
         F8_E5M2, F8_E4M3FNUZ or F8_E5M2FNUZ, or leave the dtype as it is"
    )]
    NoTarget {
        /// What they were to become.
        dtype: DType,
    },
    /// Elements that are no floating-point numbers, or share bytes.
    #[error(
        "elements of {from} were to become {to}, and only floating-point ones of whole bytes can be converted; leave them as \
         they are"
    )]
    NoConversion {
        /// What they are.
        from: DType,
        /// What they were to become.
        to: DType,
    },
    /// Something that this dtype can't do.
    #[error("{operation} does not work on elements of {dtype}")]
    Unsupported {
        /// What was asked for.
        operation: &'static str,
        /// The elements' type.
        dtype: DType,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_dtype() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(format!("{dtype:>12}").trim_start(), dtype.name());
        }
        assert!("F8_E4M3FN".parse::<DType>().is_err());
        assert!("f32".parse::<DType>().is_err());
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::HashSet<_> = DType::ALL.map(DType::name).into();
        assert_eq!(names.len(), DType::ALL.len());
    }

    #[test]
    fn sizes_that_are_no_whole_bytes_are_refused() {
        assert_eq!(DType::F4.bytes_for(6), Ok(3));
        assert!(matches!(
            DType::F4.bytes_for(7),
            Err(DTypeError::PartialByte { elements: 7, .. })
        ));
        assert_eq!(DType::F6E3M2.bytes_for(0), Ok(0));
        assert_eq!(DType::F6E3M2.bytes_for(8), Ok(6));
        assert!(DType::F6E3M2.bytes_for(6).is_err());
    }

    #[test]
    fn sizes_beyond_an_allocation_are_refused() {
        let most = isize::MAX as usize;
        assert_eq!(DType::U8.bytes_for(most), Ok(most));
        for dtype in [DType::U8, DType::F32, DType::C128] {
            assert!(matches!(
                dtype.bytes_for(usize::MAX),
                Err(DTypeError::Overflow { .. })
            ));
        }
        // The bits overflow, the bytes do not.
        assert_eq!(DType::F4.bytes_for(usize::MAX - 1), Ok(most));
    }
}
