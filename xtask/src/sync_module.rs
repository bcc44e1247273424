//! The driver and the engine take threads, locks and atomics from `pinlane_driver::sync` only: what shuttle cannot
//! replace, it cannot test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

const CRATES: [&str; 2] = ["crates/driver/src", "crates/pinlane/src"];
const MODULE: &str = "crates/driver/src/sync.rs";
const FORBIDDEN: [&str; 2] = ["std::sync", "std::thread"];

/// No line of code outside the module names what only the module may name.
pub(crate) fn check() -> Result<String> {
    let mut files = Vec::new();
    for folder in CRATES {
        collect(&workspace::root().join(folder), &mut files)?;
    }
    let mut found = Vec::new();
    for path in &files {
        let name = path
            .strip_prefix(workspace::root())
            .unwrap_or(path)
            .display()
            .to_string();
        if name == MODULE {
            continue;
        }
        let source = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if FORBIDDEN.iter().any(|path| code.contains(path)) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    if !found.is_empty() {
        bail!("use `pinlane_driver::sync` instead in\n  {}", found.join("\n  "));
    }
    Ok(format!("{} files", files.len()))
}

/// Every Rust file below `folder`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let listing = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    for entry in listing {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
