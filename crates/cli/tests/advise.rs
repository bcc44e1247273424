//! `pinlane advise`, run as a user runs it.

use std::{
    collections::HashMap,
    process::{Command, Output},
};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

fn advise(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pinlane"))
        .arg("advise")
        .args(arguments)
        .env("PINLANE_PROFILE", "assumed")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

#[test]
fn every_way_is_predicted_on_a_machine_that_is_not_here() {
    let text = stdout(&advise(&[
        "--describe",
        "100x1M f32 pageable",
        "--profile",
        "h200",
    ]));
    for part in [
        "100x1M f32 pageable to device",
        "NVIDIA H200",
        "bench/results/h200.json",
        "t.to(device)",
        "pin_memory().to(device, non_blocking=True)",
        "pinlane\n  100 tensors",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

#[test]
fn what_is_measured_stands_beside_what_was_predicted() {
    let advice = json(&advise(&[
        "--describe",
        "20x1000 f32",
        "--device",
        "sim:0",
        "--measure",
        "--json",
    ]));
    assert_eq!(advice["simulated"], true);
    let ways = advice["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 9);
    for way in ways {
        assert!(
            way["predicted_seconds"].as_f64() > Some(0.0) && way["measured_seconds"].as_f64() > Some(0.0),
            "{way}"
        );
    }
}

#[test]
fn json_and_the_tensors_of_a_file_are_descriptions_too() {
    let described = r#"{"tensors": [{"count": 2, "elements": 6, "dtype": "f32"}], "to": "host"}"#;
    let advice = json(&advise(&["--describe", described, "--json"]));
    assert_eq!(advice["description"], "2x6 f32 pageable to host");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.safetensors");
    let tensor = |bytes| TensorView::new(Dtype::U8, vec![4], bytes).unwrap();
    let (first, second) = ([1; 4], [2; 4]);
    let tensors: HashMap<_, _> = [("first", tensor(&first)), ("second", tensor(&second))].into();
    safetensors::serialize_to_file(&tensors, None, &path).unwrap();
    let path = path.to_str().unwrap();
    let advice = json(&advise(&["--tensors", path, "--memory", "pinned", "--json"]));
    assert_eq!(advice["description"], "2x4B pinned to device");
}

#[test]
fn a_wrong_description_is_pointed_at() {
    let output = advise(&["--describe", "100x1M f33 pageable"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("\n  100x1M f33 pageable\n         ^^^"), "{text}");
}

#[test]
fn tensors_of_a_file_that_can_not_be_moved_so_are_refused_for_the_reason_that_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let (none, one) = (
        folder.path().join("none.safetensors"),
        folder.path().join("one.safetensors"),
    );
    std::fs::write(&none, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let tensors: HashMap<_, _> = [("only", TensorView::new(Dtype::U8, vec![4], &[1; 4]).unwrap())].into();
    safetensors::serialize_to_file(&tensors, None, &one).unwrap();
    for (path, arguments, reason, never) in [
        (&none, &[][..], "none.safetensors has no tensors; name", "lands"),
        (
            &one,
            &["--memory", "file", "--direction", "d2h"],
            "not in a file; give one of these",
            "no tensor",
        ),
    ] {
        let output = advise(&[&["--tensors", path.to_str().unwrap()], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(reason) && !said.contains(never), "{said}");
    }
}

#[test]
fn a_profile_of_endless_times_gives_endless_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slow.json");
    let shipped = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../advise/profiles/h200.json"
    ))
    .unwrap();
    let mut slow: Value = serde_json::from_slice(&shipped).unwrap();
    for (name, value) in slow["profile"].as_object_mut().unwrap() {
        if name.ends_with("_seconds") {
            *value = 1e19.into();
        }
    }
    std::fs::write(&path, slow.to_string()).unwrap();
    for described in ["1000x1000 f32 pinned", "1GiB", "1x1000 f32", "1GiB to host"] {
        let advice = json(&advise(&[
            "--describe",
            described,
            "--profile",
            path.to_str().unwrap(),
            "--json",
        ]));
        for way in advice["ways"].as_array().unwrap() {
            assert!(
                way["predicted_seconds"].as_f64() >= Some(1e19),
                "{described}: {way}"
            );
        }
    }
}

#[test]
fn what_can_not_be_asked_for_is_a_wrong_command_line() {
    for arguments in [
        &[][..],
        &["--describe", "1MiB", "--profile", "abacus"],
        &["--describe", "1MiB", "--profile", "h200", "--measure"],
        &["--describe", "1MiB", "--device", "warp:0"],
        &["--describe", "1MiB file", "--device", "sim:0", "--measure"],
        &["--describe", "1000x1GiB", "--device", "sim:0"],
        &["--tensors", "/nowhere"],
    ] {
        assert_eq!(advise(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_file_that_is_no_profile_is_refused_with_what_is_one_and_never_to_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m.safetensors");
    std::fs::write(&model, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let simulated = folder.path().join("sim.json");
    let tuned = Command::new(env!("CARGO_BIN_EXE_pinlane"))
        .args(["tune", "--device", "sim:0", "--json", simulated.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(tuned.status.success(), "{tuned:?}");
    for (path, part) in [(&model, "is no profile"), (&simulated, "only simulates")] {
        let output = advise(&["--describe", "1MiB", "--profile", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        for part in [part, path.to_str().unwrap(), "pinlane tune --json"] {
            assert!(said.contains(part), "{part} is missing: {said}");
        }
        assert!(!said.contains("delete") && !said.contains("storing"), "{said}");
    }
}
