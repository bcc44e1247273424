//! `pinlane guide` as a user meets it: output, files and exit codes.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::Value;

const IDS: [&str; 13] = [
    "pinned-faster",
    "pin-then-copy",
    "async-many",
    "one-sync",
    "synergies",
    "d2h-garbage",
    "h2d-mutation",
    "overlap",
    "pin-thread",
    "tree",
    "shuttle",
    "disk",
    "pinned-cost",
];

fn guide() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinlane"));
    command.arg("guide").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    guide().args(arguments).output().expect("the command starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the report was written")).expect("the report is JSON")
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Every way of every experiment that can land bytes landed the right ones.
fn assert_sound(report: &Value) {
    for experiment in report["experiments"].as_array().unwrap() {
        assert!(
            experiment["error"].is_null(),
            "{}: {}",
            experiment["id"],
            experiment["error"]
        );
        let ways = experiment["ways"].as_array().unwrap();
        for way in ways {
            assert_ne!(way["verified"], false, "{}: {way}", experiment["id"]);
        }
        for owner in ["guide", "pinlane"] {
            assert!(
                ways.iter().any(|way| way["owner"] == owner),
                "{}: no way of {owner}",
                experiment["id"]
            );
        }
    }
}

#[test]
fn the_quick_guide_runs_every_experiment_and_judges_every_claim() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let output = run(&["--quick", "--json", path_text(&file)]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let report = json(&file);
    assert_sound(&report);
    assert_eq!(report["quick"], true);
    assert_eq!(report["device"]["simulated"], true);
    let ids: Vec<_> = report["experiments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|experiment| experiment["id"].clone())
        .collect();
    assert_eq!(ids, IDS);
    for claim in report["claims"].as_array().unwrap() {
        let verdict = claim["verdict"].as_str().unwrap();
        assert!(
            ["holds", "does not hold", "depends"].contains(&verdict),
            "{claim}"
        );
        assert!(!claim["reason"].as_str().unwrap().is_empty(), "{claim}");
    }
    let shown = text(&output.stdout);
    assert!(shown.contains("simulated device: shows behaviour, not hardware speed"));
    assert!(shown.contains("the claims on this machine"));
    assert!(shown.contains("runs per measurement, 1 thread"));
}

#[test]
fn garbage_is_read_without_a_synchronisation_and_never_through_pinlane() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let output = run(&[
        "--quick",
        "--only",
        "d2h-garbage",
        "--only",
        "h2d-mutation",
        "--json",
        path_text(&file),
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let report = json(&file);
    let counts = |experiment: usize| -> Vec<u64> {
        let ways = report["experiments"][experiment]["ways"].as_array().unwrap();
        ways.iter().map(|way| way["count"].as_u64().unwrap()).collect()
    };
    let [early, synchronised, pinlane] = counts(0)[..] else {
        panic!("three ways")
    };
    assert!(early > 0);
    assert_eq!((synchronised, pinlane), (0, 0));
    let [pinned, pageable, refused, corrupt] = counts(1)[..] else {
        panic!("four rows")
    };
    assert!(pinned > 0);
    // A write is let through once the copy is done with its source, so not all need be refused.
    assert!(refused > 0);
    assert_eq!((pageable, corrupt), (0, 0));
}

#[test]
fn only_the_named_experiments_run_in_the_guide_s_order() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let output = run(&[
        "--quick",
        "--only",
        "pinned-cost",
        "--only",
        "overlap",
        "--device",
        "sim:1",
        "--json",
        path_text(&file),
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let report = json(&file);
    let ids: Vec<_> = report["claims"]
        .as_array()
        .unwrap()
        .iter()
        .map(|claim| claim["id"].clone())
        .collect();
    assert_eq!(ids, ["overlap", "pinned-cost"]);
    assert_eq!(report["device"]["id"], "sim:1");
}

#[test]
fn the_list_names_every_experiment_and_runs_none() {
    let output = run(&["--list"]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = text(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(lines, IDS);
}

#[test]
fn the_tensors_of_a_checkpoint_take_the_place_of_made_up_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (checkpoint, file) = (
        directory.path().join("small.safetensors"),
        directory.path().join("report.json"),
    );
    let weights: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let views = HashMap::from([
        (
            "embedding",
            TensorView::new(Dtype::F32, vec![200, 1000], &weights).unwrap(),
        ),
        (
            "bias",
            TensorView::new(Dtype::BF16, vec![77], &weights[..154]).unwrap(),
        ),
        (
            "mask",
            TensorView::new(Dtype::BOOL, vec![3, 5], &[1; 15]).unwrap(),
        ),
        ("empty", TensorView::new(Dtype::I64, vec![0], &[]).unwrap()),
    ]);
    serialize_to_file(views, None, &checkpoint).unwrap();
    let output = run(&[
        "--quick",
        "--tensors",
        path_text(&checkpoint),
        "--json",
        path_text(&file),
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let report = json(&file);
    assert_sound(&report);
    assert_eq!(report["workload"], "4 tensors of small.safetensors");
}

#[test]
fn what_cannot_run_as_asked_exits_with_2_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let no_tensors = directory.path().join("no.safetensors");
    fs::write(&no_tensors, "not a checkpoint").unwrap();
    let missing_folder = directory.path().join("missing/report.json");
    for (arguments, expected) in [
        (vec!["--only", "no-such-experiment"], "no-such-experiment"),
        (vec!["--device", "sim:7"], "sim:7"),
        (vec!["--device", "warp:0"], "warp:0"),
        (vec!["--device", "host"], "accelerator"),
        (vec!["--tensors", "no/such/file"], "no/such/file"),
        (vec!["--tensors", path_text(&no_tensors)], "safetensors"),
        (vec!["--json", path_text(&missing_folder)], "report.json"),
        (vec!["--no-such-flag"], "--no-such-flag"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(expected),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn an_experiment_that_fails_exits_with_1_and_the_others_still_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let output = guide()
        .args([
            "--quick",
            "--only",
            "disk",
            "--only",
            "overlap",
            "--json",
            path_text(&file),
        ])
        .env("TMPDIR", directory.path().join("missing"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("FAILED"));
    let report = json(&file);
    let claims = report["claims"].as_array().unwrap();
    assert!(claims[0]["verdict"].is_string() && claims[1]["verdict"].is_null());
    assert!(claims[1]["reason"].as_str().unwrap().contains("missing"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for arguments in [&["--list"][..], &["--quick", "--only", "overlap"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = guide()
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        assert_eq!(text(&output.stderr), "");
    }
}
