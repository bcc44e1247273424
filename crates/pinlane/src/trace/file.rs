//! A session whose trace goes to a file.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{Session, Trace, start};

/// A session whose trace goes to a file, which is there from the beginning: whether it can be written is known then.
#[must_use = "the trace is written by `finish`"]
#[derive(Debug)]
pub struct TraceFile {
    session: Session,
    file: File,
    path: PathBuf,
}

impl TraceFile {
    /// Makes the file, or empties it, and begins to collect.
    ///
    /// # Errors
    ///
    /// Where the file can't be written; nothing is collected then.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let file = File::create(&path)?;
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
    /// What the file says. What was collected is lost then.
    pub fn finish_with(self, edit: impl FnOnce(&mut Trace)) -> io::Result<Trace> {
        let mut trace = self.session.finish();
        edit(&mut trace);
        trace.write_to(&self.file)?;
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
