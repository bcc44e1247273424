//! What can be wrong with the headers and indexes of a checkpoint.

use super::{header, index};
use crate::DType;

/// A rule of the format that a header breaks. Offsets of bytes in the file are counted from its start, those of tensors'
/// data from the end of the header, as the header itself counts them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// The file ends before the header's length does.
    #[error("the file has {file_bytes} bytes, and the header's length alone takes 8")]
    NoLength {
        /// Bytes of the file.
        file_bytes: u64,
    },
    /// A header longer than the format allows.
    #[error("it claims to be {length} bytes long; the format allows {limit}{}", instead(*length), limit = header::LONGEST)]
    TooLong {
        /// What the file claims.
        length: u64,
    },
    /// The file ends inside the header.
    #[error(
        "it claims to be {length} bytes long, and the file ends {missing} bytes before that{}", instead(*length),
        missing = 8 + length - file_bytes
    )]
    CutOff {
        /// What the file claims.
        length: u64,
        /// Bytes of the file.
        file_bytes: u64,
    },
    /// The header does not begin with `{`.
    #[error("it must begin with '{{' at byte 8 of the file, {}", begins_with(*found))]
    NotAnObject {
        /// What is there; `None` where the header is empty.
        found: Option<u8>,
    },
    /// Something other than spaces after the header's JSON.
    #[error("it must end with '}}' and then spaces only; byte {offset} of the file is {found:#04x}")]
    Padding {
        /// Where, in the file.
        offset: u64,
        /// What is there.
        found: u8,
    },
    /// It is no JSON, or something in it has another type than it should.
    #[error("{}byte {offset} of the file: {reason}", of_tensor(tensor.as_deref()))]
    Json {
        /// The tensor that was being read.
        tensor: Option<String>,
        /// Where in the file: at what is not as it should be, or, of a text with escapes, in it.
        offset: u64,
        /// What is expected, and what is there.
        reason: String,
    },
    /// `__metadata__` comes twice.
    #[error("`__metadata__` comes twice, again at byte {offset} of the file")]
    MetadataTwice {
        /// Where in the file it comes again.
        offset: u64,
    },
    /// A key of the metadata comes twice.
    #[error("the key {key:?} of `__metadata__` comes twice, again at byte {offset} of the file")]
    MetadataKeyTwice {
        /// The key.
        key: String,
        /// Where in the file it comes again.
        offset: u64,
    },
    /// Two tensors have the same name.
    #[error("tensor {tensor:?} comes twice, again at byte {offset} of the file")]
    TensorTwice {
        /// The name.
        tensor: String,
        /// Where in the file it comes again.
        offset: u64,
    },
    /// A field that tensors do not have.
    #[error(
        "tensor {tensor:?} has a field {field:?} at byte {offset} of the file; a tensor has dtype, shape and data_offsets"
    )]
    UnknownField {
        /// The tensor.
        tensor: String,
        /// The field.
        field: String,
        /// Where in the file.
        offset: u64,
    },
    /// A field that is given twice.
    #[error("tensor {tensor:?} has the field {field:?} twice, again at byte {offset} of the file")]
    FieldTwice {
        /// The tensor.
        tensor: String,
        /// The field.
        field: &'static str,
        /// Where in the file it comes again.
        offset: u64,
    },
    /// A field that every tensor has.
    #[error("tensor {tensor:?}, which ends at byte {offset} of the file, lacks the field {field:?}")]
    MissingField {
        /// The tensor.
        tensor: String,
        /// The field.
        field: &'static str,
        /// Where in the file what is said of the tensor ends.
        offset: u64,
    },
    /// A dtype that the format does not have.
    #[error(
        "tensor {tensor:?} is of the dtype {dtype:?}, which the format does not have, at byte {offset} of the file"
    )]
    UnknownDType {
        /// The tensor.
        tensor: String,
        /// The dtype's name in the file.
        dtype: String,
        /// Where in the file.
        offset: u64,
    },
    /// More elements, or bytes of them, than can be counted.
    #[error("tensor {tensor:?} of {dtype} {shape:?} is larger than memory can be")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Elements narrower than a byte that leave a byte partly used.
    #[error("tensor {tensor:?} of {dtype} {shape:?} fills no whole number of bytes")]
    PartialByte {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Data that ends before it begins.
    #[error("the data of tensor {tensor:?} begins at {start} and ends at {end}, before it begins")]
    Backwards {
        /// The tensor.
        tensor: String,
        /// Where its data begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Dtype and shape say another size than the offsets.
    #[error(
        "tensor {tensor:?} of {dtype} {shape:?} takes {bytes} bytes, and its data is from {start} to {end}"
    )]
    WrongSize {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
        /// What those two take, in bytes.
        bytes: u64,
        /// Where its data begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Bytes that belong to no tensor.
    #[error("the bytes from {from} to {start}, before tensor {tensor:?}, belong to no tensor")]
    Hole {
        /// The tensor that comes next.
        tensor: String,
        /// Where the hole begins.
        from: u64,
        /// Where the tensor begins.
        start: u64,
    },
    /// Bytes that belong to two tensors.
    #[error("tensor {tensor:?} begins at {start}, inside tensor {other:?}, which ends at {end}")]
    Overlap {
        /// The tensor that begins too early.
        tensor: String,
        /// The one that it begins in.
        other: String,
        /// Where the one begins.
        start: u64,
        /// Where the other ends.
        end: u64,
    },
    /// The file ends before the data does.
    #[error(
        "the data of tensor {tensor:?} ends at {end}, and the file has {data_bytes} bytes of data; it was cut off"
    )]
    Truncated {
        /// The first tensor that is not whole.
        tensor: String,
        /// Where its data ends.
        end: u64,
        /// Bytes of data that the file has.
        data_bytes: u64,
    },
    /// The file goes on after the data.
    #[error("the tensors' data ends at {end}, and the file has {data_bytes} bytes of data")]
    Trailing {
        /// Where the last tensor ends.
        end: u64,
        /// Bytes of data that the file has.
        data_bytes: u64,
    },
}

