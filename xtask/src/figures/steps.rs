//! What `gpu-check` said of each of its steps on one machine: that the figures beside it come from code that was checked, and
//! how many tests that were.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::table::row;

/// How the files end that hold steps: those of `h200.json` are in `h200.steps.json`, which is `gpu-check.json` as it was
/// written.
const ENDING: &str = ".steps.json";

/// Every step of one run.
#[derive(Debug, Deserialize)]
pub(crate) struct Steps {
    commit: String,
    date: String,
    gpu: String,
    driver: String,
    quick: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    step: String,
    status: String,
    reason: String,
    seconds: u64,
    tests: Tests,
}

#[derive(Debug, Deserialize)]
struct Tests {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Steps {
    /// Where the steps are that belong to the figures in the file at `figures`.
    pub(crate) fn beside(figures: &Path) -> PathBuf {
        let stem = figures.file_stem().unwrap_or_default().to_string_lossy();
        figures.with_file_name(format!("{stem}{ENDING}"))
    }

    /// Whether the file at `path` holds steps rather than figures.
    pub(crate) fn are_in(path: &Path) -> bool {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().ends_with(ENDING))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// As Markdown: which commit was checked, each step, and how they ended in all.
    pub(crate) fn section(&self) -> String {
        let mut text = format!(
            "`gpu-check{}` on {} (driver {}), {}, commit `{}`:\n\n",
            if self.quick { " --quick" } else { "" },
            self.gpu,
            self.driver,
            self.date.split('T').next().unwrap_or(&self.date),
            self.commit,
        );
        let header = [
            "step", "result", "passed", "failed", "skipped", "seconds", "remark",
        ];
        text += &row(header.map(str::to_owned).to_vec());
        text += &row(vec!["---".to_owned(); header.len()]);
        for step in &self.steps {
            let result = match step.status.as_str() {
                "failed" => "**failed**".to_owned(),
                other => other.to_owned(),
            };
            let Tests {
                passed,
                failed,
                skipped,
            } = step.tests;
            text += &row(vec![
                format!("`{}`", step.step),
                result,
                passed.to_string(),
                failed.to_string(),
                skipped.to_string(),
                step.seconds.to_string(),
                step.reason.clone(),
            ]);
        }
        let with = |status: &str| self.steps.iter().filter(|step| step.status == status).count();
        let tests = |count: fn(&Tests) -> u64| self.steps.iter().map(|step| count(&step.tests)).sum::<u64>();
        text += &format!(
            "\n{} steps: {} passed, {} failed, {} were skipped; {} tests passed, {} failed, {} were skipped.\n",
            self.steps.len(),
            with("passed"),
            with("failed"),
            with("skipped"),
            tests(|tests| tests.passed),
            tests(|tests| tests.failed),
            tests(|tests| tests.skipped),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_step_is_shown_with_its_counts_and_what_failed_or_was_skipped_is_counted() {
        let text = json!({
            "commit": "abc1234", "date": "2026-11-22T17:00:00Z", "gpu": "NVIDIA H200", "driver": "580.1", "quick": false,
            "steps": [
                { "step": "conformance", "status": "passed", "reason": "", "seconds": 12,
                  "tests": { "passed": 40, "failed": 0, "skipped": 2 } },
                { "step": "engine-tests", "status": "failed", "reason": "exit status 101", "seconds": 30,
                  "tests": { "passed": 7, "failed": 1, "skipped": 0 } },
                { "step": "memcheck", "status": "skipped", "reason": "there is no compute-sanitizer", "seconds": 0,
                  "tests": { "passed": 0, "failed": 0, "skipped": 0 } },
            ],
        });
        let text = Steps::parse(&text.to_string()).unwrap().section();
        for shown in [
            "`gpu-check` on NVIDIA H200 (driver 580.1), 2026-11-22, commit `abc1234`:",
            "| `conformance` | passed | 40 | 0 | 2 | 12 |  |",
            "| `engine-tests` | **failed** | 7 | 1 | 0 | 30 | exit status 101 |",
            "| `memcheck` | skipped | 0 | 0 | 0 | 0 | there is no compute-sanitizer |",
            "3 steps: 1 passed, 1 failed, 1 were skipped; 47 tests passed, 1 failed, 2 were skipped.\n",
        ] {
            assert!(text.contains(shown), "{shown:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_steps_of_a_machine_lie_beside_its_figures() {
        let figures = Path::new("bench/results/h200.json");
        let steps = Steps::beside(figures);
        assert_eq!(steps, Path::new("bench/results/h200.steps.json"));
        assert!(Steps::are_in(&steps) && !Steps::are_in(figures));
    }
}
