//! Writing to the terminal, and what stops the command.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

/// Why the command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It can't run as asked.
    Usage(anyhow::Error),
    /// It ran, and then could not go on.
    Run(anyhow::Error),
}

impl Failure {
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    /// Whether all that happened is that nobody reads the output any more.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        let (Self::Usage(error) | Self::Run(error)) = self;
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Run(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(error) | Self::Run(error)) = self;
        let mut said = String::new();
        for cause in error.chain().map(ToString::to_string) {
            // Most errors of the libraries tell their cause themselves.
            if !said.ends_with(&cause) {
                let colon = if said.is_empty() { "" } else { ": " };
                write!(f, "{colon}{cause}")?;
                said = cause;
            }
        }
        Ok(())
    }
}

/// Prints a line, and returns what `println!` would panic with.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}").map_err(|error| Failure::Run(error.into()))
}
