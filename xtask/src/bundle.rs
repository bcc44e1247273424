//! `cargo xtask gpu-bundle`: one folder that checks and measures the project on a machine that has a GPU and no Rust.
//!
//! It holds the `pinlane` command as a release build, the test programs that can run on a GPU, the Python package with its
//! tests, the script `gpu-check` that runs them all, the torch side by side, and a manifest. The manifest is plain lines, so
//! that a shell script can read it: `commit HASH`, `rustc VERSION`, for every test program `test STEP PATH ARGUMENTS`, and
//! `wheel PATH`, or `no-wheel REASON` where the machine that made the bundle could not build it.

#[cfg(test)]
mod gpu_check;
mod peers;
mod programs;
mod python;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{capture, program},
    workspace::{self, metadata},
};
use programs::{Test, build_command, build_tests, gpu_tests};
use python::Wheel;

/// What the folder may weigh, so that it travels easily.
const LIMIT: u64 = 60 << 20;

/// What of `bench/` goes in as it is.
const SCRIPTS: [&str; 10] = [
    "gpu-check",
    "torch_side.py",
    "torch_side_by_side.py",
    "python_figures.py",
    "python_grid.py",
    "training_steps.py",
    "checkpoint_side_by_side.py",
    "checkpoint_ways.py",
    "checkpoint_files.py",
    "checkpoint_figures.py",
];

/// Also the sign by which a folder is known as a bundle.
const MANIFEST: &str = "manifest";

/// Tests of the engine share one GPU: a few side by side keep it busy, and more would only fill its memory.
const ENGINE_ARGUMENTS: &str = " --test-threads=4";

/// Makes the bundle in the folder that `--out` names, or in `target/gpu-bundle`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let folder = match arguments {
        [] => workspace::target("gpu-bundle"),
        [flag, folder] if flag == "--out" => workspace::root().join(folder),
        _ => bail!(
            "`gpu-bundle` takes `--out DIR` or nothing, and was given `{}`",
            arguments.join(" ")
        ),
    };
    let metadata = metadata()?;
    let tests = gpu_tests(&metadata)?;
    let commit = commit()?;
    let mut manifest = manifest(&commit, &rustc()?, &tests);

    let command = build_command(&metadata)?;
    let built = build_tests(&metadata, &tests)?;
    clear(&folder)?;
    let mut files = Vec::new();
    let mut place = |name: &str| {
        files.push(folder.join(name));
        folder.join(name)
    };
    strip(&command, &place("pinlane"))?;
    for (test, program) in built {
        strip(&program, &place(&test.path()))?;
    }
    for script in SCRIPTS {
        fs::copy(workspace::root().join("bench").join(script), place(script))
            .with_context(|| format!("copying {script} to {}", folder.display()))?;
    }
    let wheel = Wheel::build(&folder)?;
    manifest += &wheel.line(&folder);
    match wheel {
        Wheel::Built(path) => files.push(path),
        Wheel::Missing(reason) => println!("no Python package: {reason}"),
    }
    files.extend(python::copy_tests(&folder)?);
    let carried = peers::copy(&workspace::target(peers::FOLDER), &folder.join(peers::FOLDER))?;
    if carried.is_empty() {
        println!("no other loaders of checkpoints: bench/README.md tells how to carry them");
    }
    files.extend(carried);
    fs::write(folder.join(MANIFEST), manifest).with_context(|| format!("writing to {}", folder.display()))?;

    let bytes = within(LIMIT, sizes(files)?)?;
    println!(
        "{}: {} test programs and the command of commit {commit}, {:.1} MiB",
        folder.display(),
        tests.len(),
        mebibytes(bytes),
    );
    println!("copy it to a Linux machine with an NVIDIA GPU and run ./gpu-check there");
    Ok(())
}

fn manifest(commit: &str, rustc: &str, tests: &[Test]) -> String {
    let mut text = format!("commit {commit}\nrustc {rustc}\n");
    for test in tests {
        let arguments = match test.step {
            "engine-tests" => ENGINE_ARGUMENTS,
            _ => "",
        };
        text += &format!("test {} {}{arguments}\n", test.step, test.path());
    }
    text
}

/// The commit that is built, marked where files differ from it.
fn commit() -> Result<String> {
    let described = capture(program("git").args([
        "describe",
        "--always",
        "--abbrev=40",
        "--exclude=*",
        "--dirty=-modified",
    ]));
    Ok(described
        .context("a bundle names the commit it is built from")?
        .trim()
        .to_owned())
}

