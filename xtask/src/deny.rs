//! cargo-deny over the dependencies: licences, sources, duplicates (`deny.toml`), and advisories on demand.

use anyhow::Result;

use crate::{
    command::{program, run},
    tool::Tool,
};

const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    says: "cargo-deny 0.20.2",
    options: &[],
    about: "checks the licences of the dependencies",
};

/// What can be checked without any network beyond the registry.
pub(crate) fn check() -> Result<String> {
    run(program(DENY.installed()?).args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    Ok(format!("{}; advisories: `cargo xtask advisories`", DENY.says))
}

/// Known vulnerabilities. Not part of `test`: the database is fetched from github.com, and what it says of an
/// unchanged checkout changes from day to day.
pub(crate) fn advisories() -> Result<String> {
    run(program(DENY.installed()?).args(["check", "advisories"]))?;
    Ok("no advisory applies".to_owned())
}
