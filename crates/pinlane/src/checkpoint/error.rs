//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use super::{HeaderFault, IndexFault};
use crate::{DType, LayoutError};

/// A checkpoint that can't be read or written as asked. What the system refuses is an [`Error::File`](crate::Error::File) instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is no checkpoint where one was looked for.
    #[error("looking for a checkpoint at {}: {reason}", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
        /// What is there instead, and what would do.
        reason: String,
    },
    /// A file's header breaks a rule of the format.
    #[error("reading the header of {}: {fault}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: HeaderFault,
    },
    /// An index can't be used.
    #[error("reading the index {}: {fault}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        fault: IndexFault,
    },
    /// Two files have a tensor of the same name.
    #[error(
        "tensor {tensor:?} is in {} and in {} too; open those files alone that belong together",
        first.display(), second.display()
    )]
    InTwoFiles {
        /// The tensor.
        tensor: String,
        /// A file that has it.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// A name that the checkpoint, or the part that was selected of it, does not have.
    #[error("tensor {tensor:?} is not in the checkpoint; `pinlane ls` lists those that are")]
    NoSuchTensor {
        /// The name that was asked for.
        tensor: String,
    },
    /// A pattern that names can't be compared with.
    #[error("selecting by the pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of a tensor that is not there.
    #[error("slicing tensor {tensor:?}: {source}")]
    Slice {
        /// The tensor.
        tensor: String,
        /// What the layout says.
        source: LayoutError,
    },
    /// A boolean that is neither.
    #[error("tensor {tensor:?}: byte {offset} of {} is {value:#04x}, and booleans are 0 or 1", path.display())]
    NotABool {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where in the file.
        offset: u64,
        /// What is there.
        value: u8,
    },
    /// The checkpoint and the tensors that it should be loaded into do not fit. Nothing was moved.
    #[error("loading into existing tensors: {}", told(missing, unexpected, different))]
    DoesNotFit {
        /// Names that the checkpoint lacks.
        missing: Vec<String>,
        /// Names that only the checkpoint has.
        unexpected: Vec<String>,
        /// Tensors whose dtype or shape differs.
        different: Vec<Difference>,
    },
    /// Tensors that the format can't hold.
    #[error("saving to {}: {reason}", path.display())]
    CannotHold {
        /// The file that was asked for.
        path: PathBuf,
        /// Which tensor, why not, and what to do.
        reason: String,
    },
}

/// A tensor that is something else in the checkpoint than in the place it should be loaded into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub tensor: String,
    /// What the checkpoint has, or what becomes of that by [`LoadOptions`](super::LoadOptions).
    pub found: (DType, Vec<usize>),
    /// What the place takes.
    pub expected: (DType, Vec<usize>),
}

/// How many names an error lists of each kind; it holds all of them.
const LISTED: usize = 5;

/// What does not fit, in words.
fn told(missing: &[String], unexpected: &[String], different: &[Difference]) -> String {
    let names = |names: &[String]| listed(names, |name| format!("{name:?}"));
    let differences = |differences: &[Difference]| {
        listed(differences, |difference| {
            let Difference {
                tensor,
                found: (found, found_shape),
                expected: (expected, expected_shape),
            } = difference;
            format!(
                "{tensor:?} ({found} {found_shape:?} in the checkpoint, {expected} {expected_shape:?} here)"
            )
        })
    };
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("the checkpoint lacks {}", names(missing)));
    }
    if !unexpected.is_empty() {
        parts.push(format!("there is no place for {}", names(unexpected)));
    }
    if !different.is_empty() {
        parts.push(format!("dtype or shape differ for {}", differences(different)));
    }
    parts.join("; ")
}

fn listed<T>(all: &[T], show: impl Fn(&T) -> String) -> String {
    let mut text = all.iter().take(LISTED).map(show).collect::<Vec<_>>().join(", ");
    if all.len() > LISTED {
        text += &format!(" and {} more", all.len() - LISTED);
    }
    text
}
