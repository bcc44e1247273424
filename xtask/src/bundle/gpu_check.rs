//! What `bench/gpu-check` makes of how its steps end, tried in a bundle of made-up programs.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{figures::steps::Steps, workspace};

const PASSES: &str = "echo 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out'";
const SKIPS_ALL: &str = "echo 'test result: ok. 0 passed; 0 failed; 4 ignored; 0 measured; 0 filtered out'";
const FAILS: &str =
    "echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out'; exit 101";

/// A bundle with the real script. The programs of the machine are made up, too, and come before the real ones.
struct Bundle(TempDir);

impl Bundle {
    fn new(manifest: &str, programs: &[(&str, &str)]) -> Self {
        let bundle = Self(tempfile::tempdir().unwrap());
        fs::copy(
            workspace::root().join("bench/gpu-check"),
            bundle.path().join("gpu-check"),
        )
        .unwrap();
        fs::write(
            bundle.path().join("manifest"),
            format!("commit abc\nrustc 1.95.0\n{manifest}"),
        )
        .unwrap();
        fs::write(bundle.path().join("torch_side.py"), "").unwrap();
        bundle.program("machine/nvidia-smi", "echo 'NVIDIA \"H200\" NVL'");
        for (path, script) in programs {
            bundle.program(path, script);
        }
        bundle
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self, path: &str, script: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn check(&self, arguments: &[&str]) -> Output {
        let found = format!(
            "{}:{}",
            self.path().join("machine").display(),
            env::var("PATH").unwrap()
        );
        // Read by bash rather than executed: another test's fork may still hold the file that was just written.
        Command::new("bash")
            .arg(self.path().join("gpu-check"))
            .args(arguments)
            .env("PATH", found)
            .output()
            .unwrap()
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path().join("results/gpu-check.json")).unwrap()).unwrap()
    }
}

/// The status, the reason and the counts of passed, failed and skipped tests of a step.
fn verdict(report: &Value, step: &str) -> (String, String, [u64; 3]) {
    let step = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["step"] == step)
        .unwrap();
    let tests = ["passed", "failed", "skipped"].map(|count| step["tests"][count].as_u64().unwrap());
    let text = |key: &str| step[key].as_str().unwrap().to_owned();
    (text("status"), text("reason"), tests)
}

