//! What can go wrong in an experiment.

use std::path::PathBuf;

/// The result of an experiment's step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the guide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver, called directly by the guide's own ways.
    #[error(transparent)]
    Driver(#[from] pinlane_driver::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] pinlane::Error),
    /// A file or directory.
    #[error("could not {action} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb: `read`, `create`.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A checkpoint that is not what it should be.
    #[error("could not read {} as safetensors: {reason}; give a file in that format", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The host was named as the device.
    #[error("the host is no accelerator: name one, such as cuda:0 or sim:0")]
    Host,
    /// A name that no experiment has.
    #[error("there is no experiment {id:?}; there are: {known}")]
    UnknownExperiment {
        /// What was asked for.
        id: String,
        /// The names there are.
        known: String,
    },
    /// A thread of an experiment died, which is a defect of the experiment.
    #[error("the {0} thread of the experiment panicked")]
    ThreadPanicked(&'static str),
}
