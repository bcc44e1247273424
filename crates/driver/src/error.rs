//! What can go wrong below the engine: a kind to match on, and a sentence for people.

use std::fmt;

use crate::DeviceId;

/// The result of a driver call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for code that decides on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The device has not that much memory free.
    OutOfMemory,
    /// The host may not pin that much memory.
    PinLimit,
    /// An argument breaks the call's contract.
    InvalidArgument,
    /// A stream, event or address that this driver does not know.
    InvalidHandle,
    /// A copy was enqueued and then failed. What it was to write is undefined; nothing is still being written.
    CopyFailed,
    /// The device is gone, and with it the knowledge of what it still reads and writes.
    DeviceLost,
    /// This driver cannot do that.
    Unsupported,
    /// There is no such device.
    NoSuchDevice,
    /// The driver refused the call for a reason that has no kind of its own here; the error's code and message say
    /// which.
    Refused,
    /// The process was forked from one that uses devices, and can't use them.
    Forked,
    /// The call is right but came before its time, such as the elapsed time of events that have not fired.
    NotReady,
}

impl ErrorKind {
    /// Whether the device may go on reading and writing memory that it was given: such memory can't be reused or
    /// freed any more.
    #[must_use]
    pub fn leaves_memory_in_use(self) -> bool {
        matches!(self, Self::DeviceLost)
    }
}

/// The driver's own name and number of an error (CUDA: `CUDA_ERROR_OUT_OF_MEMORY`, 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// The name in the driver's header.
    pub name: String,
    /// The number in the driver's header.
    pub number: i64,
}

/// An error of a driver: what was being done, on which device, what happened, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    device: DeviceId,
    message: String,
    code: Option<Code>,
}

impl Error {
    /// An error of `kind` on `device`. `message` says what was being done, to what, what happened and what to do.
    #[must_use]
    pub fn new(kind: ErrorKind, device: DeviceId, message: impl Into<String>) -> Self {
        Self {
            kind,
            device,
            message: message.into(),
            code: None,
        }
    }

    /// Adds the driver's own name and number of the error.
    #[must_use]
    pub fn with_code(mut self, name: impl Into<String>, number: i64) -> Self {
        self.code = Some(Code {
            name: name.into(),
            number,
        });
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The device that it went wrong on.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The driver's own name and number, where it gave one.
    #[must_use]
    pub fn code(&self) -> Option<&Code> {
        self.code.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.device, self.message)?;
        if let Some(code) = &self.code {
            write!(f, " [{} = {}]", code.name, code.number)?;
        }
        Ok(())
    }
}
