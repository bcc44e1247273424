//! What the compiler's companions say of the source: rustfmt, clippy and rustdoc.

use anyhow::Result;

use crate::{
    command::{cargo, run},
    shuttle,
};

/// Nothing to format.
pub(crate) fn format() -> Result<String> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    Ok(String::new())
}

/// No warning in any target of any crate, nor in what only shuttle sees.
pub(crate) fn clippy() -> Result<String> {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(shuttle::cargo("clippy").args(["--release", "--all-targets", "--", "-D", "warnings"]))?;
    Ok(String::new())
}

/// No warning in the documentation.
pub(crate) fn rustdoc() -> Result<String> {
    run(cargo()
        .env("RUSTDOCFLAGS", "-D warnings")
        .args(["doc", "--no-deps", "--workspace"]))?;
    Ok(String::new())
}
