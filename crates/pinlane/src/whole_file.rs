//! The file that a result goes to: whole or not at all.
//!
//! What comes to a result may take minutes and be stopped. Until the result is there, the file is not touched; then it is
//! written beside it and takes its place. Whether that can be done is found out before.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// A file that a result goes to: checked before there is one, and replaced as a whole when there is.
#[derive(Clone, Debug)]
pub struct WholeFile(Place);

#[derive(Clone, Debug)]
enum Place {
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

impl WholeFile {
    /// Checks that a result can be written to `path`, and leaves nothing behind.
    ///
    /// # Errors
    ///
    /// When `path` is a folder, or no file can be made beside it.
    pub fn check(path: &Path) -> io::Result<Self> {
        let path = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => return Ok(Self(Place::InPlace(path.to_owned()))),
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
        Ok(Self(Place::Replaced { path, folder }))
    }

    /// Where the result goes.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.0 {
            Place::Replaced { path, .. } | Place::InPlace(path) => path,
        }
    }

    /// Writes the result.
    ///
    /// # Errors
    ///
    /// The first error of `write` or of the file; what was there before is there still.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        match &self.0 {
            Place::Replaced { path, folder } => {
                let mut file = beside(folder)?;
                buffered(&mut file, write)?;
                file.persist(path)?;
                Ok(())
            }
            Place::InPlace(path) => buffered(&mut File::create(path)?, write),
        }
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
    builder.prefix(".pinlane-result-");
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
    fn nothing_is_there_before_the_result_and_nothing_else_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let file = WholeFile::check(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        file.write(|file| file.write_all(b"all of it")).unwrap();
        assert_eq!(names(folder.path()), ["report.json"]);
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
    }

    #[test]
    fn an_older_result_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, "old").unwrap();
        let file = WholeFile::check(&path).unwrap();
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
        assert!(WholeFile::check(folder.path()).is_err());
        let missing = WholeFile::check(&folder.path().join("missing/report.json"));
        let error = missing.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!error.to_string().contains("pinlane-result"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let null = Path::new("/dev/null");
        let file = WholeFile::check(null).unwrap();
        assert!(matches!(file, WholeFile(Place::InPlace(_))));
        file.write(|file| file.write_all(b"gone")).unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
    }
}
