//! The JSON of a header: what is a tensor, and what is said twice, unknown or of the wrong size.

use indexmap::{IndexMap, map::Entry};

use super::{
    METADATA, TensorInfo, is_storable,
    scan::{Broken, Scanner},
};
use crate::{DType, DTypeError, checkpoint::HeaderFault};

/// About as many bytes of text as a tensor takes: what room is made for follows from what the file holds.
const TEXT_OF_ONE: usize = 90;

type Contents = (IndexMap<String, TensorInfo>, Option<IndexMap<String, String>>);

/// The tensors in the order of the text, and the metadata.
pub(super) fn read(object: &[u8]) -> Result<Contents, HeaderFault> {
    let nowhere = |broken: Broken| broken.fault(None);
    let mut text = Scanner::new(object).map_err(nowhere)?;
    let mut tensors = IndexMap::with_capacity(object.len() / TEXT_OF_ONE);
    let mut metadata = None;
    let mut shape = Vec::new();
    let mut members = text.object("an object of tensors").map_err(nowhere)?;
    while text.has_next(&mut members).map_err(nowhere)? {
        let offset = text.offset();
        let name = text.name().map_err(nowhere)?;
        if name == METADATA {
            if metadata.is_some() {
                return Err(HeaderFault::MetadataTwice { offset });
            }
            text.colon().map_err(nowhere)?;
            metadata = Some(read_metadata(&mut text)?);
            continue;
        }
        match tensors.entry(name.into_owned()) {
            Entry::Occupied(taken) => {
                let tensor = taken.key().clone();
                return Err(HeaderFault::TensorTwice { tensor, offset });
            }
            Entry::Vacant(free) => {
                let tensor = read_tensor(&mut text, free.key(), &mut shape)?;
                free.insert(tensor);
            }
        }
    }
    text.end().map_err(nowhere)?;
    Ok((tensors, metadata))
}

/// An object of text to text, each key once.
fn read_metadata(text: &mut Scanner<'_>) -> Result<IndexMap<String, String>, HeaderFault> {
    let nowhere = |broken: Broken| broken.fault(None);
    let mut texts = IndexMap::new();
    let mut members = text.object("an object of texts").map_err(nowhere)?;
    while text.has_next(&mut members).map_err(nowhere)? {
        let offset = text.offset();
        match texts.entry(text.name().map_err(nowhere)?.into_owned()) {
            Entry::Occupied(taken) => {
                let key = taken.key().clone();
                return Err(HeaderFault::MetadataKeyTwice { key, offset });
            }
            Entry::Vacant(free) => {
                text.colon().map_err(nowhere)?;
                free.insert(text.text("a text").map_err(nowhere)?.into_owned());
            }
        }
    }
    Ok(texts)
}

/// The fields of a tensor, from the colon behind its name on. `shape` is room that is used again and again.
fn read_tensor(
    text: &mut Scanner<'_>,
    name: &str,
    shape: &mut Vec<usize>,
) -> Result<TensorInfo, HeaderFault> {
    let here = |broken: Broken| broken.fault(Some(name));
    let tensor = || name.to_owned();
    let (mut dtype, mut has_shape, mut offsets) = (None, false, None);
    text.colon().map_err(here)?;
    let mut members = text
        .object("an object with dtype, shape and data_offsets")
        .map_err(here)?;
    while text.has_next(&mut members).map_err(here)? {
        let offset = text.offset();
        let field = read_field(text).map_err(here)?;
        let twice = match field {
            Ok(Field::DType) => {
                text.colon().map_err(here)?;
                let offset = text.offset();
                let found = read_dtype(text).map_err(here)?;
                let found = found.map_err(|dtype| HeaderFault::UnknownDType {
                    tensor: tensor(),
                    dtype,
                    offset,
                })?;
                dtype.replace(found).is_some().then_some("dtype")
            }
            Ok(Field::Shape) => {
                read_shape(text, shape).map_err(here)?;
                std::mem::replace(&mut has_shape, true).then_some("shape")
            }
            Ok(Field::Offsets) => {
                let found = read_offsets(text).map_err(here)?;
                offsets.replace(found).is_some().then_some("data_offsets")
            }
            Err(field) => {
                let tensor = tensor();
                return Err(HeaderFault::UnknownField {
                    tensor,
                    field,
                    offset,
                });
            }
        };
        if let Some(field) = twice {
            return Err(HeaderFault::FieldTwice {
                tensor: tensor(),
                field,
                offset,
            });
        }
    }
    // Behind the brace that has just been taken.
    let offset = text.behind() - 1;
    let missing = |field| HeaderFault::MissingField {
        tensor: tensor(),
        field,
        offset,
    };
    let dtype = dtype.ok_or_else(|| missing("dtype"))?;
    if !has_shape {
        return Err(missing("shape"));
    }
    let [start, end] = offsets.ok_or_else(|| missing("data_offsets"))?;
    sized(name, dtype, shape, start, end)
}

