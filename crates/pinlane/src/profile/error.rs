//! What can go wrong with profiles that are stored.

use std::{io, path::PathBuf};

/// A stored profile that can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The system does not say where the user's files lie.
    #[error("looking for the folder of stored profiles: {reason}; set PINLANE_CACHE_DIR to a folder")]
    NoFolder {
        /// What the system says.
        reason: String,
    },
    /// What is measured on a simulated device is worth nothing.
    #[error(
        "storing a profile of {device}: it only simulates, so nothing measured on it is kept; tune a real device"
    )]
    Simulated {
        /// The device's name.
        device: String,
    },
    /// The file is there and can't be read.
    #[error("reading the stored profile {}: {source}; make it readable, or delete it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not what was stored.
    #[error("reading the stored profile {}: {reason}; delete it, or measure again with `pinlane tune`", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that was named to plan by is no profile.
    #[error("{} is no profile: {reason}; name a file that `pinlane tune --json` has written", path.display())]
    NoProfile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that was named to plan by is of a device that only simulates.
    #[error(
        "{} was measured on {device}, which only simulates: it says nothing of a machine; name a file that \
         `pinlane tune --json` has written on one",
        path.display()
    )]
    OfSimulated {
        /// The file.
        path: PathBuf,
        /// The device's name.
        device: String,
    },
    /// The file was written by a version with other ideas of what a profile is.
    #[error(
        "reading the stored profile {}: its schema is {found}, this version's is {expected}; measure again with \
         `pinlane tune`",
        path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// The schema of the file.
        found: u64,
        /// The schema of this version.
        expected: u64,
    },
    /// The profile could not be written.
    #[error(
        "storing a profile in {}: {source}; make the folder writable, or set PINLANE_CACHE_DIR to one that is",
        folder.display()
    )]
    Write {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
