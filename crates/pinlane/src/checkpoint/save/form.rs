//! What is written where: tensors divided among files, each file's header, and the index.
//!
//! The bytes of a header are those that the reference implementation writes: tensors in the order of its own list of dtypes,
//! from the widest to the narrowest, then by name, so that each begins aligned; the header padded with spaces to 8 bytes.

use std::path::Path;

use indexmap::IndexMap;
use serde::{Serialize, ser::SerializeMap as _};

use super::SaveOptions;
use crate::{
    DType, Result, Tensor,
    checkpoint::{
        CheckpointError,
        header::{LONGEST, METADATA, is_storable},
    },
};

/// One file to be.
pub(super) struct Form {
    /// The file's length and header, padded.
    header: Vec<u8>,
    /// The tensors in the order of their data, which follows the header without gaps.
    tensors: Vec<(String, Tensor)>,
    data_bytes: u64,
}

impl Form {
    /// What comes first in the file: the header's length, and the header.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// What follows, one after the other.
    pub(super) fn tensors(&self) -> &[(String, Tensor)] {
        &self.tensors
    }

    pub(super) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    /// Bytes of all tensors.
    pub(super) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }
}

/// The files that `tensors` are saved in: as many, in the tree's order, as fit the limit each. At least one.
pub(super) fn divide(
    tensors: IndexMap<String, Tensor>,
    options: &SaveOptions,
    path: &Path,
) -> Result<Vec<Form>> {
    let limit = options.max_shard_bytes.unwrap_or(u64::MAX);
    let mut forms = Vec::new();
    let (mut shard, mut bytes) = (Vec::new(), 0_u64);
    for (name, tensor) in tensors {
        check(&name, &tensor).map_err(|reason| CheckpointError::CannotHold {
            path: path.to_owned(),
            reason,
        })?;
        let size = tensor.bytes()? as u64;
        if !shard.is_empty() && bytes.saturating_add(size) > limit {
            forms.push(form(std::mem::take(&mut shard), options, path)?);
            bytes = 0;
        }
        bytes = bytes.saturating_add(size);
        shard.push((name, tensor));
    }
    if !shard.is_empty() || forms.is_empty() {
        forms.push(form(shard, options, path)?);
    }
    Ok(forms)
}

/// Says why the format can't hold a tensor, if it can't.
fn check(name: &str, tensor: &Tensor) -> Result<(), String> {
    if name == METADATA {
        return Err(format!("a tensor can't be called {METADATA}; rename it"));
    }
    if !is_storable(tensor.dtype()) {
        return Err(format!(
            "tensor {name:?} is of {}, which safetensors files do not have; save its real and imaginary parts",
            tensor.dtype()
        ));
    }
    Ok(())
}

fn form(mut tensors: Vec<(String, Tensor)>, options: &SaveOptions, path: &Path) -> Result<Form> {
    tensors.sort_by(|(a_name, a), (b_name, b)| (rank(b.dtype()), a_name).cmp(&(rank(a.dtype()), b_name)));
    let mut infos = IndexMap::with_capacity(tensors.len());
    let mut end = 0;
    for (name, tensor) in &tensors {
        let start = end;
        end += tensor.bytes()? as u64;
        let info = Info {
            dtype: tensor.dtype().name(),
            shape: tensor.shape(),
            data_offsets: [start, end],
        };
        infos.insert(name.as_str(), info);
    }
    let content = Content {
        metadata: options.metadata.as_ref(),
        infos,
    };
    let mut json = serde_json::to_vec(&content).expect("texts and numbers can be written as JSON");
    json.resize(json.len().next_multiple_of(8), b' ');
    let length = json.len() as u64;
    if length > LONGEST {
        return Err(CheckpointError::CannotHold {
            path: path.to_owned(),
            reason: format!(
                "the header of {} tensors would be {length} bytes long, and the format allows {LONGEST}; save them in several files \
                 with `max_shard_bytes`",
                tensors.len()
            ),
        }
        .into());
    }
    Ok(Form {
        header: [&length.to_le_bytes()[..], &json].concat(),
        tensors,
        data_bytes: end,
    })
}

/// The place of a dtype in the reference implementation's list, by which it sorts.
fn rank(dtype: DType) -> usize {
    const ORDER: [DType; 22] = [
        DType::Bool,
        DType::F4,
        DType::F6E2M3,
        DType::F6E3M2,
        DType::U8,
        DType::I8,
        DType::F8E5M2,
        DType::F8E4M3,
        DType::F8E8M0,
        DType::F8E4M3Fnuz,
        DType::F8E5M2Fnuz,
        DType::I16,
        DType::U16,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::U32,
        DType::F32,
        DType::C64,
        DType::F64,
        DType::I64,
        DType::U64,
    ];
    ORDER
        .iter()
        .position(|&listed| listed == dtype)
        .unwrap_or(ORDER.len())
}

/// The header's object.
struct Content<'a> {
    metadata: Option<&'a IndexMap<String, String>>,
    infos: IndexMap<&'a str, Info<'a>>,
}

#[derive(Serialize)]
struct Info<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [u64; 2],
}

impl Serialize for Content<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(metadata) = self.metadata {
            map.serialize_entry(METADATA, metadata)?;
        }
        for (name, info) in &self.infos {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

/// An index: the file of each tensor, sorted by name as other writers do, and how many bytes all of them are.
pub(super) fn index<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>, total_bytes: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Index<'a> {
        metadata: Totals,
        weight_map: std::collections::BTreeMap<&'a str, &'a str>,
    }
    #[derive(Serialize)]
    struct Totals {
        total_size: u64,
    }
    let index = Index {
        metadata: Totals {
            total_size: total_bytes,
        },
        weight_map: files.into_iter().collect(),
    };
    let mut json = serde_json::to_vec_pretty(&index).expect("texts and numbers can be written as JSON");
    json.push(b'\n');
    json
}
