//! Other loaders of checkpoints in the bundle, for machines that have no network: what lies in `target/peers`, a folder for
//! each as `pip install --target` makes it. `bench/README.md` says how.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::strip;

/// Where they lie in the bundle and in `target`.
pub(super) const FOLDER: &str = "peers";

/// Copies all that is below `from`, libraries without debug information, to `to`; gives the copies. There may be nothing.
pub(super) fn copy(from: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    if !from.exists() {
        return Ok(copies);
    }
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let from = entry?.path();
        let Some(name) = from.file_name().filter(|&name| name != "__pycache__") else {
            continue;
        };
        let to = to.join(name);
        if from.is_dir() {
            copies.extend(copy(&from, &to)?);
        } else if from.extension().is_some_and(|extension| extension == "so") {
            strip(&from, &to)?;
            copies.push(to);
        } else {
            fs::copy(&from, &to)
                .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
            copies.push(to);
        }
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_copied_with_its_folders_but_not_what_python_makes_of_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("from/loader/package/__pycache__")).unwrap();
        fs::write(at("from/loader/package/__init__.py"), "x = 1").unwrap();
        fs::write(at("from/loader/package/__pycache__/__init__.pyc"), "").unwrap();
        let copies = copy(&at("from"), &at("to")).unwrap();
        assert_eq!(copies, [at("to/loader/package/__init__.py")]);
        assert_eq!(fs::read_to_string(&copies[0]).unwrap(), "x = 1");
        assert!(copy(&at("nowhere"), &at("to")).unwrap().is_empty());
    }
}
