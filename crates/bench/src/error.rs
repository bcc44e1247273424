//! What can go wrong in a benchmark.

use std::path::PathBuf;

/// The result of a benchmark's step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the benchmark.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver, called directly.
    #[error(transparent)]
    Driver(#[from] pinlane_driver::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] pinlane::Error),
    /// The plain way, or opening the device.
    #[error(transparent)]
    Plain(#[from] pinlane_guide::Error),
    /// Bytes landed that are not those of the source.
    #[error(
        "checking {cell}: tensor {tensor} of {count} landed with wrong bytes by {way}; no figure of this cell counts"
    )]
    WrongBytes {
        /// The cell.
        cell: String,
        /// The way that landed them.
        way: String,
        /// The number of the tensor, from 0.
        tensor: usize,
        /// How many there are.
        count: usize,
    },
    /// The link's limit could not be measured without the cost of calls in it.
    #[error(
        "measuring the link's limit: its streams, held by {copies} copies, were free before everything was enqueued; the \
         host is too busy to measure anything, so stop what else runs on it"
    )]
    NotHeld {
        /// How many copies held them.
        copies: usize,
    },
    /// A file.
    #[error("could not {action} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb: `read`.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("could not read {} as {what}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that neither a figure nor a cell has.
    #[error(
        "nothing to run is called {name:?}; there are `figures`, `grid`, parts of the names of cells such as \
             h2d-pageable-4KiB-x1000, and the figures {figures}"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The figures there are.
        figures: String,
    },
    /// A word that means nothing where it stands.
    #[error("{word:?} is no {what}; {expected}")]
    Word {
        /// What was given.
        word: String,
        /// What it should be.
        what: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// The grid has no cell.
    #[error(
        "no cell is left: each size times each count is more than {max_bytes} bytes, the limit; \
         choose smaller ones, or raise --max-bytes"
    )]
    NoCells {
        /// The limit.
        max_bytes: usize,
    },
    /// Two results that cannot be compared.
    #[error("comparing {} with {}: {reason}", left.display(), right.display())]
    Incomparable {
        /// The first.
        left: PathBuf,
        /// The second.
        right: PathBuf,
        /// Why not.
        reason: &'static str,
    },
}
