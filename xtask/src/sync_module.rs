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
const FORBIDDEN: [&str; 2] = ["sync", "thread"];

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
        found.extend(
            forbidden(&source)
                .into_iter()
                .map(|line| format!("{name}:{line}")),
        );
    }
    if !found.is_empty() {
        bail!("use `pinlane_driver::sync` instead in\n  {}", found.join("\n  "));
    }
    Ok(format!("{} files", files.len()))
}

/// The lines on which a statement begins that names what only the module may name, in full (`std::sync::Arc`) or in a
/// group (`use std::{fmt, sync::Arc}`).
fn forbidden(source: &str) -> Vec<usize> {
    let code: Vec<&str> = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect();
    let mut lines = Vec::new();
    let mut line = 1;
    for statement in code.join("\n").split(';') {
        let blank = statement.len() - statement.trim_start().len();
        let start = line + statement[..blank].matches('\n').count();
        line += statement.matches('\n').count();
        let compact: String = statement.split_whitespace().collect();
        let named = FORBIDDEN.iter().any(|module| {
            compact.contains(&format!("std::{module}"))
                || compact.contains("usestd::{")
                    && ["{", ","]
                        .iter()
                        .any(|before| compact.contains(&format!("{before}{module}")))
        });
        if named {
            lines.push(start);
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_named_in_full_is_found_on_its_line() {
        assert_eq!(forbidden("use std::fmt;\n\nuse std::sync::Arc;\n"), [3]);
    }

    #[test]
    fn a_module_named_in_a_group_is_found() {
        assert_eq!(forbidden("use std::{\n    fmt,\n    thread,\n};\n"), [1]);
        assert_eq!(forbidden("use std::{sync::Arc, fmt};"), [1]);
    }

    #[test]
    fn comments_and_the_project_s_own_module_are_left_alone() {
        assert_eq!(
            forbidden("// unlike std::sync\nuse crate::sync::{Arc, thread};\n"),
            [0; 0]
        );
        assert_eq!(
            forbidden("use std::{fmt, io};\nuse pinlane_driver::{Driver, sync::Arc};"),
            [0; 0]
        );
    }
}
