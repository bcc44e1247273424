//! Programs of others that the chores run: built by cargo once into `target/tools`, each at the version that is written down.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    command::{cargo, probe, program, run},
    workspace,
};

/// A program from the registry.
pub(crate) struct Tool {
    /// The crate's name and the program's.
    pub(crate) name: &'static str,
    /// The version that is used.
    pub(crate) version: &'static str,
    /// What it answers to `--version`.
    pub(crate) says: &'static str,
    /// Options for building it.
    pub(crate) options: &'static [&'static str],
    /// What it is for, in errors.
    pub(crate) about: &'static str,
}

impl Tool {
    /// The program, built where it is not there yet or is another version.
    pub(crate) fn installed(&self) -> Result<PathBuf> {
        let path = workspace::target(&format!("tools/bin/{}", self.name));
        let found = probe(program(&path).arg("--version"));
        if found.is_none_or(|says| says.trim() != self.says) {
            run(cargo()
                .args([
                    "install",
                    "--locked",
                    "--force",
                    self.name,
                    "--version",
                    self.version,
                ])
                .args(self.options)
                .arg("--root")
                .arg(workspace::target("tools")))
            .with_context(|| format!("installing {}, which {}", self.name, self.about))?;
        }
        Ok(path)
    }
}
