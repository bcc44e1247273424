//! The Python environment that the chores install into, below the build folder.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    command::{program, run},
    workspace,
};

/// Where it lies, or will.
pub(crate) fn folder() -> PathBuf {
    workspace::target("venv")
}

/// Its interpreter; the environment is made where there is none yet.
pub(crate) fn interpreter() -> Result<PathBuf> {
    let python = folder().join("bin/python");
    if !python.exists() {
        run(program("python3").args(["-m", "venv"]).arg(folder()))
            .context("making a Python environment; it wants Python 3.10 or later with its `venv` module")?;
    }
    Ok(python)
}
