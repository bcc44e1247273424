//! The results that `gpu-check` writes for one machine, as far as the documents show them.
//!
//! Whoever writes them is free to add fields; what is read here must be there.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::steps::Steps;

/// The version of the format.
const SCHEMA: u32 = 1;

/// One run on one machine.
#[derive(Debug, Deserialize)]
pub(crate) struct Results {
    schema: u32,
    machine: Machine,
    date: String,
    commit: String,
    simulated: bool,
    quick: bool,
    link: Link,
    pub(crate) figures: Vec<Figure>,
    #[serde(default)]
    pub(crate) failures: Vec<Failure>,
    /// What `gpu-check` said of its steps, where that is kept.
    #[serde(skip)]
    pub(super) steps: Option<Steps>,
}

/// What could not be measured.
#[derive(Debug, Deserialize)]
pub(crate) struct Failure {
    /// The figure, or a part of the benchmark.
    pub(crate) id: String,
    pub(crate) error: String,
    /// [`WRONG_BYTES`], or something else, or nothing in results of the Python package.
    #[serde(default)]
    kind: String,
}

/// The kind of a failure after which no figure of the run counts.
const WRONG_BYTES: &str = "wrong-bytes";

#[derive(Debug, Deserialize)]
struct Machine {
    /// The product name of the GPU.
    device: String,
}

/// What the link carries of pinned memory, measured in the same run, in GB/s.
#[derive(Debug, Deserialize)]
struct Link {
    h2d: f64,
    d2h: f64,
    both: f64,
}

/// One figure beside what it is up against, all in `unit`.
#[derive(Debug, Deserialize)]
pub(crate) struct Figure {
    pub(crate) id: String,
    pub(crate) value: Option<f64>,
    pub(crate) unit: String,
    pub(crate) limit: Option<f64>,
    #[serde(default)]
    peers: BTreeMap<String, Option<f64>>,
    /// What is asked, in words.
    pub(crate) asked: String,
    holds: Option<bool>,
    /// What else there is to say.
    #[serde(default)]
    pub(crate) detail: String,
}

/// Whether a figure is what was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Holds,
    FallsShort,
    NotMeasured,
}

impl Results {
    /// The results in the file at `path`, and the steps beside it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let doing = || format!("reading the results in {}", path.display());
        let text = fs::read_to_string(path).with_context(doing)?;
        let mut results = Self::parse(&text).with_context(doing)?;
        let steps = Steps::beside(path);
        if steps.exists() {
            let doing = || format!("reading the steps in {}", steps.display());
            let text = fs::read_to_string(&steps).with_context(doing)?;
            results.steps = Some(Steps::parse(&text).with_context(doing)?);
        }
        Ok(results)
    }

    /// The results in a JSON text. Those that are no figures to show are refused.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let results: Self = serde_json::from_str(text)?;
        ensure!(
            results.schema == SCHEMA,
            "their schema is {}, and {SCHEMA} is what is read: measure again",
            results.schema
        );
        ensure!(
            !results.simulated,
            "they come from a simulated device, whose figures say nothing of hardware"
        );
        ensure!(
            !results.quick,
            "they come from a quick run, whose figures are rough: commit those of a full one"
        );
        let wrong = results
            .failures
            .iter()
            .find(|failure| failure.kind == WRONG_BYTES);
        if let Some(failure) = wrong {
            bail!(
                "in their run bytes landed wrong, and then no figure of it counts: {}; find out why, and measure again",
                failure.error
            );
        }
        Ok(results)
    }

    /// The name of the GPU.
    pub(crate) fn gpu(&self) -> &str {
        &self.machine.device
    }

    /// When they were measured.
    pub(crate) fn date(&self) -> &str {
        &self.date
    }

    /// The GPU and the day.
    pub(crate) fn of_when(&self) -> String {
        let day = self.date.split('T').next().unwrap_or(&self.date);
        format!("{}, {day}", self.gpu())
    }

    /// Where the figures come from, in a sentence.
    pub(crate) fn origin(&self) -> String {
        format!(
            "{}, commit `{}`. The link's own limits in the same run: {} GB/s to the device, {} GB/s to the host, \
             {} GB/s with both at once.",
            self.of_when(),
            self.commit,
            significant(self.link.h2d),
            significant(self.link.d2h),
            significant(self.link.both),
        )
    }
}

