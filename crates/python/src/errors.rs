//! The engine's errors as the exceptions of `pinlane._errors`, which says what each is for.

use std::{io, path::Path};

use pinlane::{CheckpointError, Error, driver::ErrorKind};
use pyo3::{prelude::*, types::PyString};

/// An exception of the package, by its name there.
pub(crate) fn raise(py: Python<'_>, class: &str, message: impl Into<String>) -> PyErr {
    let make = || {
        let class = py.import("pinlane._errors")?.getattr("error")?.call1((class,))?;
        class.call1((PyString::new(py, &message.into()),))
    };
    make().map_or_else(|broken| broken, PyErr::from_value)
}

/// The exception for one that torch raised when it did something to the leaf at `path`.
pub(crate) fn of_leaf(py: Python<'_>, error: PyErr, path: impl FnOnce() -> String) -> PyErr {
    with_path(py, "of_leaf", &error, &path())
}

/// The exception where there is no room for the results of the leaves at `path`.
pub(crate) fn of_room(py: Python<'_>, error: &PyErr, path: &str) -> PyErr {
    with_path(py, "of_room", error, path)
}

fn with_path(py: Python<'_>, how: &str, error: &PyErr, path: &str) -> PyErr {
    let make = || {
        let make = py.import("pinlane._errors")?.getattr(how)?;
        make.call1((error.value(py), path))
    };
    make().map_or_else(|broken| broken, PyErr::from_value)
}

/// The exception for an error of the engine.
pub(crate) fn from_engine(py: Python<'_>, error: &Error) -> PyErr {
    match refused_file(error) {
        Some((path, source)) => {
            let make = || {
                // What Python raises in the same case.
                let kind = PyErr::from(io::Error::from(source.kind())).get_type(py);
                let make = py.import("pinlane._errors")?.getattr("file_error")?;
                make.call1((error.to_string(), kind, source.raw_os_error(), path))
            };
            make().map_or_else(|broken| broken, PyErr::from_value)
        }
        None => raise(py, class_of(error), error.to_string()),
    }
}

/// Whether an error says that there is no room.
pub(crate) fn is_of_room(error: &Error) -> bool {
    matches!(
        class_of(error),
        "OutOfMemoryError" | "PinnedBudgetError" | "HostMemoryError"
    )
}

/// The file that an error is about, and what the system says of it.
pub(crate) fn refused_file(error: &Error) -> Option<(&Path, &io::Error)> {
    match error {
        Error::Leaf { source, .. } => refused_file(source),
        Error::File { path, source, .. } => Some((path, source)),
        _ => None,
    }
}

/// The name of the exception for an error of the engine.
pub(crate) fn class_of(error: &Error) -> &'static str {
    match error {
        Error::Leaf { source, .. } => class_of(source),
        Error::PinnedBudget { .. } => "PinnedBudgetError",
        Error::HostMemory { .. } | Error::HostMapping { .. } => "HostMemoryError",
        Error::NoSuchDevice { .. } => "NoSuchDeviceError",
        Error::File { .. } => "FileError",
        Error::Checkpoint(error) => match **error {
            CheckpointError::NotFound { .. } => "CheckpointNotFoundError",
            CheckpointError::NoSuchTensor { .. } => "NoSuchTensorError",
            _ => "CheckpointError",
        },
        Error::Driver { source, .. } | Error::Unsettled { source, .. } => match source.kind() {
            ErrorKind::OutOfMemory => "OutOfMemoryError",
            ErrorKind::PinLimit => "PinnedBudgetError",
            ErrorKind::NoSuchDevice => "NoSuchDeviceError",
            ErrorKind::Forked => "ForkError",
            _ => "DeviceError",
        },
        _ => "Error",
    }
}