#[test]
fn a_failed_step_does_not_stop_the_others_and_fails_the_run() {
    let bundle = Bundle::new(
        "test conformance tests/a\ntest cuda-tests tests/b\ntest engine-tests tests/c\n",
        &[
            ("tests/a", FAILS),
            ("tests/b", SKIPS_ALL),
            (
                "tests/c",
                &format!("test \"$PINLANE_TEST_DEVICE\" = cuda:0 && {PASSES}"),
            ),
        ],
    );
    let output = bundle.check(&["--only", "conformance,cuda-tests,engine-tests"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = bundle.report();
    assert_eq!(report["gpu"], "NVIDIA \"H200\" NVL");
    assert_eq!(report["commit"], "abc");
    let (status, reason, tests) = verdict(&report, "conformance");
    assert_eq!((status.as_str(), tests), ("failed", [2, 1, 0]));
    assert_eq!(reason, "exit status 101");
    let (status, reason, tests) = verdict(&report, "cuda-tests");
    assert_eq!((status.as_str(), tests), ("failed", [0, 0, 4]));
    assert_eq!(reason, "not one test passed");
    let (status, _, tests) = verdict(&report, "engine-tests");
    assert_eq!((status.as_str(), tests), ("passed", [3, 0, 1]));
    // The documents show the same, where the report is kept beside the figures.
    let shown = Steps::parse(&report.to_string()).unwrap().section();
    assert!(shown.contains("3 steps: 1 passed, 2 failed"), "{shown}");
}

#[test]
fn the_counts_of_all_programs_of_a_step_are_summed_and_arguments_reach_them() {
    let bundle = Bundle::new(
        "test engine-tests tests/a --test-threads=4 -q\ntest engine-tests tests/b\n",
        &[
            (
                "tests/a",
                &format!("test \"$*\" = '--test-threads=4 -q' && {PASSES}"),
            ),
            ("tests/b", PASSES),
        ],
    );
    let output = bundle.check(&["--only", "engine-tests"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (status, _, tests) = verdict(&bundle.report(), "engine-tests");
    assert_eq!((status.as_str(), tests), ("passed", [6, 0, 2]));
}

#[test]
fn what_the_bundle_lacks_is_a_failure_that_names_it() {
    let bundle = Bundle::new("test conformance tests/gone\n", &[]);
    let output = bundle.check(&["--only", "conformance,cuda-tests,tune"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = bundle.report();
    for (step, missing) in [
        ("conformance", "tests/gone"),
        ("cuda-tests", "no test programs"),
        ("tune", "pinlane is missing"),
    ] {
        let (status, reason, _) = verdict(&report, step);
        assert_eq!(status, "failed");
        assert!(reason.contains(missing), "{step}: {reason}");
    }
}

#[test]
fn the_figures_are_named_after_the_gpu_and_torch_is_skipped_where_it_is_not_there() {
    let bundle = Bundle::new(
        "",
        &[
            ("machine/python3", "exit 77"),
            ("pinlane", "echo \"$*\" > \"$(dirname \"$0\")/called\""),
        ],
    );
    let output = bundle.check(&["--quick", "--only", "torch,bench"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (status, reason, _) = verdict(&bundle.report(), "torch");
    assert_eq!(status, "skipped");
    assert!(reason.contains("torch"), "{reason}");
    let called = fs::read_to_string(bundle.path().join("called")).unwrap();
    assert!(called.starts_with("bench "), "{called}");
    for part in [
        "results/h200-nvl-quick.json",
        "--commit abc",
        "--time 30",
        "--quick",
    ] {
        assert!(called.contains(part), "{called}");
    }
    assert!(!called.contains("--peers"), "{called}");
}

/// A `pinlane` whose doctor ends as the file `ends` beside it says, with the finding in `finds`.
const PINLANE: &str = r#"here=$(dirname "$0")
echo "$*" >> "$here/called"
case "$1" in
    doctor) cat "$here/finds"; exit "$(cat "$here/ends")" ;;
    advise) echo '{"ways": []}' ;;
esac"#;

#[test]
fn what_doctor_finds_is_kept_and_no_failure_whatever_is_wrong_with_the_machine() {
    let bundle = Bundle::new("", &[("pinlane", PINLANE)]);
    let sound = "{\n  \"findings\": []\n}\n";
    let wrong = "{\n  \"findings\": [{\n  \"severity\": \"wrong\"\n}]\n}\n";
    for (ends, finds, status, reason) in [
        ("0", sound, "passed", ""),
        (
            "1",
            wrong,
            "passed",
            "wrong with this machine: 1, see doctor.json",
        ),
        // It could not go on, or not begin.
        ("1", "", "failed", "exit status 1"),
        ("2", "", "failed", "exit status 2"),
    ] {
        fs::write(bundle.path().join("ends"), ends).unwrap();
        fs::write(bundle.path().join("finds"), finds).unwrap();
        let output = bundle.check(&["--only", "doctor"]);
        assert_eq!(output.status.success(), status == "passed", "{output:?}");
        let (found, why, _) = verdict(&bundle.report(), "doctor");
        assert_eq!((found.as_str(), why.as_str()), (status, reason));
        let kept = fs::read_to_string(bundle.path().join("results/doctor.json")).ok();
        assert_eq!(kept.as_deref(), Some(finds).filter(|finds| !finds.is_empty()));
    }
}

#[test]
fn a_trace_is_kept_where_it_is_short_and_is_one_of_the_device() {
    let traces = |written: &str| {
        // The last argument is the file.
        let script = format!("for file; do :; done; {written}");
        let bundle = Bundle::new("", &[("pinlane", &script)]);
        let output = bundle.check(&["--quick", "--only", "trace"]);
        let (status, reason, _) = verdict(&bundle.report(), "trace");
        let kept = bundle.path().join("results/trace.json").exists();
        assert_eq!(
            output.status.code(),
            Some(i32::from(status == "failed")),
            "{output:?}"
        );
        (status, reason, kept)
    };
    let device = r#"echo '{"cat":"device"}' > "$file""#;
    assert_eq!(traces(device), ("passed".to_owned(), String::new(), true));
    let long = format!(r#"{device}; head -c 1000000 /dev/zero >> "$file""#);
    let (status, reason, kept) = traces(&long);
    assert_eq!((status.as_str(), kept), ("passed", false));
    assert!(reason.contains("too large to keep"), "{reason}");
    let (status, reason, kept) = traces(r#"echo '{"cat":"host"}' > "$file""#);
    assert_eq!((status.as_str(), kept), ("failed", false));
    assert!(reason.contains("no copies"), "{reason}");
}

#[test]
fn what_is_advised_is_measured_and_kept_as_json_and_a_quick_run_asks_once() {
    let bundle = Bundle::new("", &[("pinlane", PINLANE)]);
    for (arguments, kept) in [
        (&["--only", "advise"][..], &["device", "host"][..]),
        (&["--only", "advise", "--quick"], &["device"]),
    ] {
        let output = bundle.check(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for end in ["device", "host"] {
            let path = bundle.path().join(format!("results/advise-to-{end}.json"));
            let content = fs::read(&path).ok();
            assert_eq!(content.is_some(), kept.contains(&end), "{arguments:?}: {end}");
            if let Some(content) = content {
                serde_json::from_slice::<Value>(&content).expect("nothing but JSON is in the file");
            }
        }
        let called = fs::read_to_string(bundle.path().join("called")).unwrap();
        assert!(
            called
                .lines()
                .all(|line| line.starts_with("advise --device cuda:0 --measure --json")),
            "{called}"
        );
    }
}

/// A `python3` that has every module, says what pytest says, and writes down how it is called and what it is to import.
const PYTHON: &str = r#"echo "$PYTHONPATH $*" >> "$(dirname "$0")/../called"
case "$*" in
    *pytest*--quiet*) echo '1 failed, 7 passed, 2 skipped, 1 error in 3.21s'; exit 1 ;;
esac"#;

#[test]
fn the_package_of_the_bundle_is_tested_and_measured_and_its_figures_join_those_of_bench() {
    let bundle = Bundle::new(
        "wheel python/pinlane.whl\n",
        &[
            ("machine/python3", PYTHON),
            (
                "pinlane",
                "while [ \"$1\" != --figures-json ]; do shift; done; echo > \"$2\"",
            ),
            ("python/pinlane.whl", ""),
        ],
    );
    let output = bundle.check(&["--only", "bench,python-bench,checkpoint-bench,python"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = bundle.report();
    for step in ["python-bench", "checkpoint-bench"] {
        let (status, reason, _) = verdict(&report, step);
        assert_eq!((status.as_str(), reason.as_str()), ("passed", ""));
    }
    let (status, reason, tests) = verdict(&report, "python");
    assert_eq!((status.as_str(), tests), ("failed", [7, 2, 2]));
    assert_eq!(reason, "exit status 1");

    let called = fs::read_to_string(bundle.path().join("called")).unwrap();
    let call = |word: &str| called.lines().find(|line| line.contains(word)).unwrap();
    let unpacked = call("zipfile").rsplit(' ').next().unwrap();
    assert!(call("zipfile").contains("python/pinlane.whl"), "{called}");
    let benches = ["torch_side_by_side.py", "checkpoint_side_by_side.py"].map(call);
    for work in [benches[0], benches[1], call("pytest --quiet")] {
        assert!(work.starts_with(&format!("{unpacked} ")), "{called}");
    }
    for bench in benches {
        assert!(bench.contains("--figures /"), "{called}");
        assert!(bench.ends_with("results/h200-nvl.json"), "{called}");
    }
}

#[test]
fn the_package_is_skipped_with_the_reason_where_something_is_not_there_to_run_it() {
    let no_module = "echo \"ModuleNotFoundError: No module named 'pytest'\" >&2; exit 1";
    for (manifest, script, expected) in [
        (
            "wheel python/pinlane.whl\n",
            no_module,
            "No module named 'pytest'",
        ),
        (
            "no-wheel made without an environment\n",
            PYTHON,
            "made without an environment",
        ),
    ] {
        let bundle = Bundle::new(
            manifest,
            &[("machine/python3", script), ("python/pinlane.whl", "")],
        );
        let output = bundle.check(&["--only", "python-bench,python"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for step in ["python-bench", "python"] {
            let (status, reason, _) = verdict(&bundle.report(), step);
            assert_eq!(status, "skipped");
            assert!(reason.contains(expected), "{step}: {reason}");
        }
    }
}

#[test]
fn a_bundle_that_lacks_the_wheel_it_names_fails_and_so_does_one_that_says_nothing_of_it() {
    for (manifest, missing) in [
        ("wheel python/gone.whl\n", "python/gone.whl is missing"),
        ("", "no wheel"),
    ] {
        let bundle = Bundle::new(manifest, &[("machine/python3", PYTHON)]);
        let output = bundle.check(&["--only", "python"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let (status, reason, _) = verdict(&bundle.report(), "python");
        assert_eq!(status, "failed");
        assert!(reason.contains(missing), "{reason}");
    }
}

#[test]
fn memcheck_counts_the_errors_that_it_finds() {
    let bundle = Bundle::new(
        "test conformance tests/a\n",
        &[
            ("tests/a", PASSES),
            (
                "machine/compute-sanitizer",
                "for last; do :; done; $last; echo '========= ERROR SUMMARY: 2 errors'; exit 9",
            ),
        ],
    );
    let output = bundle.check(&["--only", "memcheck"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (status, reason, tests) = verdict(&bundle.report(), "memcheck");
    assert_eq!((status.as_str(), tests), ("failed", [3, 0, 1]));
    assert!(reason.contains("2 errors"), "{reason}");
}

#[test]
fn a_step_that_does_not_exist_and_a_folder_that_is_no_bundle_are_refused() {
    let bundle = Bundle::new("", &[]);
    let output = bundle.check(&["--only", "machine,nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`nonsense`"), "{said}");

    fs::remove_file(bundle.path().join("manifest")).unwrap();
    let output = bundle.check(&[]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("gpu-bundle"), "{said}");
}
