//! The JSON of a header: what is a tensor, and what is said twice, unknown or of the wrong size.

use std::fmt;

use indexmap::{IndexMap, map::Entry};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::{LENGTH, METADATA, TensorInfo, is_storable};
use crate::{
    DType, DTypeError,
    checkpoint::{
        HeaderFault,
        json::{self, Choice, Refusal, Texts},
    },
};

/// About as many bytes of text as a tensor takes: what room is made for follows from what the file holds.
const TEXT_OF_ONE: usize = 120;

type Contents = (IndexMap<String, TensorInfo>, Option<IndexMap<String, String>>);

/// The tensors in the order of the text, and the metadata.
pub(super) fn read(object: &[u8]) -> Result<Contents, HeaderFault> {
    let mut reading = None;
    let parsed = json::parse(
        object,
        |deserializer, refusal| {
            deserializer.deserialize_map(Tensors {
                expected: object.len() / TEXT_OF_ONE,
                refusal,
                reading: &mut reading,
            })
        },
        |offset, reason| HeaderFault::Json {
            tensor: None,
            offset: LENGTH + offset as u64,
            reason,
        },
    );
    parsed.map_err(|mut fault| {
        if let HeaderFault::Json { tensor, .. } = &mut fault {
            *tensor = reading;
        }
        fault
    })
}

/// The whole object.
struct Tensors<'a> {
    /// About how many there are.
    expected: usize,
    refusal: &'a mut Refusal<HeaderFault>,
    /// The tensor whose fields were being read when the text turned out to be wrong.
    reading: &'a mut Option<String>,
}

impl<'de> Visitor<'de> for Tensors<'_> {
    type Value = Contents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Contents, A::Error> {
        let mut tensors = IndexMap::with_capacity(self.expected);
        let mut metadata = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                if metadata.is_some() {
                    return Err(self.refusal.because(HeaderFault::MetadataTwice));
                }
                metadata = Some(map.next_value_seed(Texts {
                    refusal: self.refusal,
                    twice: |key| HeaderFault::MetadataKeyTwice { key },
                })?);
                continue;
            }
            match tensors.entry(name) {
                Entry::Occupied(taken) => {
                    let tensor = taken.key().clone();
                    return Err(self.refusal.because(HeaderFault::TensorTwice { tensor }));
                }
                Entry::Vacant(free) => {
                    let fields = Fields {
                        tensor: free.key(),
                        refusal: self.refusal,
                    };
                    match map.next_value_seed(fields) {
                        Ok(tensor) => free.insert(tensor),
                        Err(error) => {
                            *self.reading = Some(free.key().clone());
                            return Err(error);
                        }
                    };
                }
            }
        }
        Ok((tensors, metadata))
    }
}

/// The fields of one tensor.
struct Fields<'a> {
    tensor: &'a str,
    refusal: &'a mut Refusal<HeaderFault>,
}

enum Field {
    DType,
    Shape,
    Offsets,
    Unknown(String),
}

impl Field {
    fn of(name: &str) -> Self {
        match name {
            "dtype" => Self::DType,
            "shape" => Self::Shape,
            "data_offsets" => Self::Offsets,
            other => Self::Unknown(other.to_owned()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = TensorInfo;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TensorInfo, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = TensorInfo;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TensorInfo, A::Error> {
        let tensor = || self.tensor.to_owned();
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key_seed(Choice(Field::of))? {
            let twice = match field {
                Field::DType => {
                    let found = map.next_value_seed(Choice(|name: &str| {
                        dtype_of(name).ok_or_else(|| name.to_owned())
                    }))?;
                    let found = match found {
                        Ok(found) => found,
                        Err(dtype) => {
                            let tensor = tensor();
                            return Err(self.refusal.because(HeaderFault::UnknownDType { tensor, dtype }));
                        }
                    };
                    dtype.replace(found).is_some().then_some("dtype")
                }
                Field::Shape => shape
                    .replace(map.next_value::<Vec<usize>>()?)
                    .is_some()
                    .then_some("shape"),
                Field::Offsets => offsets
                    .replace(map.next_value::<[u64; 2]>()?)
                    .is_some()
                    .then_some("data_offsets"),
                Field::Unknown(field) => {
                    let tensor = tensor();
                    return Err(self.refusal.because(HeaderFault::UnknownField { tensor, field }));
                }
            };
            if let Some(field) = twice {
                let tensor = tensor();
                return Err(self.refusal.because(HeaderFault::FieldTwice { tensor, field }));
            }
        }
        let missing = |field| HeaderFault::MissingField {
            tensor: tensor(),
            field,
        };
        let made = dtype.ok_or_else(|| missing("dtype")).and_then(|dtype| {
            let shape = shape.ok_or_else(|| missing("shape"))?;
            let [start, end] = offsets.ok_or_else(|| missing("data_offsets"))?;
            sized(self.tensor, dtype, shape, start, end)
        });
        made.map_err(|fault| self.refusal.because(fault))
    }
}

/// The dtype of that name in the format, which is every dtype but complex128.
fn dtype_of(name: &str) -> Option<DType> {
    name.parse().ok().filter(|&dtype| is_storable(dtype))
}

/// The tensor, where its dtype and shape are those of its bytes.
fn sized(
    tensor: &str,
    dtype: DType,
    shape: Vec<usize>,
    start: u64,
    end: u64,
) -> Result<TensorInfo, HeaderFault> {
    let tensor = || tensor.to_owned();
    if end < start {
        return Err(HeaderFault::Backwards {
            tensor: tensor(),
            start,
            end,
        });
    }
    let bytes = elements(&shape).map(|elements| dtype.bytes_for(elements));
    let bytes = match bytes {
        Some(Ok(bytes)) => bytes as u64,
        Some(Err(DTypeError::PartialByte { .. })) => {
            return Err(HeaderFault::PartialByte {
                tensor: tensor(),
                dtype,
                shape,
            });
        }
        Some(Err(_)) | None => {
            return Err(HeaderFault::TooLarge {
                tensor: tensor(),
                dtype,
                shape,
            });
        }
    };
    if bytes != end - start {
        return Err(HeaderFault::WrongSize {
            tensor: tensor(),
            dtype,
            shape,
            bytes,
            start,
            end,
        });
    }
    Ok(TensorInfo {
        dtype,
        shape: shape.into(),
        start,
        end,
    })
}

/// The number of elements, where a [`Layout`](crate::Layout) can have that shape: sizes beside a zero count too.
fn elements(shape: &[usize]) -> Option<usize> {
    let product = shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size.max(1)))
        .filter(|&product| isize::try_from(product).is_ok())?;
    Some(if shape.contains(&0) { 0 } else { product })
}
