//! Files that a command is given to write to, and what is in them already.

use std::{fs, path::Path, process::Command};

/// The smallest checkpoint: one tensor of one byte.
const CHECKPOINT: &[u8] =
    b"\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}   \x07";

/// Runs the command in `folder`; gives its exit code and what it told.
fn pinlane(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pinlane"))
        .args(arguments)
        .current_dir(folder)
        .env("PINLANE_PROFILE", "assumed")
        .output()
        .expect("the command is built");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_file_that_is_read_is_never_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["m.safetensors", "model.bin"] {
        fs::write(folder.join(name), CHECKPOINT).unwrap();
    }
    fs::write(folder.join("result.json"), "{}").unwrap();
    fs::hard_link(folder.join("model.bin"), folder.join("linked.bin")).unwrap();
    let load = ["load", "m.safetensors", "--device", "sim:0"];
    let guide = ["guide", "--quick", "--device", "sim:0", "--only", "one-sync"];
    for (arguments, read) in [
        ([&load[..], &["--trace", "m.safetensors"]].concat(), "PATH"),
        ([&load[..], &["--trace", "./m.safetensors"]].concat(), "PATH"),
        (vec!["load", "model.bin", "--trace", "linked.bin"], "PATH"),
        (
            vec!["load", ".", "--trace", "m.safetensors"],
            "a file of a checkpoint",
        ),
        (
            [
                &guide[..],
                &["--tensors", "m.safetensors", "--report", "m.safetensors"],
            ]
            .concat(),
            "--tensors",
        ),
        (
            [&guide[..], &["--tensors", "model.bin", "--json", "model.bin"]].concat(),
            "--tensors",
        ),
        (
            vec!["bench", "--from", "result.json", "--report", "result.json"],
            "--from",
        ),
        (
            vec!["advise", "--tensors", "model.bin", "--trace", "model.bin"],
            "--tensors",
        ),
        (
            vec![
                "advise",
                "--describe",
                "1MiB",
                "--profile",
                "result.json",
                "--trace",
                "result.json",
            ],
            "--profile",
        ),
        (
            [&guide[..], &["--json", "new.json", "--report", "new.json"]].concat(),
            "both",
        ),
    ] {
        let (code, told) = pinlane(folder, &arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {told}");
        assert!(
            told.contains("another file") && told.contains(read),
            "{arguments:?}: {told}"
        );
    }
    for name in ["m.safetensors", "model.bin"] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), CHECKPOINT, "{name}");
    }
    assert_eq!(fs::read(folder.join("result.json")).unwrap(), b"{}");
    assert!(!folder.join("new.json").exists());
}

#[test]
fn an_older_trace_stays_where_the_command_stops_early_and_is_replaced_by_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("m.safetensors"), CHECKPOINT).unwrap();
    fs::write(folder.join("trace.json"), "an older one").unwrap();
    let load = ["load", "m.safetensors", "--trace", "trace.json", "--device"];
    let (code, _) = pinlane(folder, &[&load[..], &["nowhere:0"]].concat());
    assert_eq!(code, Some(2));
    assert_eq!(fs::read(folder.join("trace.json")).unwrap(), b"an older one");
    let (code, told) = pinlane(folder, &[&load[..], &["sim:0"]].concat());
    assert_eq!(code, Some(0), "{told}");
    let trace = fs::read(folder.join("trace.json")).unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&trace).unwrap()["traceEvents"].is_array());
}

#[test]
fn a_command_that_moves_nothing_is_traced_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("m.safetensors"), CHECKPOINT).unwrap();
    for arguments in [
        &["verify", "m.safetensors"][..],
        &["ls", "m.safetensors"],
        &["plan", "--device", "sim", "--size", "4"],
    ] {
        // Before the command's name or behind it.
        let with = |first: &[&'static str], then: &[&'static str]| pinlane(folder, &[first, then].concat());
        let option = &["--trace", "trace.json"];
        for (code, told) in [with(arguments, option), with(option, arguments)] {
            assert_eq!(code, Some(0), "{told}");
            assert!(told.contains("trace.json"), "{told}");
            let trace = fs::read_to_string(folder.join("trace.json")).unwrap();
            assert!(
                trace.contains(&format!("\"name\":\"pinlane {}\"", arguments[0])),
                "{trace}"
            );
        }
    }
}
