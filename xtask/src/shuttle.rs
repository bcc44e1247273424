//! The concurrency tests of the engine and of the simulated device, with shuttle's threads and locks in place of std's.

use std::process::Command;

use anyhow::Result;

use crate::{
    command::{self, run},
    workspace,
};

/// Runs them, optimised, for they explore thousands of interleavings.
pub(crate) fn check() -> Result<String> {
    run(cargo("test").args(["--release", "--test", "shuttle", "--test", "interleavings"]))?;
    Ok(String::new())
}

/// A command of cargo over the crates that shuttle tests, built for it; in a build folder of their own, for `--cfg` on
/// every crate would otherwise throw the usual build away.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = command::cargo();
    command
        .env("RUSTFLAGS", "--cfg shuttle")
        .args([
            subcommand,
            "-p",
            "pinlane",
            "-p",
            "pinlane-driver",
            "--target-dir",
        ])
        .arg(workspace::target("shuttle"));
    command
}
