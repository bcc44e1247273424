//! `pinlane plan` as a user meets it: output and exit codes.

use std::{
    collections::HashMap,
    process::{Command, Output, Stdio},
};

use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

fn plan(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinlane"));
    command.args(["plan", "--device", "sim:0"]).args(arguments);
    command.stdin(Stdio::null()).output().expect("the command starts")
}

/// What a plan that can be made prints.
fn shown(arguments: &[&str]) -> String {
    let output = plan(arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is said about one that can't.
fn refused(arguments: &[&str]) -> String {
    let output = plan(arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_described_workload_is_planned_with_a_reason() {
    let pageable = shown(&["--count", "1000", "--size", "4000"]);
    assert!(
        pageable.starts_with("1000 tensors, 4000000 bytes to the device"),
        "{pageable}"
    );
    assert!(
        pageable.contains("pageable, so it goes through pinned slots"),
        "{pageable}"
    );
    let pinned = shown(&["--size", "64M", "--memory", "pinned", "--direction", "d2h"]);
    assert!(
        pinned.starts_with("1 tensor, 67108864 bytes to the host"),
        "{pinned}"
    );
    assert!(pinned.contains("already pinned"), "{pinned}");
    let nothing = shown(&["--count", "0"]);
    assert_eq!(nothing, "0 tensors, 0 bytes to the device: nothing to do\n");
    let separate = shown(&["--placement", "separate", "--memory", "strided"]);
    assert!(separate.contains("gathered"), "{separate}");
}

#[test]
fn an_explanation_shows_the_other_routes_and_the_profile() {
    let explained = shown(&["--size", "1GiB", "--explain"]);
    for part in [
        "direct   not possible: ",
        "staged   about ",
        "plain    about ",
        "(chosen)",
        "profile of sim:0",
        "assumed, as all of a simulated device is",
        "link, one direction",
        "slot ",
        "simulated",
    ] {
        assert!(explained.contains(part), "{part:?} is not in\n{explained}");
    }
    assert!(!shown(&["--size", "1GiB"]).contains("profile of"));
}

#[test]
fn a_route_that_looks_faster_and_is_not_taken_has_a_reason() {
    let explained = shown(&["--size", "64KiB", "--explain"]);
    let plain = explained
        .lines()
        .find(|line| line.starts_with("  plain "))
        .unwrap();
    assert!(
        plain.contains("not taken: ") && plain.contains("up to 4096 bytes"),
        "{plain}"
    );
    let chosen = explained.lines().find(|line| line.ends_with("(chosen)"));
    assert!(
        chosen.is_some_and(|line| line.starts_with("  staged ")),
        "{explained}"
    );
}

#[test]
fn the_tensors_of_a_file_are_planned_from_its_header() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = [0; 24];
    let views = HashMap::from([
        ("long", TensorView::new(Dtype::BF16, vec![3, 4], &bytes).unwrap()),
        ("short", TensorView::new(Dtype::U8, vec![3], &bytes[..3]).unwrap()),
    ]);
    serialize_to_file(views, None, file.path()).unwrap();
    let path = file.path().to_str().unwrap();
    let planned = shown(&["--tensors", path, "--memory", "file"]);
    assert!(planned.starts_with("2 tensors, 27 bytes"), "{planned}");
    assert!(planned.contains("in a file"), "{planned}");
    let both = refused(&["--tensors", path, "--count", "3"]);
    assert!(both.contains("cannot be used with"), "{both}");
}

#[test]
fn what_can_not_be_planned_is_refused_with_what_to_do() {
    for (arguments, part) in [
        (&["--size", "12q"][..], "write bytes, such as 4096"),
        (&["--size", "1T"], "move some of them, or parts"),
        (
            &["--direction", "d2h", "--memory", "file"],
            "pageable or pinned memory",
        ),
        (&["--count", "99999999999"], "plan a part of them"),
        (&["--tensors", "no/such/file"], "no/such/file"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(part), "{part:?} is not in {said}");
        assert_eq!(said.matches(part).count(), 1, "it is said once: {said}");
    }
    let host = Command::new(env!("CARGO_BIN_EXE_pinlane"))
        .args(["plan", "--device", "host"])
        .output()
        .unwrap();
    assert_eq!(host.status.code(), Some(2));
    assert!(
        String::from_utf8(host.stderr)
            .unwrap()
            .contains("name one, such as")
    );
}

#[test]
fn tensors_that_go_several_ways_for_one_reason_are_told_of_in_one_line() {
    let planned = shown(&["--count", "100", "--size", "4MiB"]);
    assert!(
        planned.contains("\n  staged and packed 100 tensors, 419430400 bytes: pageable"),
        "{planned}"
    );
    assert_eq!(planned.matches("pageable, so").count(), 1, "{planned}");
    let explained = shown(&["--explain"]);
    assert!(
        explained.contains("profile of sim:0 (simulated device):"),
        "{explained}"
    );
}

#[test]
fn a_simulated_device_is_planned_for_and_advised_on_by_one_profile() {
    let explained = shown(&["--explain"]);
    let link = explained
        .lines()
        .find_map(|line| line.trim().strip_prefix("link, one direction"))
        .unwrap()
        .trim();
    let advised = Command::new(env!("CARGO_BIN_EXE_pinlane"))
        .args(["advise", "--device", "sim:0", "--describe", "1MiB pinned"])
        .output()
        .unwrap();
    let advised = String::from_utf8(advised.stdout).unwrap();
    assert!(
        advised.contains(&format!("the link carries {link}")),
        "{link}: {advised}"
    );
    assert!(
        !advised.contains("pinlane tune"),
        "nothing measures it: {advised}"
    );
}

#[test]
fn a_plan_for_programs_has_what_the_text_says() {
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&shown(&[arguments, &["--json"]].concat())).unwrap()
    };
    let arguments = ["--count", "100", "--size", "4MiB"];
    let plan = json(&arguments);
    assert_eq!(
        (&plan["bytes"], &plan["simulated"]),
        (&419_430_400.into(), &true.into())
    );
    assert_eq!(plan["text"].as_str().unwrap(), shown(&arguments).trim_end());
    let by_routes = plan["chunks_by"].as_object().unwrap().values();
    let chunks: u64 = by_routes.map(|chunks| chunks.as_u64().unwrap()).sum();
    assert_eq!(plan["chunks"], chunks);
    assert!(plan["predicted_seconds"].as_f64() > Some(0.0) && plan["routes"].is_null());
    let explained = json(&["--explain"]);
    let routes = explained["routes"].as_array().unwrap();
    assert!(
        routes
            .iter()
            .any(|route| route["chosen"] == true && route["predicted_seconds"].is_f64())
    );
    assert!(routes.iter().any(|route| route["not_possible"].is_string()));
    assert!(explained["profile"]["link_bytes_per_second"].is_f64());
}
