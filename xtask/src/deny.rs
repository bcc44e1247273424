//! cargo-deny over the dependencies: licences, sources, duplicates (`deny.toml`), and advisories on demand.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    command::{cargo, probe, program, run},
    workspace,
};

const VERSION: &str = "0.20.2";

/// What can be checked without any network beyond the registry.
pub(crate) fn check() -> Result<String> {
    run(program(tool()?).args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    Ok(format!(
        "cargo-deny {VERSION}; advisories: `cargo xtask advisories`"
    ))
}

/// Known vulnerabilities. Not part of `test`: the database is fetched from github.com, and what it says of an
/// unchanged checkout changes from day to day.
pub(crate) fn advisories() -> Result<String> {
    run(program(tool()?).args(["check", "advisories"]))?;
    Ok("no advisory applies".to_owned())
}

/// The tool, built once into `target/tools` where it is not there yet.
fn tool() -> Result<PathBuf> {
    let path = workspace::target("tools/bin/cargo-deny");
    let installed = probe(program(&path).arg("--version"));
    if installed.is_none_or(|version| version.trim() != format!("cargo-deny {VERSION}")) {
        run(cargo()
            .args(["install", "--locked", "--force", "cargo-deny"])
            .args(["--version", VERSION, "--root"])
            .arg(workspace::target("tools")))
        .context("installing cargo-deny, which checks the licences of the dependencies")?;
    }
    Ok(path)
}
