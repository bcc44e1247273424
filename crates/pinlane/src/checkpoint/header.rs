//! The header of one safetensors file, by the letter of the format.
//!
//! A file is the length of its header (8 bytes, little-endian), the header, and the tensors' data. The header is one JSON
//! object, padded with spaces: for each tensor a dtype, a shape and where its data lies, and optionally texts in
//! `__metadata__`. The data of the tensors lies end to end from the header's end to the file's, in any order.
//!
//! A header that was read keeps all of that: whoever has a [`Header`] need not check anything again. No length, shape or
//! offset is believed before it is compared with what the file has, and nothing is allocated by what a file claims: only
//! by what it holds.

use std::{fmt, fs::File, os::unix::fs::FileExt as _, path::Path};

use indexmap::{IndexMap, map::Entry};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::{
    CheckpointError, HeaderFault,
    json::{self, Choice, Refusal, Texts},
};
use crate::{DType, DTypeError, Error, Result};

/// The longest header that is read, in bytes: the format's own limit.
pub(super) const LONGEST: u64 = 100_000_000;

/// Bytes of the header's length.
const LENGTH: u64 = 8;

/// About as many bytes of text as a tensor takes: what room is made for follows from what the file holds.
const TEXT_OF_ONE: usize = 120;

/// The name that no tensor can have.
pub(super) const METADATA: &str = "__metadata__";

/// What a safetensors file says of itself: its tensors, in the order of their data, and its metadata.
///
/// ```
/// use pinlane::{DType, checkpoint::Header};
///
/// let json = br#"{"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
/// let header = Header::parse(json, 8)?;
/// assert_eq!(header.tensors()["bias"].dtype, DType::F32);
/// assert!(Header::parse(json, 9).is_err()); // a file with 9 bytes of data has one that belongs to no tensor
/// # Ok::<(), pinlane::checkpoint::HeaderFault>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    tensors: IndexMap<String, TensorInfo>,
    metadata: Option<IndexMap<String, String>>,
    data_start: u64,
}

/// What a header says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// The type of its elements.
    pub dtype: DType,
    /// The size of each dimension.
    pub shape: Box<[usize]>,
    /// Where its data begins, counted from the header's end.
    pub start: u64,
    /// Where its data ends.
    pub end: u64,
}

