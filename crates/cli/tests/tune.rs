//! `pinlane tune` as a user meets it, on a simulated device: what it prints, and that it stores nothing.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn tune(cache: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinlane"));
    command
        .arg("tune")
        .args(arguments)
        .env("PINLANE_CACHE_DIR", cache)
        .stdin(Stdio::null());
    command.output().expect("the command starts")
}

#[test]
fn what_a_simulated_device_gives_is_shown_and_never_stored() {
    let cache = tempfile::tempdir().unwrap();
    let output = tune(cache.path(), &["--device", "sim:0"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        output.stderr.is_empty(),
        "no progress where nobody watches: {output:?}"
    );
    let shown = String::from_utf8(output.stdout).unwrap();
    for part in [
        "assumed",
        "found",
        "not measured, as assumed",
        "lanes",
        "GB/s",
        "simulated device",
        "nothing is stored",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn the_report_for_programs_holds_the_profile_and_what_it_was_chosen_by() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.json");
    let output = tune(
        folder.path(),
        &["--device", "sim:0", "--dry-run", "--json", path.to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(report["simulated"], true);
    assert_eq!(report["schema"], 1);
    assert!(report["cores"].as_u64().unwrap() > 0);
    for rate in ["link_bytes_per_second", "memcpy_bytes_per_second"] {
        assert!(report["profile"][rate].as_f64().unwrap() > 0.0, "{report}");
    }
    let trials = report["figures"]["trials"].as_array().unwrap();
    assert!(
        trials
            .iter()
            .any(|trial| trial["lanes"] == report["profile"]["lanes"])
    );
}

#[test]
fn a_report_that_can_not_be_written_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let output = tune(folder.path(), &["--device", "sim:0", "--json", path]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains(path));
}

#[test]
fn there_is_nothing_to_measure_on_the_host_or_on_a_device_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    for device in ["host", "warp:0"] {
        let output = tune(folder.path(), &["--device", device]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!output.stderr.is_empty(), "{output:?}");
    }
}
