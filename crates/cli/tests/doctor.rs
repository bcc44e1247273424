//! `pinlane doctor`, run as a user runs it.

use std::process::{Command, Output};

use serde_json::Value;

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pinlane"))
        .arg("doctor")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_exit_code_is_1_exactly_where_something_is_wrong() {
    let output = doctor(&["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let is_wrong = findings.iter().any(|finding| finding["severity"] == "wrong");
    assert_eq!(output.status.code(), Some(i32::from(is_wrong)), "{report:#}");
    for finding in findings {
        for field in ["id", "title", "reason", "fix", "by_itself"] {
            assert!(
                finding[field].as_str().is_some_and(|text| !text.is_empty()),
                "{finding:#}"
            );
        }
        assert!(finding["cost"]["kind"].is_string(), "{finding:#}");
    }
    assert!(report["facts"]["memcpy"][0]["bytes_per_second"].as_f64() > Some(0.0));
}

#[test]
fn a_simulated_device_is_looked_at_when_it_is_asked_for_and_says_so() {
    let output = doctor(&["--device", "sim:0"]);
    let text = text(&output);
    assert!(
        text.contains("sim:0") && text.contains("simulated device: shows behaviour, not hardware speed"),
        "{text}"
    );
}

#[test]
fn a_device_that_is_not_there_is_a_wrong_command_line() {
    let output = doctor(&["--device", "warp:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("warp:0"));
}