impl TensorInfo {
    /// The size of its data in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

impl Header {
    /// Reads the header of a file of `file_bytes` bytes.
    pub(super) fn read(file: &File, path: &Path, file_bytes: u64) -> Result<Self> {
        let refuse = |fault| CheckpointError::Header {
            path: path.to_owned(),
            fault,
        };
        if file_bytes < LENGTH {
            return Err(refuse(HeaderFault::NoLength { file_bytes }).into());
        }
        let read = |into: &mut [u8], offset| {
            file.read_exact_at(into, offset).map_err(|source| Error::File {
                doing: format!("reading {} bytes of the header at offset {offset} of", into.len()),
                path: path.to_owned(),
                source,
            })
        };
        let mut length = [0; LENGTH as usize];
        read(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        let data_bytes = Self::check_length(length, file_bytes).map_err(refuse)?;
        let mut json = vec![0; length as usize];
        read(&mut json, LENGTH)?;
        Ok(Self::parse(&json, data_bytes).map_err(refuse)?)
    }

    /// The header at the beginning of a whole file in memory.
    ///
    /// # Errors
    ///
    /// The first rule that is found broken.
    pub fn of_bytes(file: &[u8]) -> Result<Self, HeaderFault> {
        let file_bytes = file.len() as u64;
        let (length, rest) = file
            .split_first_chunk()
            .ok_or(HeaderFault::NoLength { file_bytes })?;
        let length = u64::from_le_bytes(*length);
        let data_bytes = Self::check_length(length, file_bytes)?;
        Self::parse(&rest[..length as usize], data_bytes)
    }

    /// Refuses a header that is too long, or longer than the file; gives the bytes of data behind it.
    fn check_length(length: u64, file_bytes: u64) -> Result<u64, HeaderFault> {
        if length > LONGEST {
            return Err(HeaderFault::TooLong { length });
        }
        file_bytes
            .checked_sub(LENGTH + length)
            .ok_or(HeaderFault::CutOff { length, file_bytes })
    }

    /// The header that `json`, with its padding, says, before `data_bytes` bytes of data.
    ///
    /// # Errors
    ///
    /// The first rule that is found broken.
    pub fn parse(json: &[u8], data_bytes: u64) -> Result<Self, HeaderFault> {
        let object = unpadded(json)?;
        let (mut tensors, metadata) = read_object(object)?;
        if !tensors
            .values()
            .is_sorted_by_key(|tensor| (tensor.start, tensor.end))
        {
            tensors.sort_by(|_, a, _, b| (a.start, a.end).cmp(&(b.start, b.end)));
        }
        check_cover(&tensors, data_bytes)?;
        Ok(Self {
            tensors,
            metadata,
            data_start: LENGTH + json.len() as u64,
        })
    }

    /// The tensors by name, in the order of their data.
    #[must_use]
    pub fn tensors(&self) -> &IndexMap<String, TensorInfo> {
        &self.tensors
    }

    /// The texts in `__metadata__`, in the file's order; `None` where it has no such entry.
    #[must_use]
    pub fn metadata(&self) -> Option<&IndexMap<String, String>> {
        self.metadata.as_ref()
    }

    /// Where in the file the data begins.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    pub(super) fn into_parts(self) -> (IndexMap<String, TensorInfo>, Option<IndexMap<String, String>>) {
        (self.tensors, self.metadata)
    }
}

/// The object without the spaces after it. Whatever else may be before or after an object is still there, and refused.
fn unpadded(json: &[u8]) -> Result<&[u8], HeaderFault> {
    if json.first() != Some(&b'{') {
        return Err(HeaderFault::NotAnObject {
            found: json.first().copied(),
        });
    }
    let padding = json.iter().rev().take_while(|&&byte| byte == b' ').count();
    let object = &json[..json.len() - padding];
    match object.last() {
        Some(b'}') | None => Ok(object),
        Some(&found) => Err(HeaderFault::Padding {
            offset: LENGTH + object.len() as u64 - 1,
            found,
        }),
    }
}

/// Refuses tensors, sorted by their data, that leave or share bytes of the file's data.
fn check_cover(tensors: &IndexMap<String, TensorInfo>, data_bytes: u64) -> Result<(), HeaderFault> {
    let mut end = 0;
    let mut previous: Option<&String> = None;
    for (name, tensor) in tensors {
        let tensor_name = || name.clone();
        match (tensor.start.cmp(&end), previous) {
            (std::cmp::Ordering::Greater, _) => {
                return Err(HeaderFault::Hole {
                    tensor: tensor_name(),
                    from: end,
                    start: tensor.start,
                });
            }
            (std::cmp::Ordering::Less, Some(other)) => {
                return Err(HeaderFault::Overlap {
                    tensor: tensor_name(),
                    other: other.clone(),
                    start: tensor.start,
                    end,
                });
            }
            _ => {}
        }
        if tensor.end > data_bytes {
            return Err(HeaderFault::Truncated {
                tensor: tensor_name(),
                end: tensor.end,
                data_bytes,
            });
        }
        end = tensor.end;
        previous = Some(name);
    }
    if end != data_bytes {
        return Err(HeaderFault::Trailing { end, data_bytes });
    }
    Ok(())
}

type Contents = (IndexMap<String, TensorInfo>, Option<IndexMap<String, String>>);

/// The tensors in the order of the text, and the metadata.
fn read_object(object: &[u8]) -> Result<Contents, HeaderFault> {
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

/// Whether the format has the dtype.
pub(super) fn is_storable(dtype: DType) -> bool {
    dtype != DType::C128
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
