//! Which tensors get another dtype on their way, and how.
//!
//! Those of floating-point numbers do, the others stay what they are: integers are indices, counts or packed weights, whose
//! meaning another dtype would lose. `pinlane.load(dtype=)` of the Python package draws the same line.

use pinlane_driver::{Conversion, Float};

use crate::{DType, DTypeError};

/// What the elements of a tensor become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Becomes {
    pub(crate) dtype: DType,
    pub(crate) conversion: Conversion,
}

impl Becomes {
    /// What elements of `from` become where floating-point ones are to be `to`; `None` where they stay what they are.
    pub(crate) fn of(from: DType, to: DType) -> Result<Option<Self>, DTypeError> {
        check_target(to)?;
        if from == to || !from.is_floating_point() {
            return Ok(None);
        }
        match (float(from), float(to)) {
            (Some(source), Some(target)) => {
                let conversion = Conversion::new(source, target).ok_or(DTypeError::NoTarget { dtype: to })?;
                Ok(Some(Self {
                    dtype: to,
                    conversion,
                }))
            }
            _ => Err(DTypeError::NoConversion { from, to }),
        }
    }
}

/// Refuses a dtype that floating-point elements can't become.
pub(crate) fn check_target(to: DType) -> Result<(), DTypeError> {
    let target = float(to).and_then(|to| Conversion::new(to, to));
    target.map(drop).ok_or(DTypeError::NoTarget { dtype: to })
}

/// The driver's word for a dtype, where it has one.
fn float(dtype: DType) -> Option<Float> {
    Some(match dtype {
        DType::F64 => Float::F64,
        DType::F32 => Float::F32,
        DType::F16 => Float::F16,
        DType::BF16 => Float::BF16,
        DType::F8E4M3 => Float::F8E4M3,
        DType::F8E5M2 => Float::F8E5M2,
        DType::F8E8M0 => Float::F8E8M0,
        DType::F8E4M3Fnuz => Float::F8E4M3Fnuz,
        DType::F8E5M2Fnuz => Float::F8E5M2Fnuz,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_as_wide_as_their_dtypes_and_have_their_names() {
        let known: Vec<_> = DType::ALL
            .into_iter()
            .filter_map(|dtype| Some((dtype, float(dtype)?)))
            .collect();
        assert_eq!(known.len(), Float::ALL.len());
        for (dtype, float) in known {
            assert_eq!(dtype.element_bytes(), Some(float.bytes()));
            assert_eq!(dtype.name(), float.to_string());
        }
    }

    #[test]
    fn floating_point_elements_become_what_is_asked_or_are_refused_and_others_stay() {
        for from in DType::ALL {
            for to in DType::ALL {
                let becomes = Becomes::of(from, to);
                let has_a_target = matches!(
                    to,
                    DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2
                ) || matches!(to, DType::F8E4M3Fnuz | DType::F8E5M2Fnuz);
                if !has_a_target {
                    assert_eq!(becomes, Err(DTypeError::NoTarget { dtype: to }), "{from} to {to}");
                } else if from == to || !from.is_floating_point() {
                    assert_eq!(becomes, Ok(None), "{from} to {to}");
                } else if from.is_sub_byte() {
                    assert_eq!(becomes, Err(DTypeError::NoConversion { from, to }));
                } else {
                    let becomes = becomes.expect("a conversion").expect("another dtype");
                    assert_eq!(
                        (becomes.dtype, float(from)),
                        (to, Some(becomes.conversion.from()))
                    );
                }
            }
        }
    }
}
