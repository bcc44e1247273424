//! The header of one safetensors file, by the letter of the format.
//!
//! A file is the length of its header (8 bytes, little-endian), the header, and the tensors' data. The header is one JSON
//! object, padded with spaces: for each tensor a dtype, a shape and where its data lies, and optionally texts in
//! `__metadata__`. The data of the tensors lies end to end from the header's end to the file's, in any order.
//!
//! A header that was read keeps all of that: whoever has a [`Header`] need not check anything again. No length, shape or
//! offset is believed before it is compared with what the file has, and nothing is allocated by what a file claims: only
//! by what it holds.

mod scan;
mod text;

use std::{cmp::Ordering, fs::File, os::unix::fs::FileExt as _, path::Path};

use indexmap::IndexMap;

use super::{CheckpointError, HeaderFault};
use crate::{DType, Error, Result};

/// The longest header that is read, in bytes: the format's own limit.
pub(super) const LONGEST: u64 = 100_000_000;

/// Bytes of the header's length.
const LENGTH: u64 = 8;

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
        let (mut tensors, metadata) = text::read(object)?;
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
            (Ordering::Greater, _) => {
                return Err(HeaderFault::Hole {
                    tensor: tensor_name(),
                    from: end,
                    start: tensor.start,
                });
            }
            (Ordering::Less, Some(other)) => {
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

/// Whether the format has the dtype.
pub(super) fn is_storable(dtype: DType) -> bool {
    dtype != DType::C128
}
