//! Everything that can go wrong above the driver: what was being done, to what, what happened, what to do about it.

use std::{fmt, io, path::PathBuf};

use pinlane_driver::{DeviceId, ErrorKind};

use crate::{CheckpointError, DTypeError, FillError, LayoutError, ProfileError, Route};

/// The result of a pinlane call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine.
///
/// Its `Debug` is its message too: that is what a `main` that returns it prints.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver refused or failed a call.
    #[error("{doing}: {source}")]
    Driver {
        /// What the engine was doing.
        doing: String,
        /// What the driver says.
        source: pinlane_driver::Error,
    },
    /// The driver would not say whether copies are done. The memory they use is never let go.
    #[error("{doing}: {source}; the device may still be at it, so the memory it uses is given up")]
    Unsettled {
        /// What the engine was doing.
        doing: String,
        /// What the driver says.
        source: pinlane_driver::Error,
    },
    /// One tensor of a tree could not be moved.
    #[error("tensor {path}: {source}")]
    Leaf {
        /// Where the tensor is in its tree.
        path: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A shape, stride or view that can't be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A dtype that is unknown, or that can't do what was asked of it.
    #[error(transparent)]
    DType(#[from] DTypeError),
    /// A value that the dtype lacks, or numbers that lead nowhere.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// A stored profile that can't be read or written.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A checkpoint that can't be read or written as asked.
    #[error(transparent)]
    Checkpoint(Box<CheckpointError>),
    /// There is no device of that name.
    #[error("opening device {name:?}: {reason}")]
    NoSuchDevice {
        /// The name that was asked for.
        name: String,
        /// Why there is none, and what there is.
        reason: String,
    },
    /// The host has no memory left.
    #[error("allocating {bytes} bytes of host memory: the system has not that much; move less at once")]
    HostMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// The kernel refused to map pages.
    #[error("mapping {bytes} bytes of host memory: {source}")]
    HostMapping {
        /// What was asked for.
        bytes: usize,
        /// What the kernel says.
        source: io::Error,
    },
    /// The pinned budget has no room.
    #[error("pinning {asked} bytes: {}", over_budget(*asked, *leased, *reserved, *budget))]
    PinnedBudget {
        /// What was asked for.
        asked: usize,
        /// What pinned tensors and results hold.
        leased: usize,
        /// What is set aside for slots, made or not; 0 where it is they that were asked for.
        reserved: usize,
        /// The whole budget.
        budget: usize,
    },
    /// The device's options contradict each other or ask for nothing.
    #[error("device options: {reason}")]
    Options {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Every slot was in use by a device that is now lost.
    #[error(
        "waiting for a slot: all {bytes} bytes of slots may still be in use by a lost device; only a new process \
         can use it again"
    )]
    SlotsLost {
        /// What is lost, in bytes.
        bytes: usize,
    },
    /// The route that the caller forces can't carry these bytes.
    #[error("route {route} was asked for: {reason}")]
    Route {
        /// The route.
        route: Route,
        /// Why it can't, and which can.
        reason: &'static str,
    },
    /// The bytes are not in host memory.
    #[error("{doing}: the tensor is {place}, not in host memory; move it with `to(&Device::host())` first")]
    NotOnHost {
        /// What was asked.
        doing: &'static str,
        /// Where the tensor is.
        place: String,
    },
    /// The tensor is the result of a transfer that is still on its way, or failed.
    #[error(
        "{doing}: the tensor is the result of a transfer that has not landed; wait for the transfer first"
    )]
    NotLanded {
        /// What was asked.
        doing: &'static str,
    },
    /// The elements do not lie one after the other.
    #[error("{doing}: the tensor's strides leave gaps or reorder its elements; call `contiguous()` first")]
    NotContiguous {
        /// What was asked.
        doing: &'static str,
    },
    /// Someone else, perhaps a transfer in flight, holds the same bytes.
    #[error(
        "writing to a tensor: its bytes are shared with another tensor or with a transfer in flight; drop those or \
         wait for the transfer first"
    )]
    Shared,
    /// A copy between two devices that can't reach each other.
    #[error(
        "copying from {from} to {to}: these devices have no path to each other; go through `Device::host()`"
    )]
    NoPath {
        /// The source.
        from: DeviceId,
        /// The destination.
        to: DeviceId,
    },
    /// The operation is not defined for this tensor.
    #[error("{doing}: {reason}")]
    Unsupported {
        /// What was asked.
        doing: &'static str,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// A file could not be opened or read.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done, with the offset.
        doing: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A name that a tree has already.
    #[error("inserting {path:?}: the tree has that name already")]
    DuplicateName {
        /// The name, with its place in the tree.
        path: String,
    },
    /// A name that can't be one.
    #[error("inserting {name:?}: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The system gives no more threads.
    #[error("starting thread {name}: {source}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The iterator behind a prefetch failed.
    #[error("the prefetched source failed: {0}")]
    Source(Box<dyn std::error::Error + Send + Sync>),
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(Box::new(error))
    }
}

