//! `pinlane guide --quick`, and whether its report is whole.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    command::{cargo, run},
    model,
    workspace::{self, list, text},
};

/// Every experiment of the guide.
const EXPERIMENTS: [&str; 13] = [
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

/// What a claim can turn out to be.
const VERDICTS: [&str; 3] = ["holds", "does not hold", "depends"];

/// On made-up tensors.
pub(crate) fn check() -> Result<String> {
    guide(&workspace::target("guide.json"), None)
}

/// On the tensors of the checkpoint.
pub(crate) fn check_on_model() -> Result<String> {
    let model = model::installed()?.context("the checkpoint is gone; `cargo xtask model` fetches it")?;
    guide(&workspace::target("guide-model.json"), Some(&model))
}

/// Runs the guide and reads its report back.
fn guide(report: &Path, model: Option<&Path>) -> Result<String> {
    if report.exists() {
        fs::remove_file(report)
            .with_context(|| format!("removing the report of the last run, {}", report.display()))?;
    }
    let mut command = cargo();
    command
        .args(["run", "--release", "--", "guide", "--quick", "--json"])
        .arg(report);
    if let Some(model) = model {
        command.arg("--tensors").arg(model);
    }
    run(&mut command)?;
    whole(&read(report)?).with_context(|| format!("checking {}", report.display()))
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// Every experiment ran once, every one's claim was judged, and the report says what it ran on.
fn whole(report: &Value) -> Result<String> {
    let expected = BTreeSet::from(EXPERIMENTS);
    let ran: Vec<&str> = list(report, "experiments")
        .map(|experiment| text(experiment, "id"))
        .collect();
    ensure!(
        ran.len() == EXPERIMENTS.len() && ran.iter().copied().collect::<BTreeSet<_>>() == expected,
        "the experiments are {ran:?}, not each of {EXPERIMENTS:?} once"
    );
    let mut counts = [0; VERDICTS.len()];
    let mut judged = BTreeSet::new();
    for claim in list(report, "claims") {
        let (id, verdict) = (text(claim, "id"), text(claim, "verdict"));
        let position = VERDICTS
            .iter()
            .position(|known| *known == verdict)
            .with_context(|| format!("the verdict on `{id}` is `{verdict}`, none of {VERDICTS:?}"))?;
        counts[position] += 1;
        judged.insert(id);
    }
    let unjudged: Vec<_> = expected.difference(&judged).collect();
    ensure!(unjudged.is_empty(), "no claim was judged for {unjudged:?}");
    let simulated = report["device"]["simulated"]
        .as_bool()
        .context("the report does not say whether its device is simulated")?;
    let [hold, fall, depend] = counts;
    let device = if simulated {
        "simulated device"
    } else {
        "real device"
    };
    Ok(format!(
        "{hold} claims hold, {fall} do not, {depend} depend; {device}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(ids: &[&str]) -> Value {
        json!({
            "device": { "simulated": true },
            "experiments": ids.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>(),
            "claims": ids.iter().map(|id| json!({ "id": id, "verdict": "holds" })).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn a_whole_report_passes_with_its_verdicts_counted() {
        let note = whole(&report(&EXPERIMENTS)).unwrap();
        assert_eq!(note, "13 claims hold, 0 do not, 0 depend; simulated device");
    }

    #[test]
    fn a_report_that_lacks_an_experiment_is_refused() {
        let error = whole(&report(&EXPERIMENTS[1..])).unwrap_err();
        assert!(error.to_string().contains("the experiments are"), "{error}");
    }

    #[test]
    fn a_report_that_leaves_a_claim_unjudged_is_refused() {
        let mut report = report(&EXPERIMENTS);
        report["claims"].as_array_mut().unwrap().remove(0);
        let error = whole(&report).unwrap_err();
        assert!(error.to_string().contains("pinned-faster"), "{error}");
    }

    #[test]
    fn a_verdict_that_nobody_knows_is_refused() {
        let mut report = report(&EXPERIMENTS);
        report["claims"][3]["verdict"] = json!("perhaps");
        let error = whole(&report).unwrap_err();
        assert!(error.to_string().contains("`perhaps`"), "{error}");
    }
}
