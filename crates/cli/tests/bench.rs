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
}

#[test]
fn a_result_is_as_fast_as_itself_and_slower_than_a_better_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let mut arguments = TINY.to_vec();
    arguments.extend([
        "--directions",
        "h2d",
        "--memory",
        "pageable",
        "--json",
        path_text(&path),
    ]);
    assert_eq!(run(&arguments).status.code(), Some(0));
    let same = run(&["--compare", path_text(&path), path_text(&path)]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stderr));
    assert!(text(&same.stdout).contains("0 slower"));

    let mut better = read(&path);
    let seconds = &mut better["cells"][1]["ways"][0]["seconds"];
    *seconds = json!(seconds.as_f64().unwrap() / 2.0);
    let better_path = folder.path().join("better.json");
    fs::write(&better_path, better.to_string()).unwrap();
    let slower = run(&["--compare", path_text(&better_path), path_text(&path)]);
    assert_eq!(slower.status.code(), Some(1));
    assert!(text(&slower.stdout).contains("2.00x"), "{}", text(&slower.stdout));
    let tolerated = run(&[
        "--compare",
        path_text(&better_path),
        path_text(&path),
        "--tolerance",
        "2.5",
    ]);
    assert_eq!(tolerated.status.code(), Some(0));
}

#[test]
fn a_figure_is_judged_by_the_peers_of_a_file() {
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
    let figure = &read(&result)["figures"][0];
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
        (vec!["--time=-1"], "--time"),
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
    }
}
