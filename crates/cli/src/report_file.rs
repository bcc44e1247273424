//! The file that a report goes to: whole or not at all.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Context as _;
use pinlane::WholeFile;

use crate::output::Failure;

/// Where a report goes, checked.
#[derive(Clone, Debug)]
pub(crate) struct ReportFile(WholeFile);

impl ReportFile {
    /// Checks the file that is to hold `what`, where one was named.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] where `path` is a folder, or no file can be made beside it.
    pub(crate) fn check_any(path: Option<&Path>, what: &str) -> Result<Option<Self>, Failure> {
        let check = |path: &Path| {
            WholeFile::check(path)
                .map(Self)
                .with_context(|| format!("could not write the {what} to {}", path.display()))
        };
        path.map(check).transpose().map_err(Failure::Usage)
    }

    /// Writes `what`.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] with the first error of `write` or of the file; what was there before is there still.
    pub(crate) fn keep(
        &self,
        what: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.0
            .write(write)
            .with_context(|| format!("could not write the {what} to {}", self.0.path().display()))
            .map_err(Failure::Run)
    }
}
