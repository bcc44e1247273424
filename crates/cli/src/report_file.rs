//! The file that a report goes to: whole or not at all.
//!
//! A run takes minutes and may be stopped. Until its report is there, the file is not touched; then the report is
//! written beside it and takes its place. Whether that can be done is found out before the run.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tempfile::NamedTempFile;

use crate::output::Failure;

/// Where a report goes, checked.
#[derive(Clone, Debug)]
pub(crate) enum ReportFile {
    /// A file, which is replaced or made.
    Replaced {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// What is no regular file, such as `/dev/stdout` or a pipe: nothing can take its place, so it is written to.
    InPlace(PathBuf),
}

impl ReportFile {
    /// Checks that a report can be written to `path`, and leaves nothing behind.
    ///
    /// # Errors
    ///
    /// When `path` is a folder, or no file can be made beside it.
    pub(crate) fn check(path: &Path) -> io::Result<Self> {
        let path = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => return Ok(Self::InPlace(path.to_owned())),
            // A link stays, and what it points to is replaced.
            Ok(_) => path.canonicalize()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::metadata(&folder)?;
        beside(&folder)?;
        Ok(Self::Replaced { path, folder })
    }

    /// Where the report goes.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Replaced { path, .. } | Self::InPlace(path) => path,
        }
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// The first error of `write` or of the file; what was there before is there still.
    pub(crate) fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Replaced { path, folder } => {
                let mut file = beside(folder)?;
                buffered(&mut file, write)?;
                file.persist(path)?;
                Ok(())
            }
            Self::InPlace(path) => buffered(&mut File::create(path)?, write),
        }
    }
}

impl ReportFile {
    /// Checks the file that is to hold `what`, where one was named.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] as for [`check`](Self::check).
    pub(crate) fn check_any(path: Option<&Path>, what: &str) -> Result<Option<Self>, Failure> {
        let check = |path: &Path| {
            Self::check(path).with_context(|| format!("could not write the {what} to {}", path.display()))
        };
        path.map(check).transpose().map_err(Failure::Usage)
    }

    /// Writes `what`.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] as for [`write`](Self::write).
    pub(crate) fn keep(
        &self,
        what: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.write(write)
            .with_context(|| format!("could not write the {what} to {}", self.path().display()))
            .map_err(Failure::Run)
    }
}

fn buffered(file: &mut impl Write, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = io::BufWriter::new(file);
    write(&mut file)?;
    file.flush()
}

/// A file in `folder` that goes away unless it is kept, with the permissions of any new file.
fn beside(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pinlane-report-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(folder);
    // The kind alone: whoever reports it names the file that was asked for, not one that nobody knows.
    file.map_err(|error| error.kind().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn nothing_is_there_before_the_report_and_nothing_else_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let file = ReportFile::check(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        file.write(|file| file.write_all(b"all of it")).unwrap();
        assert_eq!(names(folder.path()), ["report.json"]);
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
    }

    #[test]
    fn an_older_report_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, "old").unwrap();
        let file = ReportFile::check(&path).unwrap();
        let failed = file.write(|file| {
            file.write_all(b"half of")?;
            Err(io::ErrorKind::Interrupted.into())
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.write(|file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["report.json"]);
    }

    #[test]
    fn a_folder_is_no_file_to_write_to() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ReportFile::check(folder.path()).is_err());
        let missing = ReportFile::check(&folder.path().join("missing/report.json"));
        let error = missing.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!error.to_string().contains("pinlane-report"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let null = Path::new("/dev/null");
        let file = ReportFile::check(null).unwrap();
        assert!(matches!(file, ReportFile::InPlace(_)));
        file.write(|file| file.write_all(b"gone")).unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
    }
}
