//! The pages of `--report`, looked at in a headless Chromium: light, dark and as narrow as a phone.
//!
//! Chromium is the system's own, installed by its packages where this may be done; Playwright drives it, from a Python environment
//! below the build folder. Pictures of the pages stay in `target/report`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    command::{cargo, program, run},
    step::Skipped,
    venv, workspace,
};

/// What the browser may be called.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
const REQUIREMENTS: &str = "crates/report/browser/requirements.txt";
const CHECK: &str = "crates/report/browser/check.py";
/// A result of hardware.
const KEPT: &str = "bench/results/h200.json";

/// Makes the pages of a guide and of a benchmark on a simulated device and of a kept result of hardware, and looks at them.
pub(crate) fn check() -> Result<String> {
    let chromium = browser()?;
    let python = venv::interpreter()?;
    run(program(&python)
        .args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--requirement", REQUIREMENTS]))
    .context("installing Playwright")?;
    let folder = workspace::target("report");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let in_folder = |name: &str| folder.join(name);
    run(pinlane(&["guide", "--quick", "--device", "sim", "--json"])
        .arg(in_folder("guide.json"))
        .arg("--report")
        .arg(in_folder("guide.html")))?;
    run(pinlane(&[
        "bench", "--quick", "--device", "sim", "--only", "grid", "--time", "20", "--json",
    ])
    .arg(in_folder("bench.json"))
    .arg("--report")
    .arg(in_folder("bench.html")))?;
    fs::copy(workspace::root().join(KEPT), in_folder("kept.json"))
        .with_context(|| format!("copying {KEPT}"))?;
    run(pinlane(&["bench", "--from", KEPT, "--report"]).arg(in_folder("kept.html")))?;
    run(program(&python).arg(CHECK).arg(&chromium).arg(&folder))?;
    Ok(format!("pictures of the pages are in {}", folder.display()))
}

fn pinlane(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command
        .args(["run", "--release", "--quiet", "--"])
        .args(arguments);
    command
}

/// The system's Chromium, installed where it is missing and that may be done.
fn browser() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    let skipped = |why: String| {
        Skipped(format!(
            "{why}; install Chromium (on Debian `apt-get install chromium`) to have the pages looked at"
        ))
    };
    let apt = found("apt-get")
        .ok_or_else(|| skipped("there is no Chromium, and no apt-get to install it".to_owned()))?;
    if !is_root() {
        return Err(skipped("there is no Chromium, and only root may install it".to_owned()).into());
    }
    let install = || -> Result<()> {
        run(program(&apt).args(["update", "-qq"]))?;
        run(program(&apt)
            .args([
                "install",
                "-y",
                "-qq",
                "--no-install-recommends",
                "chromium",
                "fonts-dejavu-core",
            ])
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // A machine without its packages' network can't have it: no fault of the project's.
    install().map_err(|error| {
        skipped(format!(
            "there is no Chromium, and its package could not be installed ({error:#})"
        ))
    })?;
    let chromium = installed();
    ensure!(
        chromium.is_some(),
        "the package of Chromium was installed, and none is in the path"
    );
    chromium.context("looked for a moment ago")
}

fn installed() -> Option<PathBuf> {
    BROWSERS.iter().find_map(|name| found(name))
}

/// A program in the path.
fn found(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|place| is_program(place))
}

fn is_program(place: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(place).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether this process may install packages: what belongs to it is root's.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path_and_other_files_are_not() {
        assert!(found("sh").is_some_and(|shell| is_program(&shell)));
        assert!(found("no-such-browser").is_none());
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        fs::write(&text, "no program").unwrap();
        assert!(!is_program(&text));
    }
}
