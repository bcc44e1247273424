//! Checking a checkpoint whole: every rule, every byte.

use std::path::{Path, PathBuf};

use indexmap::{IndexMap, IndexSet};

use super::{Checkpoint, CheckpointError, Shard, TensorInfo, source::Source};
use crate::{DType, Error, FileAccess, Result};

/// How much is read as one.
const PIECE: usize = 4 << 20;

/// What [`verify`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Files whose headers are sound.
    pub files: usize,
    /// Tensors in them.
    pub tensors: usize,
    /// Bytes of those tensors, all of which were read unless a fault says otherwise.
    pub bytes: u64,
    /// All that is wrong, in the order of the files.
    pub faults: Vec<Error>,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Checks the checkpoint at `path`, which is what [`Checkpoint::open`] takes: reads every header and every byte, and goes on
/// after a fault. `progress` hears how many bytes of tensors have been read, and of how many.
///
/// Beyond what opening checks, the data has to be readable, and bytes of booleans 0 or 1.
///
/// ```
/// use pinlane::checkpoint::verify;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// std::fs::write(&path, b"no checkpoint")?;
/// let found = verify(&path, |_, _| ());
/// assert_eq!((found.is_sound(), found.faults.len()), (false, 1));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn verify(path: impl AsRef<Path>, mut progress: impl FnMut(u64, u64)) -> Verification {
    let path = path.as_ref();
    let mut found = Verification::default();
    let files = match Source::find(path).map(files) {
        Ok(files) => files,
        Err(error) => {
            found.faults.push(error);
            return found;
        }
    };
    let mut shards = Vec::new();
    for file in files {
        match Shard::open(&file, FileAccess::default()) {
            Ok(shard) => shards.push(shard),
            Err(fault) => found.faults.push(fault),
        }
    }
    // Whether the files fit together says something only where each is sound.
    if found.is_sound()
        && let Err(fault) = Checkpoint::open(path)
    {
        found.faults.push(fault);
    }
    found.files = shards.len();
    found.tensors = shards.iter().map(|(_, tensors)| tensors.len()).sum();
    found.bytes = shards
        .iter()
        .flat_map(|(_, tensors)| tensors.values().map(TensorInfo::bytes))
        .sum();
    let (total, mut read) = (found.bytes, 0);
    for (shard, tensors) in &shards {
        let mut advance = |bytes| {
            read += bytes;
            progress(read, total);
        };
        if let Err(fault) = read_all(shard, tensors, &mut advance, &mut found.faults) {
            found.faults.push(fault);
        }
    }
    found
}

/// The files of a checkpoint, each once, as far as they are there; an index that names others is refused when it is opened.
fn files(source: Source) -> Vec<PathBuf> {
    match source {
        Source::Files(files) => files,
        Source::Index { path, index } => {
            let names: IndexSet<_> = index.files().values().collect();
            let files = names.into_iter().map(|name| path.with_file_name(name));
            files.filter(|file| file.exists()).collect()
        }
    }
}

/// Reads the data of all tensors of a file. What is wrong with a tensor's values goes to `faults`; what can't be read ends it.
fn read_all(
    shard: &Shard,
    tensors: &IndexMap<String, TensorInfo>,
    advance: &mut dyn FnMut(u64),
    faults: &mut Vec<Error>,
) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    for (name, info) in tensors {
        let mut at = info.start;
        while at < info.end {
            let length = (info.end - at).min(PIECE as u64) as usize;
            let piece = &mut buffer[..length];
            shard.read_at(piece, at).map_err(|source| Error::Leaf {
                path: name.clone(),
                source: Box::new(source),
            })?;
            let wrong = (info.dtype == DType::Bool)
                .then(|| piece.iter().position(|&byte| byte > 1))
                .flatten();
            advance(length as u64);
            if let Some(place) = wrong {
                faults.push(
                    CheckpointError::NotABool {
                        path: shard.path().to_owned(),
                        tensor: name.clone(),
                        offset: shard.data_start() + at + place as u64,
                        value: piece[place],
                    }
                    .into(),
                );
                advance(info.end - at - length as u64);
                break;
            }
            at += length as u64;
        }
    }
    Ok(())
}
