//! The Python package in the bundle: its wheel, its tests, and what they are run with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{program, run},
    venv, workspace,
};

/// Where it all lies in the bundle and, but for the wheel, in the repository.
pub(super) const FOLDER: &str = "python";
const TESTS: &str = "python/tests";
/// How pytest is to run the tests.
const SETTINGS: &str = "pyproject.toml";

/// The wheel in the bundle, or why there is none.
#[derive(Debug, PartialEq)]
pub(super) enum Wheel {
    Built(PathBuf),
    Missing(&'static str),
}

impl Wheel {
    /// Builds it into the bundle in `folder`, where the project's Python environment has what that takes.
    pub(super) fn build(folder: &Path) -> Result<Self> {
        let python = venv::folder().join("bin/python");
        if !venv::folder().join("bin/maturin").exists() {
            return Ok(Self::Missing(
                "the bundle was made without a Python environment: `cargo xtask test python` makes one",
            ));
        }
        let out = folder.join(FOLDER);
        run(program(&python)
            .args(["-m", "maturin", "build", "--release", "--quiet", "--out"])
            .arg(&out)
            .env("VIRTUAL_ENV", venv::folder()))?;
        only_wheel(&out).map(Self::Built)
    }

    /// What the manifest of the bundle in `folder` says of it.
    pub(super) fn line(&self, folder: &Path) -> String {
        match self {
            Self::Built(path) => {
                let path = path.strip_prefix(folder).unwrap_or(path);
                format!("wheel {}\n", path.display())
            }
            Self::Missing(reason) => format!("no-wheel {reason}\n"),
        }
    }
}

/// The one wheel in a folder.
fn only_wheel(folder: &Path) -> Result<PathBuf> {
    let mut wheels = with_extension(folder, "whl")?;
    match (wheels.pop(), wheels.is_empty()) {
        (Some(wheel), true) => Ok(wheel),
        (found, _) => bail!(
            "maturin was to leave one wheel in {}, and there are {}",
            folder.display(),
            wheels.len() + usize::from(found.is_some())
        ),
    }
}

/// Copies the tests and their settings into the bundle in `folder`; gives the copies.
pub(super) fn copy_tests(folder: &Path) -> Result<Vec<PathBuf>> {
    let root = workspace::root();
    let mut copies = vec![(root.join(SETTINGS), folder.join(SETTINGS))];
    for test in with_extension(&root.join(TESTS), "py")? {
        let copy = folder.join(test.strip_prefix(root).unwrap_or(&test));
        copies.push((test, copy));
    }
    fs::create_dir_all(folder.join(TESTS))
        .with_context(|| format!("making {TESTS} in {}", folder.display()))?;
    for (from, to) in &copies {
        fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    Ok(copies.into_iter().map(|(_, copy)| copy).collect())
}

fn with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_are_copied_with_the_settings_that_pytest_reads() {
        let folder = tempfile::tempdir().unwrap();
        let copies = copy_tests(folder.path()).unwrap();
        for name in [
            "pyproject.toml",
            "python/tests/conftest.py",
            "python/tests/test_gpu.py",
        ] {
            assert!(copies.contains(&folder.path().join(name)), "{name}: {copies:?}");
        }
        assert!(copies.iter().all(|copy| copy.is_file()));
    }

    #[test]
    fn the_manifest_names_the_wheel_inside_the_bundle_or_says_why_there_is_none() {
        let built = Wheel::Built("/bundle/python/pinlane-0.1.0.whl".into());
        assert_eq!(
            built.line(Path::new("/bundle")),
            "wheel python/pinlane-0.1.0.whl\n"
        );
        let missing = Wheel::Missing("no environment");
        assert_eq!(missing.line(Path::new("/bundle")), "no-wheel no environment\n");
    }

    #[test]
    fn one_wheel_is_taken_and_more_or_none_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = only_wheel(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("there are 0"), "{error}");
        fs::write(folder.path().join("a.whl"), "").unwrap();
        assert_eq!(only_wheel(folder.path()).unwrap(), folder.path().join("a.whl"));
        fs::write(folder.path().join("b.whl"), "").unwrap();
        let error = only_wheel(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("there are 2"), "{error}");
    }
}
