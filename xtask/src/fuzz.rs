//! Fuzzing what is read from strangers: the targets in `fuzz/`, with libFuzzer, on the stable toolchain.
//!
//! libFuzzer learns which inputs reach new code from counters that LLVM puts into every crate. That pass and its options are
//! flags of the stable compiler (`cargo fuzz` passes the same), so neither a nightly toolchain nor `cargo fuzz` is needed; a
//! C++ compiler is, for libFuzzer itself.
//!
//! What earlier runs found worth keeping is in `fuzz/corpus`, one file for each target and one input on each line, in
//! hexadecimal. A run begins with those; with `--keep` it puts the fewest inputs there that reach all that was reached.

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
            .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml"])
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
    let [found, failed, kept] = ["found", "failed", "kept"].map(|kind| target("fuzz").join(kind).join(name));
    for folder in [&found, &failed, &kept] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let corpus = root().join("fuzz/corpus").join(format!("{name}.hex"));
    unpack(&corpus, &kept).with_context(|| format!("unpacking {}", corpus.display()))?;
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
        pack(&kept, &corpus).with_context(|| format!("packing {}", corpus.display()))?;
    }
    Ok(())
}

/// Writes each line of a corpus to a file of its own.
fn unpack(corpus: &Path, folder: &Path) -> Result<()> {
    if !corpus.exists() {
        return Ok(());
    }
    for (number, line) in fs::read_to_string(corpus)?.lines().enumerate() {
        let digits = line.as_bytes().chunks(2);
        let bytes = digits.map(|digits| Ok(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?));
        let bytes = bytes
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("line {}", number + 1))?;
        fs::write(folder.join(format!("{number:05}")), bytes)?;
    }
    Ok(())
}

/// Writes each file of a folder to a line of a corpus.
fn pack(folder: &Path, corpus: &Path) -> Result<()> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        let bytes = fs::read(entry?.path())?;
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        lines.push(digits.collect::<String>() + "\n");
    }
    lines.sort();
    if let Some(parent) = corpus.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::write(corpus, lines.concat())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_is_unpacked_as_it_was_packed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("in")).unwrap();
        fs::create_dir(at("out")).unwrap();
        for (name, bytes) in [("a", &b"\x00\xff{"[..]), ("b", b""), ("c", b"{\"a\":1}\n")] {
            fs::write(at("in").join(name), bytes).unwrap();
        }
        pack(&at("in"), &at("corpus.hex")).unwrap();
        unpack(&at("corpus.hex"), &at("out")).unwrap();
        pack(&at("out"), &at("again.hex")).unwrap();
        let text = fs::read_to_string(at("corpus.hex")).unwrap();
        assert_eq!(text, "\n00ff7b\n7b2261223a317d0a\n");
        assert_eq!(fs::read_to_string(at("again.hex")).unwrap(), text);
        fs::write(at("corpus.hex"), "0g\n").unwrap();
        assert!(unpack(&at("corpus.hex"), &at("out")).is_err());
    }
}
