//! The Python package: built into an environment of its own below `target`, its types checked, its tests and the examples
//! of its documentation run.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    command::{program, run},
    venv, workspace,
};

/// What the tests need beside the package.
const REQUIREMENTS: &str = "python/requirements.txt";

/// As a step: everything that checks the package.
pub(crate) fn check() -> Result<String> {
    let python = install()?;
    run(program(&python).args(["-m", "mypy"]))?;
    run(program(&python)
        .args(["-m", "pytest", "--quiet"])
        // What the developer has measured of a GPU stays out of the tests: they are to do the same everywhere.
        .env("PINLANE_PROFILE", "assumed"))?;
    Ok(String::new())
}

/// Builds the package and installs it; gives the interpreter that finds it.
fn install() -> Result<PathBuf> {
    let python = environment()?;
    run(program(&python)
        .args(["-m", "maturin", "develop", "--quiet"])
        .env("VIRTUAL_ENV", venv::folder()))?;
    Ok(python)
}

/// The environment with what the tests need, installed where the list of that has changed; gives its interpreter.
fn environment() -> Result<PathBuf> {
    let python = venv::interpreter()?;
    let wanted = wanted(&fs::read(workspace::root().join(REQUIREMENTS))?);
    let stamp = venv::folder().join("requirements.stamp");
    if !is_stamped(&stamp, &wanted) {
        run(program(&python)
            .args(["-m", "pip", "install", "--quiet", "--no-input"])
            .args(["--disable-pip-version-check", "--requirement", REQUIREMENTS]))
        .context("installing what the tests of the Python package need: torch is some gigabytes")?;
        fs::write(&stamp, &wanted).with_context(|| format!("writing {}", stamp.display()))?;
    }
    Ok(python)
}

/// What stands for a list of requirements in the environment that has them.
fn wanted(requirements: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    requirements.hash(&mut hasher);
    format!("{:016x}\n", hasher.finish())
}

fn is_stamped(stamp: &Path, wanted: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|found| found == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_up_to_date_until_the_requirements_change() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = folder.path().join("stamp");
        assert!(!is_stamped(&stamp, &wanted(b"torch")));
        fs::write(&stamp, wanted(b"torch")).unwrap();
        assert!(is_stamped(&stamp, &wanted(b"torch")));
        assert!(!is_stamped(&stamp, &wanted(b"torch==2.11")));
    }
}