impl Figure {
    pub(crate) fn verdict(&self) -> Verdict {
        match (self.value, self.holds) {
            (Some(_), Some(true)) => Verdict::Holds,
            (Some(_), Some(false)) => Verdict::FallsShort,
            _ => Verdict::NotMeasured,
        }
    }

    /// The peer that came out best, and its figure.
    pub(crate) fn best_peer(&self) -> Option<(&str, f64)> {
        let peers = self
            .peers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), (*value)?)));
        peers.reduce(|best, peer| {
            if self.gain(peer.1, best.1) > 1.0 {
                peer
            } else {
                best
            }
        })
    }

    /// How many times as good as the best peer.
    pub(crate) fn against_best_peer(&self) -> Option<f64> {
        let (_, peer) = self.best_peer()?;
        Some(self.gain(self.value?, peer))
    }

    /// How many times as good `value` is as `other`: more is better for rates, less for everything else.
    fn gain(&self, value: f64, other: f64) -> f64 {
        if self.unit.ends_with("/s") {
            value / other
        } else {
            other / value
        }
    }
}

/// A number with three significant digits, and all of those before the point.
pub(crate) fn significant(number: f64) -> String {
    let before_point = if number == 0.0 {
        0.0
    } else {
        number.abs().log10().floor()
    };
    let decimals = (2.0 - before_point).max(0.0) as usize;
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn figure(unit: &str, value: f64, peers: Value) -> Figure {
        serde_json::from_value(json!({
            "id": "x", "value": value, "unit": unit, "limit": null, "peers": peers, "asked": "more", "holds": true,
        }))
        .unwrap()
    }

    fn no_figures() -> Value {
        json!({
            "schema": 1, "machine": { "device": "GPU" }, "date": "2026-01-01", "commit": "abc", "simulated": false,
            "quick": false, "link": { "h2d": 1.0, "d2h": 1.0, "both": 1.0 }, "figures": [],
        })
    }

    #[test]
    fn the_best_peer_is_the_fastest_in_rates_and_in_times() {
        let rate = figure("GB/s", 50.0, json!({ "slow": 5.0, "fast": 10.0, "absent": null }));
        assert_eq!(rate.best_peer(), Some(("fast", 10.0)));
        assert_eq!(rate.against_best_peer(), Some(5.0));
        let time = figure("ms", 0.5, json!({ "slow": 15.0, "fast": 10.0 }));
        assert_eq!(time.best_peer(), Some(("fast", 10.0)));
        assert_eq!(time.against_best_peer(), Some(20.0));
        assert_eq!(figure("ms", 0.5, json!({})).against_best_peer(), None);
    }

    #[test]
    fn a_figure_without_a_value_or_a_verdict_was_not_measured() {
        let mut figure = figure("ms", 0.5, json!({}));
        assert_eq!(figure.verdict(), Verdict::Holds);
        figure.holds = None;
        assert_eq!(figure.verdict(), Verdict::NotMeasured);
        (figure.holds, figure.value) = (Some(false), None);
        assert_eq!(figure.verdict(), Verdict::NotMeasured);
    }

    #[test]
    fn results_of_a_simulated_device_of_a_quick_run_and_of_another_schema_are_refused() {
        let results = no_figures();
        assert!(Results::parse(&results.to_string()).is_ok());
        for (key, value, reason) in [
            ("simulated", json!(true), "simulated device"),
            ("quick", json!(true), "quick run"),
            ("schema", json!(2), "schema is 2"),
        ] {
            let mut refused = results.clone();
            refused[key] = value;
            let error = Results::parse(&refused.to_string()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn results_of_a_run_in_which_bytes_landed_wrong_are_refused_and_other_failures_are_told() {
        let mut results = no_figures();
        results["failures"] = json!([
            { "id": "pool-ready", "kind": "not-measured", "error": "no memory may be pinned" },
            { "id": "py-import", "error": "torch is not installed" },
        ]);
        assert_eq!(Results::parse(&results.to_string()).unwrap().failures.len(), 2);
        results["failures"][1] = json!({
            "id": "h2d-pageable-4KiB-x1", "kind": "wrong-bytes", "error": "tensor 0 landed with wrong bytes",
        });
        let error = Results::parse(&results.to_string()).unwrap_err().to_string();
        assert!(error.contains("tensor 0 landed with wrong bytes"), "{error}");
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [52.345, 0.21449, 1234.5, 5.0, 0.0, 99.96].map(significant);
        assert_eq!(shown, ["52.3", "0.214", "1234", "5.00", "0.00", "100.0"]);
    }
}
