//! The minimum Rust version that the workspace states holds.
//!
//! Three parts: clippy's `incompatible_msrv` lint refuses newer library items (the clippy step); here, no dependency
//! that a user builds states a newer Rust; and where rustup has the exact toolchain, the workspace is checked with it.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    command::{probe, program, run},
    workspace::{list, metadata, target, text},
};

pub(crate) fn check() -> Result<String> {
    let metadata = metadata()?;
    let stated = stated(&metadata)?;
    let built = built(&metadata);
    let newer: Vec<String> = list(&metadata, "packages")
        .filter(|package| built.contains(text(package, "id")))
        .filter(|package| version(text(package, "rust_version")) > version(&stated))
        .map(|package| {
            let [name, release, rust] = ["name", "version", "rust_version"].map(|key| text(package, key));
            format!("{name} {release} wants Rust {rust}")
        })
        .collect();
    if !newer.is_empty() {
        bail!(
            "the workspace states Rust {stated}, but {}; choose an older release or raise `rust-version`",
            newer.join(", ")
        );
    }
    let compiled = compile_with(&stated)?;
    Ok(format!("Rust {stated}, {} packages; {compiled}", built.len()))
}

/// The one `rust-version` of all members.
fn stated(metadata: &Value) -> Result<String> {
    let members: HashSet<&str> = list(metadata, "workspace_members")
        .filter_map(Value::as_str)
        .collect();
    let versions: HashSet<&str> = list(metadata, "packages")
        .filter(|package| members.contains(text(package, "id")))
        .map(|package| text(package, "rust_version"))
        .collect();
    let stated = versions.iter().next().context("the workspace has no members")?;
    ensure!(
        versions.len() == 1 && !stated.is_empty(),
        "the members of the workspace state different Rust versions: {versions:?}"
    );
    Ok((*stated).to_owned())
}

/// The packages that somebody who builds the members builds too: reached without a development dependency.
fn built(metadata: &Value) -> HashSet<&str> {
    let nodes: HashMap<&str, &Value> = list(&metadata["resolve"], "nodes")
        .map(|node| (text(node, "id"), node))
        .collect();
    let mut queue: Vec<&str> = list(metadata, "workspace_members")
        .filter_map(Value::as_str)
        .collect();
    let mut built = HashSet::new();
    while let Some(id) = queue.pop() {
        if built.insert(id) {
            let wanted = list(nodes[id], "deps")
                .filter(|dependency| list(dependency, "dep_kinds").any(|kind| kind["kind"] != "dev"));
            queue.extend(wanted.map(|dependency| text(dependency, "pkg")));
        }
    }
    built
}

/// `1.88` and `1.88.0` alike as numbers. A package that states nothing is taken to want nothing.
fn version(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.split('.').filter_map(|part| part.parse().ok()).collect();
    numbers.resize(3, 0);
    numbers
}

/// Checks the workspace with the stated toolchain if rustup has it. Installing one is left to the user: it goes outside
/// the checkout.
fn compile_with(stated: &str) -> Result<String> {
    let toolchains = probe(program("rustup").args(["toolchain", "list"])).unwrap_or_default();
    let exact = |name: &&str| {
        *name == stated || name.starts_with(&format!("{stated}.")) || name.starts_with(&format!("{stated}-"))
    };
    let Some(toolchain) = toolchains
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(exact)
    else {
        return Ok(format!(
            "not compiled with it: `rustup toolchain install {stated}` adds that"
        ));
    };
    run(program("rustup")
        .args(["run", toolchain, "cargo", "check", "--workspace"])
        .arg("--target-dir")
        .arg(target("msrv")))?;
    Ok(format!("compiled with {toolchain}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_compare_as_numbers_and_a_missing_patch_is_zero() {
        assert_eq!(version("1.88"), version("1.88.0"));
        assert!(version("1.9") < version("1.88"));
        assert!(version("") < version("1.0"));
    }

    #[test]
    fn what_only_development_needs_is_not_built_by_a_user() {
        let metadata = json!({
            "workspace_members": ["engine"],
            "resolve": { "nodes": [
                { "id": "engine", "deps": [
                    { "pkg": "numbers", "dep_kinds": [{ "kind": "dev" }, { "kind": null }] },
                    { "pkg": "bench", "dep_kinds": [{ "kind": "dev" }] },
                ] },
                { "id": "numbers", "deps": [{ "pkg": "probe", "dep_kinds": [{ "kind": "build" }] }] },
                { "id": "bench", "deps": [] },
                { "id": "probe", "deps": [] },
            ] },
        });
        assert_eq!(built(&metadata), HashSet::from(["engine", "numbers", "probe"]));
    }
}
