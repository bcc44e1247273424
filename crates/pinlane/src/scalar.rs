//! Numbers on their way into elements.
//!
//! Every dtype that a host has arithmetic for takes them: booleans, integers, floats from 16 bits on, and complex numbers,
//! whose imaginary part becomes 0. A number is written only where the dtype has it: an integer exactly, a float rounded to the nearest one that is still
//! finite. Nothing is cut off or wrapped around.

use std::fmt;

use half::{bf16, f16};

use crate::{DType, DTypeError, Element, FillError};

/// A number, before a dtype is chosen for it. Made from any of Rust's numbers and from `bool` (0 or 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// A whole number; wide enough for every integer dtype.
    Integer(i128),
    /// Any other.
    Float(f64),
}

macro_rules! scalar_from {
    ($variant:ident: $($number:ty),*) => {$(
        impl From<$number> for Scalar {
            fn from(number: $number) -> Self {
                Self::$variant(number.into())
            }
        }
    )*};
}

scalar_from!(Integer: bool, i8, i16, i32, i64, i128, u8, u16, u32, u64);
scalar_from!(Float: f16, bf16, f32, f64);

impl Scalar {
    /// The nearest `f64`.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    /// The same number as an integer, if it is one.
    fn to_integer(self) -> Option<i128> {
        match self {
            Self::Integer(number) => Some(number),
            // No dtype has integers beyond, and up to there the conversion is exact.
            Self::Float(number) => {
                (number.fract() == 0.0 && number.abs() < 100_f64.exp2()).then_some(number as i128)
            }
        }
    }

    /// Writes the number as one element of `dtype`, which is `element.len()` bytes wide.
    pub(crate) fn write(self, dtype: DType, element: &mut [u8]) -> Result<(), FillError> {
        let written = match dtype {
            DType::Bool => self.write_as::<bool>(element),
            DType::U8 => self.write_as::<u8>(element),
            DType::I8 => self.write_as::<i8>(element),
            DType::I16 => self.write_as::<i16>(element),
            DType::U16 => self.write_as::<u16>(element),
            DType::I32 => self.write_as::<i32>(element),
            DType::U32 => self.write_as::<u32>(element),
            DType::I64 => self.write_as::<i64>(element),
            DType::U64 => self.write_as::<u64>(element),
            DType::F16 => self.write_as::<f16>(element),
            DType::BF16 => self.write_as::<bf16>(element),
            DType::F32 => self.write_as::<f32>(element),
            DType::F64 => self.write_as::<f64>(element),
            DType::C64 => self.write_as::<[f32; 2]>(element),
            DType::C128 => self.write_as::<[f64; 2]>(element),
            _ => {
                return Err(DTypeError::Unsupported {
                    operation: "writing a number",
                    dtype,
                }
                .into());
            }
        };
        written.ok_or(FillError::NoSuchValue { dtype, value: self })
    }

    fn write_as<T: Number>(self, element: &mut [u8]) -> Option<()> {
        element.copy_from_slice(T::as_bytes(&[T::from_scalar(self)?]));
        Some(())
    }
}

/// An element that a number can become.
trait Number: Element {
    /// `None` if the type has no such value.
    fn from_scalar(scalar: Scalar) -> Option<Self>;
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Number for $integer {
            fn from_scalar(scalar: Scalar) -> Option<Self> {
                scalar.to_integer()?.try_into().ok()
            }
        }
    )*};
}

integers!(u8, i8, i16, u16, i32, u32, i64, u64);

macro_rules! floats {
    ($($float:ty: $from_f64:expr),*) => {$(
        impl Number for $float {
            fn from_scalar(scalar: Scalar) -> Option<Self> {
                let number = scalar.to_f64();
                let rounded: $float = $from_f64(number);
                // A number too large for the type would become an infinity.
                (rounded.is_finite() || !number.is_finite()).then_some(rounded)
            }
        }
    )*};
}

floats!(f16: f16::from_f64, bf16: bf16::from_f64, f32: |number| number as f32, f64: f64::from);

impl Number for bool {
    fn from_scalar(scalar: Scalar) -> Option<Self> {
        match scalar.to_integer()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Number for [f32; 2] {
    fn from_scalar(scalar: Scalar) -> Option<Self> {
        Some([Number::from_scalar(scalar)?, 0.0])
    }
}

impl Number for [f64; 2] {
    fn from_scalar(scalar: Scalar) -> Option<Self> {
        Some([Number::from_scalar(scalar)?, 0.0])
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
        }
    }
}
