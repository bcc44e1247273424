//! What can go wrong with advice.

use std::path::PathBuf;

use crate::DescribeError;

/// The result of giving advice.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of advice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A description that is none.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] pinlane::Error),
    /// The guide's ways, or opening the device.
    #[error(transparent)]
    Guide(#[from] pinlane_guide::Error),
    /// A profile in a file.
    #[error(transparent)]
    Profile(#[from] pinlane::ProfileError),
    /// A profile that is neither known nor a file.
    #[error(
        "there is no profile {name:?}; there are {known}, and files as `pinlane tune --json FILE` writes them"
    )]
    NoProfile {
        /// What was asked for.
        name: String,
        /// Those that come with pinlane.
        known: String,
    },
    /// A file that was named as a profile and is none.
    #[error("{} is no profile ({reason}); name {known}, or a file that `pinlane tune --json` has written", path.display())]
    NotAProfile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Those that come with pinlane.
        known: String,
    },
    /// A file.
    #[error("could not read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Something that is planned only.
    #[error("measuring tensors that are {what} is not possible: {reason}")]
    NotMeasured {
        /// What they are.
        what: &'static str,
        /// Why not, and what to do instead.
        reason: &'static str,
    },
    /// Bytes that landed wrong: a defect of pinlane, or of this machine.
    #[error("{way} landed wrong bytes: no figure of it counts")]
    WrongBytes {
        /// The way.
        way: &'static str,
    },
}
