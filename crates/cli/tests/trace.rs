//! Traces of whole programs: `--trace`, and `PINLANE_TRACE` in the environment of a program that knows nothing of it.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

fn pinlane(arguments: &[&str], traced_to: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinlane"));
    command.args(arguments).env("PINLANE_PROFILE", "assumed");
    match traced_to {
        Some(path) => command.env("PINLANE_TRACE", path),
        None => command.env_remove("PINLANE_TRACE"),
    };
    command.output().expect("the command is built")
}

const EXPERIMENT: [&str; 6] = ["guide", "--quick", "--device", "sim", "--only", "one-sync"];

fn document(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn events(path: &Path) -> Vec<Value> {
    let document = document(path);
    assert!(
        document["otherData"]["note"]
            .as_str()
            .unwrap()
            .contains("simulated")
    );
    document["traceEvents"].as_array().unwrap().clone()
}

fn assert_tells(events: &[Value]) {
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    for name in ["plan", "fill", "copy", "wait", "busy", "thread_name"] {
        assert!(named(name) > 0, "no {name} among {} events", events.len());
    }
    for event in events {
        for field in ["name", "ph", "pid", "tid", "ts"] {
            assert!(!event[field].is_null(), "{field} is missing in {event}");
        }
    }
}

#[test]
fn a_program_that_is_told_to_by_its_environment_leaves_a_trace_when_it_exits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace-%p.json");
    let output = pinlane(&EXPERIMENT, Some(&path));
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("# of Calls") && told.contains("simulated device"),
        "{told}"
    );
    let written: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [written] = written.as_slice() else {
        panic!("{written:?}");
    };
    assert!(!written.to_str().unwrap().contains("%p"));
    assert_tells(&events(written));
}

#[test]
fn a_trace_that_can_not_be_written_is_warned_of_and_the_program_goes_on() {
    let output = pinlane(&EXPERIMENT, Some(Path::new("/nowhere/trace.json")));
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("PINLANE_TRACE") && told.contains("/nowhere/trace.json"),
        "{told}"
    );
    assert!(told.contains("going on without one"), "{told}");
}

#[test]
fn a_file_that_is_no_trace_is_never_replaced_by_one_that_only_the_environment_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, b"\x08\0\0\0\0\0\0\0{}      ").unwrap();
    let output = pinlane(
        &["load", path.to_str().unwrap(), "--device", "sim:0"],
        Some(&path),
    );
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("PINLANE_TRACE") && told.contains("no trace"),
        "{told}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"\x08\0\0\0\0\0\0\0{}      ");
    // An older trace is.
    let path = folder.path().join("trace.json");
    for older in ["", "{\"traceEvents\":[]}"] {
        fs::write(&path, older).unwrap();
        let output = pinlane(&EXPERIMENT, Some(&path));
        assert!(output.status.success(), "{output:?}");
        assert_tells(&events(&path));
    }
}

#[test]
fn a_program_that_uses_no_device_writes_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let output = pinlane(&["guide", "--list"], Some(&path));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(!path.exists());
}

#[test]
fn a_command_is_traced_to_the_file_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let arguments = [&EXPERIMENT[..], &["--trace", path.to_str().unwrap()]].concat();
    let output = pinlane(&arguments, None);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("# of Calls") && told.contains("copy engine to the device"),
        "{told}"
    );
    assert_tells(&events(&path));
}

#[test]
fn what_doctor_looks_at_and_what_advise_measures_are_traced() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, names) in [
        (
            &["doctor", "--device", "sim", "--json"][..],
            &[
                "pinlane doctor",
                "system",
                "python",
                "disk",
                "memcpy",
                "simulated link",
                "simulated pinning",
            ][..],
        ),
        (
            &[
                "advise",
                "--describe",
                "3x1000 f32",
                "--device",
                "sim",
                "--measure",
                "--json",
            ],
            &[
                "pinlane advise",
                "plan",
                "fill",
                "copy",
                "wait",
                "to",
                "pin_memory",
            ],
        ),
    ] {
        let path = folder.path().join(arguments[0]);
        let output = pinlane(&[arguments, &["--trace", path.to_str().unwrap()]].concat(), None);
        // What doctor thinks of this machine is not the question.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).expect("the trace does not get into the output");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("# of Calls"), "{told}");
        let document = document(&path);
        let events = document["traceEvents"].as_array().unwrap();
        for name in names {
            assert!(events.iter().any(|event| event["name"] == *name), "no {name}");
        }
    }
}

#[test]
fn a_file_of_a_trace_that_can_not_be_written_stops_the_command() {
    let arguments = [&EXPERIMENT[..], &["--trace", "/nowhere/trace.json"]].concat();
    let output = pinlane(&arguments, None);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
}

/// Waits until a program moves bytes: until it has lanes.
fn wait_until_it_moves(program: &Child) {
    let patience = Instant::now() + Duration::from_secs(60);
    let threads = format!("/proc/{}/task", program.id());
    let has_lanes = || {
        let threads = fs::read_dir(&threads).into_iter().flatten().flatten();
        let mut names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
        names.any(|name| name.contains("-up-"))
    };
    while !has_lanes() {
        assert!(Instant::now() < patience, "it moves nothing");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_command_that_is_interrupted_leaves_what_was_traced_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    for (signal, number, by_environment) in [("INT", 2, false), ("TERM", 15, false), ("INT", 2, true)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinlane"));
        command
            .args(["guide", "--device", "sim"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match by_environment {
            true => command.env("PINLANE_TRACE", &path),
            false => command.env_remove("PINLANE_TRACE").arg("--trace").arg(&path),
        };
        let program = command.spawn().unwrap();
        wait_until_it_moves(&program);
        let sent = Command::new("kill")
            .args([format!("-{signal}"), program.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let output = program.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(number), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("for https://ui.perfetto.dev"), "{told}");
        let events = events(&path);
        assert!(
            events.iter().any(|event| event["name"] == "fill"),
            "{} events",
            events.len()
        );
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing else is left"
    );
}
