//! `pinlane guide --quick`, and whether its report is whole.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    command::{capture, cargo, run},
    model,
    workspace::{self, list, text},
};

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
    let listed = capture(pinlane_guide().arg("--list"))?;
    let experiments = ids(&listed);
    let mut command = pinlane_guide();
    command.args(["--quick", "--json"]).arg(report);
    if let Some(model) = model {
        command.arg("--tensors").arg(model);
    }
    run(&mut command)?;
    whole(&read(report)?, &experiments).with_context(|| format!("checking {}", report.display()))
}

fn pinlane_guide() -> Command {
    let mut command = cargo();
    command.args(["run", "--release", "--", "guide"]);
    command
}

/// The experiments that `--list` names, one at the beginning of each line.
fn ids(listed: &str) -> Vec<&str> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// Every experiment ran once and landed the right bytes, its claim was judged, and the report says what it ran on.
fn whole(report: &Value, experiments: &[&str]) -> Result<String> {
    let expected: BTreeSet<_> = experiments.iter().copied().collect();
    ensure!(!expected.is_empty(), "`guide --list` names no experiment");
    let ran: Vec<&str> = list(report, "experiments")
        .map(|experiment| text(experiment, "id"))
        .collect();
    ensure!(
        ran.len() == expected.len() && ran.iter().copied().collect::<BTreeSet<_>>() == expected,
        "the experiments are {ran:?}, not each of {experiments:?} once"
    );
    let mut checked = 0;
    for experiment in list(report, "experiments") {
        checked +=
            landed(experiment).with_context(|| format!("the experiment `{}`", text(experiment, "id")))?;
    }
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
        "{hold} claims hold, {fall} do not, {depend} depend; {checked} ways landed every byte; {device}"
    ))
}

/// How many ways of the experiment moved bytes: every one of them was checked, and at least one of each owner was.
fn landed(experiment: &Value) -> Result<usize> {
    let mut owners = BTreeSet::new();
    let mut checked = 0;
    for way in list(experiment, "ways") {
        // A way that is there to land wrong bytes gives a count, and one that moves none has nothing to check.
        let exempt = match text(way, "landed") {
            "counted" => way["count"].is_u64(),
            "nothing" => true,
            _ => false,
        };
        if !exempt {
            let verified = way["verified"] == true;
            ensure!(
                verified,
                "the bytes of `{}` were not verified: {way}",
                text(way, "way")
            );
            owners.insert(text(way, "owner"));
            checked += 1;
        }
    }
    for owner in ["guide", "pinlane"] {
        ensure!(
            owners.contains(owner),
            "no bytes of a way of `{owner}` were verified"
        );
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const IDS: [&str; 2] = ["pinned-faster", "tree"];

    fn report() -> Value {
        let ways = json!([
            { "owner": "guide", "way": "to", "landed": "right", "verified": true },
            { "owner": "guide", "way": "race", "landed": "counted", "verified": null, "count": 3 },
            { "owner": "guide", "way": "allocate", "landed": "nothing", "verified": null },
            { "owner": "pinlane", "way": "to", "landed": "right", "verified": true },
        ]);
        json!({
            "device": { "simulated": true },
            "experiments": IDS.map(|id| json!({ "id": id, "ways": ways })),
            "claims": IDS.map(|id| json!({ "id": id, "verdict": "holds" })),
        })
    }

    fn refusal(report: &Value) -> String {
        format!("{:#}", whole(report, &IDS).unwrap_err())
    }

    #[test]
    fn the_experiments_are_the_first_words_of_the_list() {
        assert_eq!(ids("pinned-faster  A claim.\ntree           Another.\n"), IDS);
    }

    #[test]
    fn a_whole_report_passes_with_its_verdicts_and_ways_counted() {
        let note = whole(&report(), &IDS).unwrap();
        assert_eq!(
            note,
            "2 claims hold, 0 do not, 0 depend; 4 ways landed every byte; simulated device"
        );
    }

    #[test]
    fn a_report_that_lacks_an_experiment_is_refused() {
        let mut report = report();
        report["experiments"].as_array_mut().unwrap().remove(0);
        assert!(refusal(&report).contains("the experiments are"));
    }

    #[test]
    fn a_report_that_leaves_a_claim_unjudged_is_refused() {
        let mut report = report();
        report["claims"].as_array_mut().unwrap().remove(0);
        assert!(refusal(&report).contains("pinned-faster"));
    }

    #[test]
    fn a_verdict_that_nobody_knows_is_refused() {
        let mut report = report();
        report["claims"][1]["verdict"] = json!("perhaps");
        assert!(refusal(&report).contains("`perhaps`"));
    }

    #[test]
    fn a_way_whose_bytes_were_wrong_or_not_checked_is_refused() {
        for (landed, verified) in [("wrong", json!(false)), ("right", json!(null)), ("", json!(null))] {
            let mut report = report();
            report["experiments"][1]["ways"][0]["landed"] = json!(landed);
            report["experiments"][1]["ways"][0]["verified"] = verified;
            let refusal = refusal(&report);
            assert!(
                refusal.contains("`tree`") && refusal.contains("`to`"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn an_experiment_without_a_checked_way_of_pinlane_is_refused() {
        let mut report = report();
        report["experiments"][0]["ways"].as_array_mut().unwrap().pop();
        assert!(refusal(&report).contains("`pinlane`"));
    }
}
