//! `pinlane bench` as a user meets it: output, files and exit codes.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pinlane"))
        .arg("bench")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the result was written")).expect("the result is JSON")
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A grid of a few small cells.
const TINY: [&str; 9] = [
    "--quick", "--device", "sim:0", "--sizes", "4,4KiB", "--counts", "1,10", "--only", "grid",
];

#[test]
fn a_tiny_grid_is_shown_and_written_whole_and_without_its_cells() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, figures) = (
        folder.path().join("whole.json"),
        folder.path().join("figures.json"),
    );
    let mut arguments = TINY.to_vec();
    arguments.extend(["--json", path_text(&whole), "--figures-json", path_text(&figures)]);
    arguments.extend(["--commit", "abc123"]);
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("simulated device: shows behaviour, not hardware speed"));
    assert!(shown.contains("the link's limit") && shown.contains("never-slower"));
    let whole = read(&whole);
    assert_eq!((&whole["schema"], &whole["simulated"]), (&json!(1), &json!(true)));
    assert_eq!(whole["commit"], "abc123");
    // Two directions; two sizes of one tensor in two kinds of memory, and of ten in three.
    assert_eq!(whole["cells"].as_array().unwrap().len(), 2 * 2 * (2 + 3));
    let figures = read(&figures);
    assert!(figures.get("cells").is_none());
    assert_eq!(figures["figures"], whole["figures"]);
    assert!(whole.get("foreseen").is_none());
    let (foreseen, cell) = (&figures["foreseen"][0], &whole["cells"][0]);
    assert_eq!(foreseen["id"], cell["id"]);
    assert_eq!(foreseen["repeated"], cell["repeated"]["seconds"]);
}

/// The result of a tiny grid, with its second cell's time multiplied, and as if it were of hardware where asked.
fn changed(result: &Path, folder: &Path, name: &str, times: f64, hardware: bool) -> std::path::PathBuf {
    let mut result = read(result);
    let seconds = &mut result["cells"][1]["ways"][0]["seconds"];
    *seconds = json!(seconds.as_f64().unwrap() * times);
    result["simulated"] = json!(!hardware);
    let path = folder.join(name);
    fs::write(&path, result.to_string()).unwrap();
    path
}

#[test]
fn a_result_is_as_fast_as_itself_and_on_hardware_one_that_is_slower_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let mut arguments = TINY.to_vec();
    arguments.extend(["--directions", "h2d", "--memory", "pageable"]);
    arguments.extend(["--json", path_text(&path)]);
    assert_eq!(run(&arguments).status.code(), Some(0));

    let folder = folder.path();
    let compare = |before: &Path, after: &Path, more: &[&str]| {
        let arguments = ["--compare", path_text(before), path_text(after)];
        run(&[&arguments[..], more].concat())
    };
    let real = changed(&path, folder, "real.json", 1.0, true);
    let slower = changed(&path, folder, "slower.json", 2.0, true);
    let same = compare(&real, &real, &[]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stderr));
    assert!(text(&same.stdout).contains("0 slower"));
    let lost = compare(&real, &slower, &[]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(text(&lost.stdout).contains("2.00x"), "{}", text(&lost.stdout));
    let tolerated = compare(&real, &slower, &["--tolerance", "2.5"]);
    assert_eq!(tolerated.status.code(), Some(0));

    let simulated = changed(&path, folder, "simulated.json", 2.0, false);
    let told = compare(&path, &simulated, &[]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let shown = text(&told.stdout);
    assert!(
        shown.contains("2.00x") && shown.contains("simulated device"),
        "{shown}"
    );
    let mixed = compare(&path, &real, &[]);
    assert_eq!(mixed.status.code(), Some(2));
    assert!(text(&mixed.stderr).contains("simulated"));
}

#[test]
fn peers_of_a_file_stand_beside_a_figure_and_a_simulated_one_is_not_judged() {
    let folder = tempfile::tempdir().unwrap();
    let (peers, result) = (
        folder.path().join("peers.json"),
        folder.path().join("result.json"),
    );
    fs::write(&peers, r#"{"h2d-small-1000": {"torch_non_blocking": 3600.0}}"#).unwrap();
    let output = run(&[
        "--quick",
        "--device",
        "sim:0",
        "--only",
        "h2d-small-1000",
        "--peers",
        path_text(&peers),
        "--json",
        path_text(&result),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("not judged") && !shown.contains("NO"), "{shown}");
    let figure = &read(&result)["figures"][0];
    assert_eq!(figure["holds"], Value::Null);
    assert_eq!(figure["peers"]["torch_non_blocking"], 3_600_000.0);
    assert!(
        figure["asked"]
            .as_str()
            .unwrap()
            .ends_with("45 times better than torch_non_blocking")
    );
}

#[test]
fn the_list_names_figures_and_cells_and_runs_none() {
    let output = run(&["--device", "sim:0", "--list"]);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    for name in ["h2d-pageable-1gib", "pinned-peak", "h2d-mixed-4KiB-x100"] {
        assert!(shown.lines().any(|line| line.starts_with(name)), "{name}");
    }
}

#[test]
fn what_cannot_run_as_asked_exits_with_2_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (no_json, no_time) = (folder.path().join("no.json"), folder.path().join("time.json"));
    fs::write(&no_json, "not JSON").unwrap();
    fs::write(&no_time, r#"{"h2d-small-1000": {"torch": 0.0}}"#).unwrap();
    for (arguments, expected) in [
        (vec!["--only", "no-such-cell"], "no-such-cell"),
        (vec!["--device", "warp:0"], "warp:0"),
        (vec!["--sizes", "4KX"], "4KX"),
        (vec!["--directions", "up"], "h2d"),
        (vec!["--memory", "swap"], "pageable"),
        (vec!["--sizes", "1GiB", "--max-bytes", "1MiB"], "--max-bytes"),
        (vec!["--sizes", "0"], "1 or more"),
        (vec!["--counts", "0,1"], "1 or more"),
        (vec!["--counts", "many"], "such as 1000"),
        (vec!["--memory", "mixed", "--counts", "1"], "2 or more"),
        (vec!["--device", "host"], "no accelerator"),
        (vec!["--tolerance", "2"], "--compare"),
        (vec!["--time=-1"], "--time -1: a number of seconds"),
        (vec!["--peers", path_text(&no_time)], "no time"),
        (
            vec!["--compare", path_text(&no_json), path_text(&no_json)],
            "no.json",
        ),
        (vec!["--compare", path_text(&no_json)], "--compare"),
        (
            vec![
                "--compare",
                path_text(&no_json),
                path_text(&no_json),
                "--tolerance",
                "0.5",
            ],
            "--tolerance",
        ),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("guide"), "{arguments:?}: {said}");
    }
}
