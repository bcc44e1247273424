//! Fuzzing what is read from strangers: the targets in `fuzz/`, with libFuzzer, on the stable toolchain.
//!
//! libFuzzer learns which inputs reach new code from counters that LLVM puts into every crate. That pass and its options are
//! flags of the stable compiler (`cargo fuzz` passes the same), so neither a nightly toolchain nor `cargo fuzz` is needed; a
//! C++ compiler is, for libFuzzer itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{cargo, program, run as run_command},
    workspace::{host, root, target},
};

/// Counters for every edge, and the operands of comparisons.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Longer inputs find nothing that shorter ones do not.
const LONGEST_INPUT: &str = "-max_len=4096";

/// One program of `fuzz/`.
struct Target {
    name: &'static str,
    /// Inputs to begin with, beside those in `fuzz/corpus`.
    seeds: Option<&'static str>,
}

const TARGETS: [Target; 2] = [
    Target {
        name: "header",
        seeds: Some("crates/pinlane/tests/checkpoint/corpus"),
    },
    Target {
        name: "index",
        seeds: None,
    },
];

/// When a target has been tried enough.
enum Limit {
    Seconds(u64),
    Runs(u64),
}

/// Runs each target until its limit, or until it fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (mut limit, mut keep) = (Limit::Seconds(60), false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments
                .next()
                .with_context(|| format!("{argument} takes a number"))?;
            text.parse()
                .with_context(|| format!("{argument} takes a number, and was given `{text}`"))
        };
        match argument.as_str() {
            "--seconds" => limit = Limit::Seconds(number()?),
            "--runs" => limit = Limit::Runs(number()?),
            "--keep" => keep = true,
            _ => bail!("this chore takes --seconds N or --runs N, and --keep, and was given `{argument}`"),
        }
    }
    // Naming the machine keeps the flags out of build scripts.
    let host = host()?;
    let folder = target("fuzz");
    run_command(
        cargo()
            .env("RUSTFLAGS", FLAGS.join(" "))
            .args([
                "build",
                "--release",
                "--locked",
                "--manifest-path",
                "fuzz/Cargo.toml",
            ])
            .args(["--target", &host, "--target-dir"])
            .arg(&folder),
    )?;
    let programs = folder.join(host).join("release");
    for target in &TARGETS {
        fuzz(target, &programs, &limit, keep)?;
    }
    Ok(())
}

fn fuzz(fuzzed: &Target, programs: &Path, limit: &Limit, keep: bool) -> Result<()> {
    let name = fuzzed.name;
    let [found, failed] = ["found", "failed"].map(|kind| target("fuzz").join(kind).join(name));
    let kept = root().join("fuzz/corpus").join(name);
    for folder in [&found, &failed, &kept] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let limit = match limit {
        Limit::Seconds(seconds) => format!("-max_total_time={seconds}"),
        Limit::Runs(runs) => format!("-runs={runs}"),
    };
    let seeds: Vec<PathBuf> = fuzzed.seeds.iter().map(|seeds| root().join(seeds)).collect();
    run_command(
        program(programs.join(name))
            .args([&limit, LONGEST_INPUT, "-print_final_stats=1", "-verbosity=0"])
            .arg(format!(
                "-dict={}",
                root().join("fuzz").join(format!("{name}.dict")).display()
            ))
            .arg(format!("-artifact_prefix={}/", failed.display()))
            .args([&found, &kept])
            .args(&seeds),
    )
    .with_context(|| format!("`{name}` failed; the input is in {}", failed.display()))?;
    if keep {
        // The fewest inputs that reach what all of them do.
        run_command(
            program(programs.join(name))
                .args(["-merge=1", LONGEST_INPUT, "-verbosity=0"])
                .args([&kept, &found]),
        )?;
    }
    Ok(())
}
