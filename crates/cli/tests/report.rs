//! `--report`: the pages of a real run, and of a result that was kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn pinlane(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pinlane"))
        .args(arguments)
        .env("PINLANE_PROFILE", "assumed")
        .output()
        .expect("the command is built")
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/results/h200.json")
}

/// The document that a page carries.
fn document(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"document\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_run_of_the_guide_is_a_page_with_its_document_and_every_kind_of_picture() {
    let folder = tempfile::tempdir().unwrap();
    let (html, json) = (
        folder.path().join("report.html"),
        folder.path().join("report.json"),
    );
    let mut arguments = vec!["guide", "--quick", "--device", "sim"];
    for experiment in ["one-sync", "overlap", "disk"] {
        arguments.extend(["--only", experiment]);
    }
    arguments.extend([
        "--report",
        html.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
    ]);
    let output = pinlane(&arguments);
    assert!(output.status.success(), "{output:?}");
    let page = fs::read_to_string(&html).unwrap();
    for kind in ["class=\"bars\"", "class=\"timeline\"", "class=\"area\""] {
        assert!(page.contains(kind), "{kind} is missing");
    }
    assert!(page.contains("simulated device: shows behaviour, not hardware speed"));
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    let written: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(document(&page), written);
}

#[test]
fn a_run_of_the_benchmark_is_a_page_with_curves_and_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("report.html");
    let output = pinlane(&[
        "bench",
        "--quick",
        "--device",
        "sim",
        "--only",
        "grid",
        "--sizes",
        "4,4KiB,64KiB",
        "--counts",
        "1",
        "--report",
        html.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{output:?}");
    let page = fs::read_to_string(&html).unwrap();
    for kind in ["class=\"curves\"", "class=\"scatter\""] {
        assert!(page.contains(kind), "{kind} is missing");
    }
    let document = document(&page);
    let cells = document["cells"].as_array().unwrap();
    assert!(cells.iter().all(|cell| cell["predicted"].as_f64().unwrap() > 0.0));
    assert!(
        document["figures"]
            .as_array()
            .unwrap()
            .iter()
            .any(|figure| figure["id"] == "predict-error")
    );
}

#[test]
fn a_result_that_was_kept_is_shown_without_its_device() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("report.html");
    let output = pinlane(&[
        "bench",
        "--from",
        kept().to_str().unwrap(),
        "--report",
        html.to_str().unwrap(),
    ]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("NVIDIA H200") && !page.contains("simulated device"));
}

#[test]
fn a_page_that_can_not_be_made_stops_the_command_before_anything_runs() {
    let kept = kept();
    for arguments in [
        vec!["guide", "--quick", "--report", "/nowhere/report.html"],
        vec!["bench", "--from", "/nowhere/result.json", "--report", "/dev/null"],
        vec!["bench", "--from", kept.to_str().unwrap()],
    ] {
        let output = pinlane(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
