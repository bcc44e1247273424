//! Building the crates and running their tests.

use std::process::Command;

use anyhow::Result;

use crate::{
    command::{cargo, probe, run},
    model,
};

/// Every crate builds.
pub(crate) fn build() -> Result<String> {
    run(cargo().args(["build", "--workspace"]))?;
    Ok(String::new())
}

/// The tests of every crate, by nextest where it is installed.
pub(crate) fn tests() -> Result<String> {
    let nextest = probe(cargo().args(["nextest", "--version"])).is_some();
    let (runner, arguments): (_, &[&str]) = if nextest {
        (
            "cargo nextest",
            &["nextest", "run", "--workspace", "--no-fail-fast"],
        )
    } else {
        (
            "cargo test",
            &[
                "test",
                "--workspace",
                "--lib",
                "--bins",
                "--tests",
                "--no-fail-fast",
            ],
        )
    };
    run(with_model(with_assumed_profiles(cargo().args(arguments)))?)?;
    Ok(format!("by {runner}"))
}

/// The examples in the documentation, which nextest does not run.
pub(crate) fn doctests() -> Result<String> {
    run(with_assumed_profiles(cargo().args([
        "test",
        "--workspace",
        "--doc",
        "--no-fail-fast",
    ])))?;
    Ok(String::new())
}

/// Keeps what the developer has measured and stored of a GPU out of the tests: they are to do the same everywhere.
fn with_assumed_profiles(command: &mut Command) -> &mut Command {
    command.env("PINLANE_PROFILE", "assumed")
}

/// Tells tests where the checkpoint is, if it is there; the tests that move it fail and say so if it is not.
pub(crate) fn with_model(command: &mut Command) -> Result<&mut Command> {
    command.env(model::REQUIRED, "1");
    if let Some(path) = model::installed()? {
        command.env(model::VARIABLE, path);
    }
    Ok(command)
}
