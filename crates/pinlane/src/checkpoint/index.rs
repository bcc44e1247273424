//! The index of a checkpoint in several files: `*.safetensors.index.json`, which says which tensor is in which file.
//!
//! The names of files come from whoever wrote the index. One that was read names only files beside it: no folders, no
//! absolute paths, no way up.

use std::{
    fmt,
    io::Read as _,
    path::{Component, Path},
};

use indexmap::IndexMap;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{
    CheckpointError, IndexFault,
    json::{self, Refusal, Texts},
    shard::open_regular,
};
use crate::{Error, Result};

/// The longest index that is read, in bytes.
pub(super) const LONGEST: u64 = 256 << 20;

/// What a shard index says: the file of each tensor.
///
/// ```
/// use pinlane::checkpoint::ShardIndex;
///
/// let index = ShardIndex::parse(br#"{"weight_map": {"bias": "model-00001-of-00002.safetensors"}}"#)?;
/// assert_eq!(index.files()["bias"], "model-00001-of-00002.safetensors");
/// assert!(ShardIndex::parse(br#"{"weight_map": {"bias": "../secret"}}"#).is_err());
/// # Ok::<(), pinlane::checkpoint::IndexFault>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIndex {
    files: IndexMap<String, String>,
}

impl ShardIndex {
    /// Reads the index at `path`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let refuse = |fault| CheckpointError::Index {
            path: path.to_owned(),
            fault,
        };
        let failed = |source| Error::File {
            doing: "reading the index".to_owned(),
            path: path.to_owned(),
            source,
        };
        let (file, _) = open_regular(path)?;
        let mut json = Vec::new();
        let length = file.take(LONGEST + 1).read_to_end(&mut json).map_err(failed)? as u64;
        if length > LONGEST {
            return Err(refuse(IndexFault::TooLong { length }).into());
        }
        Ok(Self::parse(&json).map_err(refuse)?)
    }

    /// The index that `json` says.
    ///
    /// # Errors
    ///
    /// The first thing that is found wrong.
    pub fn parse(json: &[u8]) -> Result<Self, IndexFault> {
        let files = json::parse(
            json,
            |deserializer, refusal| deserializer.deserialize_map(Fields { refusal }),
            |offset, reason| IndexFault::Json {
                offset: offset as u64,
                reason,
            },
        )?
        .ok_or(IndexFault::NoMap)?;
        for (tensor, file) in &files {
            if !is_plain_name(file) {
                return Err(IndexFault::Escape {
                    tensor: tensor.clone(),
                    file: file.clone(),
                });
            }
        }
        Ok(Self { files })
    }

    /// The name of each tensor's file, beside the index.
    #[must_use]
    pub fn files(&self) -> &IndexMap<String, String> {
        &self.files
    }
}

/// Whether a name is that of a file in the same folder, on every system.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let only = matches!((components.next(), components.next()), (Some(Component::Normal(part)), None) if part == name);
    only && !name.contains(['/', '\\', '\0'])
}

/// The fields of the index: `weight_map`, and others that say nothing of where tensors are.
struct Fields<'a> {
    refusal: &'a mut Refusal<IndexFault>,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Option<IndexMap<String, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut files = None;
        while let Some(field) = map.next_key::<String>()? {
            if field != "weight_map" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if files.is_some() {
                return Err(self.refusal.because(IndexFault::FieldTwice { field }));
            }
            files = Some(map.next_value_seed(Texts {
                refusal: self.refusal,
                twice: |tensor| IndexFault::TensorTwice { tensor },
            })?);
        }
        Ok(files)
    }
}
