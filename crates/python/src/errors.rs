//! The engine's errors as the exceptions of `pinlane._errors`, which says what each is for.

use pinlane::{Error, driver::ErrorKind};
use pyo3::{prelude::*, types::PyString};

/// An exception of the package, by its name there.
pub(crate) fn raise(py: Python<'_>, class: &str, message: impl Into<String>) -> PyErr {
    let make = || {
        let class = py.import("pinlane._errors")?.getattr("error")?.call1((class,))?;
        class.call1((PyString::new(py, &message.into()),))
    };
    make().map_or_else(|broken| broken, PyErr::from_value)
}

/// The exception for an error of the engine.
pub(crate) fn from_engine(py: Python<'_>, error: &Error) -> PyErr {
    raise(py, class_of(error), error.to_string())
}

/// The name of the exception for an error of the engine.
pub(crate) fn class_of(error: &Error) -> &'static str {
    match error {
        Error::Leaf { source, .. } => class_of(source),
        Error::PinnedBudget { .. } => "PinnedBudgetError",
        Error::HostMemory { .. } | Error::HostMapping { .. } => "HostMemoryError",
        Error::NoSuchDevice { .. } => "NoSuchDeviceError",
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