impl Error {
    /// A driver's error with what the engine was doing.
    pub(crate) fn driver(doing: impl Into<String>, source: pinlane_driver::Error) -> Self {
        Self::Driver {
            doing: doing.into(),
            source,
        }
    }

    /// A driver's error out of waiting for copies: after anything but a failed copy they may still be under way.
    pub(crate) fn waiting(doing: impl Into<String>, source: pinlane_driver::Error) -> Self {
        match source.kind() {
            ErrorKind::CopyFailed | ErrorKind::DeviceLost => Self::driver(doing, source),
            _ => Self::Unsettled {
                doing: doing.into(),
                source,
            },
        }
    }

    /// The driver's kind of error, where a driver is behind it.
    #[must_use]
    pub fn driver_kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Driver { source, .. } | Self::Unsettled { source, .. } => Some(source.kind()),
            Self::Leaf { source, .. } => source.driver_kind(),
            _ => None,
        }
    }

    /// Whether a device may go on using memory that it was given.
    pub(crate) fn leaves_memory_in_use(&self) -> bool {
        matches!(self, Self::SlotsLost { .. } | Self::Unsettled { .. })
            || self.driver_kind().is_some_and(ErrorKind::leaves_memory_in_use)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What went wrong, and with which tensor of a tree, by whoever does not know what the tree calls it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The tensor's number in the tree, if it went wrong with one.
    leaf: Option<usize>,
    error: Box<Error>,
}

impl Failure {
    /// It went wrong with the tensor of this number.
    pub(crate) fn of(leaf: usize, error: Error) -> Self {
        Self {
            leaf: Some(leaf),
            error: Box::new(error),
        }
    }

    /// What went wrong.
    pub(crate) fn error(&self) -> &Error {
        &self.error
    }

    /// What went wrong, where the tensor needs no name.
    pub(crate) fn into_error(self) -> Error {
        *self.error
    }

    /// The error, with what the tree calls the tensor.
    pub(crate) fn named(self, name: impl FnOnce(usize) -> String) -> Error {
        match self.leaf {
            Some(leaf) => Error::Leaf {
                path: name(leaf),
                source: self.error,
            },
            None => *self.error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            leaf: None,
            error: Box::new(error),
        }
    }
}

/// Why a pinned budget has no room, and what to do about it.
fn over_budget(asked: usize, leased: usize, reserved: usize, budget: usize) -> String {
    let rest = budget.saturating_sub(reserved);
    if asked > rest {
        format!(
            "of the budget of {budget} bytes {reserved} are set aside for slots, so {rest} can be had at most, however \
             little else is pinned; set a pinned budget of at least {} bytes",
            asked.saturating_add(reserved)
        )
    } else {
        format!(
            "of the budget of {budget} bytes {reserved} are set aside for slots, and pinned tensors and results hold \
             {leased}; drop some of these, or set a larger pinned budget"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_that_returns_an_error_prints_its_message() {
        let error = Error::Leaf {
            path: "layer.weight".to_owned(),
            source: Box::new(Error::HostMemory { bytes: 12 }),
        };
        assert_eq!(format!("{error:?}"), error.to_string());
        assert!(format!("{error:?}").contains("layer.weight"));
    }
}
