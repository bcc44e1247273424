//! AddressSanitizer over the two crates that hold unsafe code.
//!
//! The sanitizer is an unstable option of a stable compiler; `RUSTC_BOOTSTRAP` lets the stable toolchain take it.

use anyhow::Result;

use crate::{
    command::{cargo, run},
    suite::with_model,
    workspace::{host, list, metadata, target, text},
};

/// The crates that hold unsafe code.
const CRATES: [&str; 2] = ["pinlane-driver", "pinlane"];

/// Test files left out: compile-fail tests run the compiler, not the engine, and shuttle's have their own build.
const LEFT_OUT: [&str; 2] = ["compile_fail", "shuttle"];

/// Leaks are not looked for: memory that a lost device may still write is leaked on purpose, and the tests themselves
/// count what is alive on the simulated device. An allocation that no host can grant is an error to be handled, as
/// without the sanitizer.
const OPTIONS: &str =
    "detect_leaks=0:detect_stack_use_after_return=1:check_initialization_order=1:allocator_may_return_null=1";

/// Of the fault matrix, which runs whole in the ordinary build, only each so manieth case.
const FAULTS_STRIDE: &str = "7";

/// Runs the unit and integration tests of [`CRATES`]. Naming the target keeps the sanitizer out of build scripts and
/// procedural macros.
pub(crate) fn check() -> Result<String> {
    let host = host()?;
    let mut command = cargo();
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("ASAN_OPTIONS", OPTIONS)
        .env("PINLANE_FAULTS_STRIDE", FAULTS_STRIDE)
        .args(["test", "--lib", "--no-fail-fast", "--target", &host])
        .arg("--target-dir")
        .arg(target("asan"));
    for name in CRATES {
        command.args(["--package", name]);
    }
    for name in test_files()? {
        command.args(["--test", &name]);
    }
    run(with_model(&mut command)?)?;
    Ok(String::new())
}

/// The integration tests of [`CRATES`] that can run.
fn test_files() -> Result<Vec<String>> {
    let metadata = metadata()?;
    let files = list(&metadata, "packages")
        .filter(|package| CRATES.contains(&text(package, "name")))
        .flat_map(|package| list(package, "targets"))
        .filter(|target| list(target, "kind").any(|kind| kind == "test"))
        .map(|target| text(target, "name").to_owned())
        .filter(|name| !LEFT_OUT.contains(&name.as_str()))
        .collect();
    Ok(files)
}
