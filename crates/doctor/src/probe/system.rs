//! Where the kernel's files are: below `/`, or below a folder of a test's.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use procfs_core::FromBufRead;

/// A root folder with `proc`, `sys` and `dev` in it, and what of the environment matters.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
    /// What container runtimes set.
    pub(super) container_variable: Option<String>,
    /// Whether there is an orchestrator's address.
    pub(super) in_cluster: bool,
}

impl System {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        Self {
            root: PathBuf::from("/"),
            container_variable: env::var("container").ok().filter(|name| !name.is_empty()),
            in_cluster: env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        }
    }

    /// One that was made up below `root`, with nothing in its environment.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            container_variable: None,
            in_cluster: false,
        }
    }

    pub(super) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    pub(super) fn has(&self, relative: &str) -> bool {
        self.path(relative).exists()
    }

    /// What a file says, without the white space around it.
    pub(super) fn read(&self, relative: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.path(relative)).ok()?;
        Some(text.trim().to_owned())
    }

    /// What a file says, as one of the kinds of `procfs`.
    pub(super) fn parse<T: FromBufRead>(&self, relative: &str) -> Option<T> {
        let content = fs::read(self.path(relative)).ok()?;
        T::from_buf_read(content.as_slice()).ok()
    }

    /// The names in a folder, in their order; none where there is no such folder.
    pub(super) fn names(&self, relative: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(relative)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// The value of `name` in lines of names and values with a colon between them.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
pub(super) mod made_up {
    //! Machines that tests make up.

    use super::*;

    /// A folder with these files in it.
    pub(in crate::probe) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let system = System::below(folder.path());
        (folder, system)
    }
}
