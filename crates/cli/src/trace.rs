//! `--trace`: what a command does, and when.

use std::path::Path;

use anyhow::Context as _;
use pinlane::{trace::TraceFile, units};

use crate::output::Failure;

/// What is traced while a command runs, if anything is.
pub(crate) struct Tracing(Option<TraceFile>);

impl Tracing {
    /// Begins, where the trace is to go to a file.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] where that can't be written.
    pub(crate) fn start(path: Option<&Path>) -> Result<Self, Failure> {
        let create = |path: &Path| {
            TraceFile::create(path)
                .with_context(|| format!("could not write the trace to {}", path.display()))
        };
        path.map(create).transpose().map(Self).map_err(Failure::Usage)
    }

    /// Writes the trace of a command that ran, and of one that did so to its end the table of operations to standard error:
    /// standard output is the command's. One that could not run as asked leaves the file as it was.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] where the file takes no more.
    pub(crate) fn finish(self, result: &Result<bool, Failure>) -> Result<(), Failure> {
        let Some(file) = self.0 else { return Ok(()) };
        if matches!(result, Err(Failure::Usage(_))) {
            return Ok(());
        }
        let path = file.path().to_owned();
        let trace = file
            .finish()
            .with_context(|| format!("could not write the trace to {}", path.display()))
            .map_err(Failure::Run)?;
        let path = path.display();
        if trace.is_empty() {
            eprintln!("\nnothing was traced: {path} has no spans");
            return Ok(());
        }
        if result.is_ok() {
            eprintln!("\n{}", trace.summary());
        }
        let spans = units::counted(trace.len() as u64, "span is", "spans are");
        eprintln!("{spans} in {path}, for https://ui.perfetto.dev");
        Ok(())
    }
}
