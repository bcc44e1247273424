//! The programs of the bundle: which tests can run on a GPU, and what cargo builds of them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    command::{capture, cargo},
    workspace::{list, text},
};

const DRIVER: &str = "pinlane-cuda";
const ENGINE: &str = "pinlane";

/// A test target, and the step of `gpu-check` that runs it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Test {
    pub(crate) step: &'static str,
    package: &'static str,
    name: String,
}

impl Test {
    /// Where the program lies in the bundle: packages may give their tests the same name.
    pub(crate) fn path(&self) -> String {
        format!("tests/{}.{}", self.package, self.name)
    }
}

/// The tests that can run on a GPU: all of the CUDA driver's, the engine's `cuda`, and those that the engine's
/// `Cargo.toml` lists under `[package.metadata.gpu-bundle]` because they take their device from `PINLANE_TEST_DEVICE`.
pub(crate) fn gpu_tests(metadata: &Value) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for name in test_targets(metadata, DRIVER)? {
        let step = match name.as_str() {
            "conformance" => "conformance",
            _ => "cuda-tests",
        };
        tests.push(Test {
            step,
            package: DRIVER,
            name,
        });
    }
    ensure!(
        tests.iter().any(|test| test.step == "conformance"),
        "`{DRIVER}` has no test `conformance`"
    );

    let there = test_targets(metadata, ENGINE)?;
    let gpu_bundle = &package(metadata, ENGINE)?["metadata"]["gpu-bundle"];
    let listed: Vec<&str> = list(gpu_bundle, "tests").filter_map(Value::as_str).collect();
    ensure!(
        !listed.is_empty(),
        "`{ENGINE}` lists no tests under `[package.metadata.gpu-bundle]`"
    );
    for name in &listed {
        ensure!(
            there.iter().any(|known| known == name),
            "`{ENGINE}` lists the test `{name}` under `[package.metadata.gpu-bundle]`, and its tests are {there:?}"
        );
    }
    let taken = |name: &String| name == "cuda" || listed.contains(&name.as_str());
    tests.extend(there.into_iter().filter(taken).map(|name| Test {
        step: "engine-tests",
        package: ENGINE,
        name,
    }));
    Ok(tests)
}

/// Builds the tests; gives each with the program that it became.
pub(crate) fn build_tests<'a>(metadata: &Value, tests: &'a [Test]) -> Result<Vec<(&'a Test, PathBuf)>> {
    let mut arguments = vec!["test", "--no-run"];
    for test in tests {
        // What comes twice changes nothing.
        arguments.extend(["--package", test.package, "--test", &test.name]);
    }
    let messages = build(&arguments)?;
    let built = |test: &'a Test| Ok((test, program(&messages, metadata, test.package, &test.name)?));
    tests.iter().map(built).collect()
}

/// Builds the command as its users run it; gives the program.
pub(crate) fn build_command(metadata: &Value) -> Result<PathBuf> {
    let messages = build(&["build", "--release", "--package", "pinlane-cli"])?;
    program(&messages, metadata, "pinlane-cli", "pinlane")
}

/// Runs cargo and gives what it reports, one JSON object a line.
fn build(arguments: &[&str]) -> Result<String> {
    println!("$ cargo {}", arguments.join(" "));
    capture(
        cargo()
            .args(arguments)
            .args(["--message-format", "json-render-diagnostics"]),
    )
}

/// The program that cargo's messages report for a target of a package.
fn program(messages: &str, metadata: &Value, package_name: &str, target: &str) -> Result<PathBuf> {
    let package = package(metadata, package_name)?;
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("reading the messages of cargo")?;
        if message["manifest_path"] == package["manifest_path"]
            && message["target"]["name"] == target
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo reported no program `{target}` of `{package_name}`")
}

/// The names of a package's integration tests.
fn test_targets(metadata: &Value, name: &str) -> Result<Vec<String>> {
    let names = list(package(metadata, name)?, "targets")
        .filter(|target| list(target, "kind").any(|kind| kind == "test"))
        .map(|target| text(target, "name").to_owned());
    Ok(names.collect())
}

fn package<'a>(metadata: &'a Value, name: &str) -> Result<&'a Value> {
    list(metadata, "packages")
        .find(|package| text(package, "name") == name)
        .with_context(|| format!("the workspace has no package `{name}`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(listed: &Value) -> Value {
        let target = |name: &str, kind: &str| json!({ "name": name, "kind": [kind] });
        json!({ "packages": [
            {
                "name": "pinlane-cuda",
                "manifest_path": "/cuda/Cargo.toml",
                "targets": [
                    target("pinlane_cuda", "lib"),
                    target("conformance", "test"),
                    target("cuda", "test"),
                ],
            },
            {
                "name": "pinlane",
                "manifest_path": "/engine/Cargo.toml",
                "targets": [target("transfer", "test"), target("budget", "test"), target("cuda", "test"), target("engine", "bench")],
                "metadata": { "gpu-bundle": { "tests": listed } },
            },
        ] })
    }

    #[test]
    fn all_tests_of_the_driver_go_in_and_the_engine_s_for_cuda_and_those_it_lists() {
        let tests = gpu_tests(&metadata(&json!(["transfer"]))).unwrap();
        let found: Vec<_> = tests.iter().map(|test| (test.step, test.path())).collect();
        let expected = [
            ("conformance", "tests/pinlane-cuda.conformance"),
            ("cuda-tests", "tests/pinlane-cuda.cuda"),
            ("engine-tests", "tests/pinlane.transfer"),
            ("engine-tests", "tests/pinlane.cuda"),
        ];
        assert_eq!(found, expected.map(|(step, path)| (step, path.to_owned())));
    }

    #[test]
    fn a_listed_test_that_is_gone_is_an_error_that_names_it() {
        let error = gpu_tests(&metadata(&json!(["transfers"]))).unwrap_err();
        assert!(error.to_string().contains("`transfers`"), "{error}");
    }

    #[test]
    fn an_engine_that_lists_no_tests_is_an_error() {
        let error = gpu_tests(&metadata(&json!([]))).unwrap_err();
        assert!(error.to_string().contains("lists no tests"), "{error}");
    }

    #[test]
    fn a_program_is_found_by_its_package_and_name() {
        let messages = [
            json!({ "reason": "compiler-artifact", "manifest_path": "/cuda/Cargo.toml",
                    "target": { "name": "cuda" }, "executable": "/built/cuda-1" }),
            json!({ "reason": "compiler-artifact", "manifest_path": "/engine/Cargo.toml",
                    "target": { "name": "cuda" }, "executable": "/built/cuda-2" }),
            json!({ "reason": "build-finished", "success": true }),
        ];
        let messages = messages.map(|message| message.to_string()).join("\n");
        let metadata = metadata(&json!([]));
        let found = program(&messages, &metadata, "pinlane", "cuda").unwrap();
        assert_eq!(found, PathBuf::from("/built/cuda-2"));
        let error = program(&messages, &metadata, "pinlane", "transfer").unwrap_err();
        assert!(error.to_string().contains("`transfer` of `pinlane`"), "{error}");
    }
}