/// What the file is instead, where its first 8 bytes, read as a length, are those of another format.
fn instead(length: u64) -> &'static str {
    match length.to_le_bytes() {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            "; this is no safetensors file: it begins like a zip archive, as torch.save writes"
        }
        [0x80, 2..=5, ..] => {
            "; this is no safetensors file: it begins like a pickle, as torch.save wrote once"
        }
        [b'G', b'G', b'U', b'F', ..] => "; this is no safetensors file: it begins like a GGUF file",
        [0x89, b'H', b'D', b'F', ..] => "; this is no safetensors file: it begins like an HDF5 file",
        [0x1f, 0x8b, 8, ..] => "; this is no safetensors file: it begins like a gzip archive",
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' '] => {
            "; this is no safetensors file: it begins like a pointer of Git LFS, whose content has to be fetched first"
        }
        bytes
            if bytes
                .iter()
                .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) =>
        {
            "; this is no safetensors file: it begins like text"
        }
        _ => "",
    }
}

fn begins_with(found: Option<u8>) -> String {
    found.map_or_else(
        || "and it is empty".to_owned(),
        |byte| format!("where {byte:#04x} is"),
    )
}

fn of_tensor(tensor: Option<&str>) -> String {
    tensor.map_or_else(String::new, |name| format!("tensor {name:?}, "))
}

/// What is wrong with an index of shards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexFault {
    /// An index longer than is read.
    #[error("it is {length} bytes long; no more than {limit} are read", limit = index::LONGEST)]
    TooLong {
        /// Bytes of the index.
        length: u64,
    },
    /// It is no JSON, or something in it has another type than it should.
    #[error("near byte {offset}: {reason}")]
    Json {
        /// Where, give or take a few bytes: where the parser noticed.
        offset: u64,
        /// What the parser says.
        reason: String,
    },
    /// It does not say which tensor is in which file.
    #[error("it has no `weight_map`")]
    NoMap,
    /// A field that is given twice.
    #[error("the field {field:?} comes twice")]
    FieldTwice {
        /// The field.
        field: String,
    },
    /// A tensor that is named twice.
    #[error("tensor {tensor:?} comes twice")]
    TensorTwice {
        /// The tensor.
        tensor: String,
    },
    /// A file outside the index's folder, or no file.
    #[error(
        "tensor {tensor:?} is said to be in {file:?}; a shard is a file beside its index, named without a path"
    )]
    Escape {
        /// The tensor.
        tensor: String,
        /// The name of its file.
        file: String,
    },
    /// A file that is not there.
    #[error("tensor {tensor:?} is said to be in {file:?}, which is not there")]
    MissingShard {
        /// The first tensor of that file.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A tensor that its file lacks.
    #[error("tensor {tensor:?} is said to be in {file:?}, which does not have it")]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A tensor that the index does not know, or has elsewhere.
    #[error("{file:?} has a tensor {tensor:?} that the index does not name there")]
    NotInIndex {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
}
