//! The concurrency tests of the engine and of the simulated device, with shuttle's threads and locks in place of std's.

use anyhow::Result;

use crate::{
    command::{cargo, run},
    workspace,
};

/// Runs them, optimised, for they explore thousands of interleavings; in a build folder of their own, for `--cfg` on
/// every crate would otherwise throw the usual build away.
pub(crate) fn check() -> Result<String> {
    run(cargo()
        .env("RUSTFLAGS", "--cfg shuttle")
        .args(["test", "--release", "-p", "pinlane", "-p", "pinlane-driver"])
        .args(["--test", "shuttle", "--test", "interleavings"])
        .arg("--target-dir")
        .arg(workspace::target("shuttle")))?;
    Ok(String::new())
}