fn rustc() -> Result<String> {
    let version = capture(program("rustc").arg("--version"))?;
    let version = version.trim();
    Ok(version.strip_prefix("rustc ").unwrap_or(version).to_owned())
}

/// Makes the folder, or clears away the programs and the package of the bundle that is there; results beside them stay.
fn clear(folder: &Path) -> Result<()> {
    let doing = || format!("making the folder {}", folder.display());
    let tests = folder.join("tests");
    if folder.join(MANIFEST).exists() {
        for old in [&tests, &folder.join(python::FOLDER), &folder.join(peers::FOLDER)] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(doing)?;
            }
        }
    } else if folder.exists() && fs::read_dir(folder).with_context(doing)?.next().is_some() {
        bail!(
            "{} holds something that is no bundle: name another folder, or empty it",
            folder.display()
        );
    }
    fs::create_dir_all(&tests).with_context(doing)
}

/// Copies a program without its debug information; the names of its functions stay for backtraces.
fn strip(from: &Path, to: &Path) -> Result<()> {
    capture(
        program("strip")
            .args([OsStr::new("--strip-debug"), OsStr::new("-o")])
            .args([to, from]),
    )
    .context("stripping needs `strip`, of the binutils that also hold the linker")?;
    Ok(())
}

/// Each file with its size in bytes.
fn sizes(files: Vec<PathBuf>) -> Result<Vec<(PathBuf, u64)>> {
    let size = |file: PathBuf| {
        let metadata = fs::metadata(&file).with_context(|| format!("measuring {}", file.display()))?;
        Ok((file, metadata.len()))
    };
    files.into_iter().map(size).collect()
}

/// The sum of the sizes; an error that names the largest files where that is over `limit` bytes.
fn within(limit: u64, mut files: Vec<(PathBuf, u64)>) -> Result<u64> {
    let sum = files.iter().map(|(_, bytes)| bytes).sum();
    if sum <= limit {
        return Ok(sum);
    }
    files.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let largest: Vec<String> = files
        .iter()
        .take(5)
        .map(|(path, bytes)| format!("{} ({:.1} MiB)", path.display(), mebibytes(*bytes)))
        .collect();
    bail!(
        "the bundle has {:.1} MiB, and may have {:.0}; the largest files are {}",
        mebibytes(sum),
        mebibytes(limit),
        largest.join(", ")
    )
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_within_the_limit_is_weighed() {
        let files = vec![("a".into(), 10), ("b".into(), 20)];
        assert_eq!(within(30, files).unwrap(), 30);
    }

    #[test]
    fn a_bundle_over_the_limit_is_refused_and_the_largest_files_are_named_first() {
        let files = (1..=7)
            .map(|size| (format!("f{size}").into(), size << 20))
            .collect();
        let error = within(20 << 20, files).unwrap_err().to_string();
        assert!(error.contains("has 28.0 MiB, and may have 20"), "{error}");
        assert!(error.contains("f7 (7.0 MiB), f6 (6.0 MiB)"), "{error}");
        assert!(!error.contains("f2"), "{error}");
    }

    #[test]
    fn the_manifest_is_lines_of_words_for_a_shell() {
        let metadata = metadata().unwrap();
        let text = manifest("abc", "1.95.0", &gpu_tests(&metadata).unwrap());
        assert!(text.starts_with("commit abc\nrustc 1.95.0\ntest "), "{text}");
        assert!(
            text.contains("\ntest conformance tests/pinlane-cuda.conformance\n"),
            "{text}"
        );
        assert!(
            text.contains("\ntest engine-tests tests/pinlane.transfer --test-threads=4\n"),
            "{text}"
        );
    }

    #[test]
    fn a_new_bundle_replaces_the_tests_of_the_old_one_and_leaves_its_results() {
        let folder = tempfile::tempdir().unwrap();
        let [test, wheel, result] =
            ["tests/old", "python/old.whl", "results/h200.json"].map(|name| folder.path().join(name));
        for file in [&test, &wheel, &result, &folder.path().join(MANIFEST)] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        clear(folder.path()).unwrap();
        assert!(!test.exists() && !wheel.exists() && result.exists());
    }

    #[test]
    fn a_folder_that_is_no_bundle_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let letter = folder.path().join("letter");
        fs::write(&letter, "dear").unwrap();
        let error = clear(folder.path()).unwrap_err();
        assert!(error.to_string().contains("no bundle"), "{error}");
        assert!(letter.exists());
    }
}
