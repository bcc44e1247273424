//! Files on their way to a name: written under a hidden one, brought to the disk, and named when they are whole.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{Error, FileAccess, FileSink, Result, checkpoint::shard::open_regular, file::cached};

/// What a new file may be, before the process's umask takes its part: as for files that are made in the usual way.
const MODE: u32 = 0o666;

/// One step of a save in its folder, for whoever wants to stop it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A hidden file is made that will get this name.
    Create(&'a str),
    /// What was written to it is brought to the disk.
    Finish(&'a str),
    /// It gets the name.
    Publish(&'a str),
    /// The names are brought to the disk.
    Sync,
    /// A file of an old checkpoint is removed.
    Remove(&'a str),
}

/// A folder in which files are replaced.
pub(super) struct Folder<'a> {
    path: &'a Path,
    /// What new files may be, where they replace some.
    mode: Option<u32>,
    announce: &'a mut dyn FnMut(Step<'_>) -> Result<()>,
}

impl<'a> Folder<'a> {
    /// The folder at `path`, in which new files are open to whom the first is that is there of those `replaced`; `announce`
    /// hears of each step before it is taken, and may refuse it.
    pub(super) fn new<'n>(
        path: &'a Path,
        replaced: impl IntoIterator<Item = &'n str>,
        announce: &'a mut dyn FnMut(Step<'_>) -> Result<()>,
    ) -> Self {
        let mut found = replaced
            .into_iter()
            .filter_map(|name| fs::metadata(path.join(name)).ok());
        let mode = found.next().map(|old| old.permissions().mode() & 0o777);
        Self { path, mode, announce }
    }

    /// An empty file that will be called `name`. It is gone when it is dropped.
    pub(super) fn create(&mut self, name: &str) -> Result<Draft> {
        (self.announce)(Step::Create(name))?;
        let path = self.path.join(name);
        let file = tempfile::Builder::new()
            .prefix(&format!(".{}.", shortened(name)))
            .suffix(".tmp")
            .permissions(Permissions::from_mode(self.mode.unwrap_or(MODE)))
            .tempfile_in(self.path)
            .map_err(|source| failed("making a file for", &path, without_path(source)))?;
        if let Some(mode) = self.mode {
            // The process's umask has taken its part, which the file that is replaced may have had.
            let set = file.as_file().set_permissions(Permissions::from_mode(mode));
            set.map_err(|source| failed("setting the permissions of", &path, source))?;
        }
        // Tells later saves that it is in use. Where the file system has no locks, they leave it alone.
        let _ = file.as_file().try_lock();
        Ok(Draft { file, path })
    }

    /// Removes a hidden file of a save that was killed: one that nobody has locked.
    pub(super) fn remove_abandoned(&mut self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        // What can't be opened or locked may be somebody's, and is left.
        let locked = open_regular(&path).map(|(file, _)| file.try_lock().map(|()| file));
        if let Ok(Ok(_file)) = locked {
            self.remove(name)?;
        }
        Ok(())
    }

    /// Brings what was written down to the disk.
    pub(super) fn finish(&mut self, name: &str, draft: &Draft) -> Result<()> {
        (self.announce)(Step::Finish(name))?;
        draft
            .file
            .as_file()
            .sync_all()
            .map_err(|source| draft.failed("syncing", source))
    }

    /// Gives the file its name, which is taken from another only if it may `replace` it.
    pub(super) fn publish(&mut self, name: &str, draft: Draft, replace: bool) -> Result<()> {
        (self.announce)(Step::Publish(name))?;
        let Draft { file, path } = draft;
        let named = if replace {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        named
            .map(drop)
            .map_err(|error| failed("naming", &path, error.error))
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&mut self, name: &str) -> Result<()> {
        (self.announce)(Step::Remove(name))?;
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("removing", &path, source)),
            _ => Ok(()),
        }
    }

    /// Brings the names down to the disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        (self.announce)(Step::Sync)?;
        File::open(self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| failed("syncing the folder", self.path, source))
    }
}

/// The longest beginning of a name that leaves room for what makes it a hidden one, where names have 255 bytes.
fn shortened(name: &str) -> &str {
    let mut end = name.len().min(200);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// An error of the system alone: `tempfile` adds the hidden name.
fn without_path(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(std::error::Error::source);
    let code = inner
        .and_then(|inner| inner.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    code.map_or(error, io::Error::from_raw_os_error)
}

/// A file without its name.
pub(super) struct Draft {
    file: NamedTempFile,
    /// What it will be called.
    path: PathBuf,
}

impl Draft {
    /// The file as tensors are written to it, when it will be so many bytes long.
    pub(super) fn sink(&self, bytes: u64, access: FileAccess) -> Result<FileSink> {
        let file = self.file.as_file().try_clone();
        let file = file.map_err(|source| self.failed("opening again", source))?;
        FileSink::new(file, &self.path, bytes, access)
    }

    /// Whether the file is one in memory.
    pub(super) fn is_in_memory(&self) -> bool {
        cached::is_in_memory(self.file.as_file())
    }

    /// Writes `bytes` at `offset`.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.as_file().write_all_at(bytes, offset).map_err(|source| {
            self.failed(
                &format!("writing {} bytes at offset {offset} of", bytes.len()),
                source,
            )
        })
    }

    fn failed(&self, doing: &str, source: io::Error) -> Error {
        failed(doing, &self.path, source)
    }
}

/// What the system refused, of the file as it will be called: its hidden name says nothing to anyone.
fn failed(doing: &str, path: &Path, source: io::Error) -> Error {
    Error::File {
        doing: doing.to_owned(),
        path: path.to_owned(),
        source,
    }
}