/// The fields of a tensor.
enum Field {
    DType,
    Shape,
    Offsets,
}

/// The name of a field, or one that tensors do not have.
#[inline]
fn read_field(text: &mut Scanner<'_>) -> Result<Result<Field, String>, Broken> {
    let plain: [(&[u8], Field); 3] = [
        (b"\"dtype\"", Field::DType),
        (b"\"shape\"", Field::Shape),
        (b"\"data_offsets\"", Field::Offsets),
    ];
    for (written, field) in plain {
        if text.takes(written) {
            return Ok(Ok(field));
        }
    }
    // With escapes it may still be one of them.
    let name = text.name()?;
    Ok(match &*name {
        "dtype" => Ok(Field::DType),
        "shape" => Ok(Field::Shape),
        "data_offsets" => Ok(Field::Offsets),
        _ => Err(name.into_owned()),
    })
}

/// The dtype behind the colon, or what stands there instead.
fn read_dtype(text: &mut Scanner<'_>) -> Result<Result<DType, String>, Broken> {
    let name = text.text("a dtype as a text")?;
    Ok(dtype_of(&name).ok_or_else(|| name.into_owned()))
}

fn read_shape(text: &mut Scanner<'_>, shape: &mut Vec<usize>) -> Result<(), Broken> {
    text.colon()?;
    shape.clear();
    let mut members = text.array("an array of sizes")?;
    while text.has_next(&mut members)? {
        let size = text.number("a size")?;
        shape.push(usize::try_from(size).map_err(|_| text.broken("this size is larger than memory can be"))?);
    }
    Ok(())
}

/// Where the data begins and ends.
fn read_offsets(text: &mut Scanner<'_>) -> Result<[u64; 2], Broken> {
    text.colon()?;
    text.take(b'[', "an array of two offsets")?;
    let start = text.number("the offset where the data begins")?;
    text.take(b',', "`,` and the offset where the data ends")?;
    let end = text.number("the offset where the data ends")?;
    text.take(b']', "`]` after two offsets")?;
    Ok([start, end])
}

/// The dtype of that name in the format, which is every dtype but complex128.
fn dtype_of(name: &str) -> Option<DType> {
    name.parse().ok().filter(|&dtype| is_storable(dtype))
}

/// The tensor, where its dtype and shape are those of its bytes.
fn sized(
    tensor: &str,
    dtype: DType,
    shape: &[usize],
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
    let bytes = elements(shape).map(|elements| dtype.bytes_for(elements));
    let bytes = match bytes {
        Some(Ok(bytes)) => bytes as u64,
        Some(Err(DTypeError::PartialByte { .. })) => {
            return Err(HeaderFault::PartialByte {
                tensor: tensor(),
                dtype,
                shape: shape.to_vec(),
            });
        }
        Some(Err(_)) | None => {
            return Err(HeaderFault::TooLarge {
                tensor: tensor(),
                dtype,
                shape: shape.to_vec(),
            });
        }
    };
    if bytes != end - start {
        return Err(HeaderFault::WrongSize {
            tensor: tensor(),
            dtype,
            shape: shape.to_vec(),
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
