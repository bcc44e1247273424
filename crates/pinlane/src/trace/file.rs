//! A session whose trace goes to a file.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Session, Trace, start};
use crate::WholeFile;

/// A session whose trace goes to a file: whether it can be written is known from the beginning, and what is there already stays
/// until the trace is whole.
#[must_use = "the trace is written by `finish`"]
#[derive(Debug)]
pub struct TraceFile {
    session: Session,
    file: WholeFile,
    path: PathBuf,
}

impl TraceFile {
    /// Checks that the file can be written, and begins to collect.
    ///
    /// # Errors
    ///
    /// Where the file can't be written; nothing is collected then.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let file = WholeFile::check(&path)?;
        Ok(Self {
            session: start(),
            file,
            path,
        })
    }

    /// Where the trace goes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends collecting, has `edit` change what was collected (names of threads, say), and writes it.
    ///
    /// # Errors
    ///
    /// What the file says. What was collected is lost then, and what was there before is there still.
    pub fn finish_with(self, edit: impl FnOnce(&mut Trace)) -> io::Result<Trace> {
        let mut trace = self.session.finish();
        edit(&mut trace);
        self.file.write(|file| trace.write_to(file))?;
        Ok(trace)
    }

    /// Ends collecting and writes what was collected.
    ///
    /// # Errors
    ///
    /// As for [`finish_with`](Self::finish_with).
    pub fn finish(self) -> io::Result<Trace> {
        self.finish_with(|_| {})
    }
}
