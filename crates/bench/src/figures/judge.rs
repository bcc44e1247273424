//! A figure, what is asked of it, and whether that holds.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::peers::Peers;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// 1e9 bytes each second; more is better.
    #[serde(rename = "GB/s")]
    GigabytesPerSecond,
    /// Less is better.
    #[serde(rename = "ms")]
    Milliseconds,
    /// A ratio to what it is set against; less is better.
    #[serde(rename = "x")]
    Times,
    /// Less is better.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Less is better.
    #[serde(rename = "%")]
    Percent,
}

impl Unit {
    /// Whether a larger value is the better one.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        self == Self::GigabytesPerSecond
    }

    /// `seconds` for `bytes` bytes, in this unit; `None` where the unit is of another kind.
    #[must_use]
    pub fn of_seconds(self, seconds: f64, bytes: usize) -> Option<f64> {
        match self {
            Self::GigabytesPerSecond => Some(bytes as f64 / seconds / 1e9),
            Self::Milliseconds => Some(seconds * 1e3),
            Self::Times | Self::Mebibytes | Self::Percent => None,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::GigabytesPerSecond => "GB/s",
            Self::Milliseconds => "ms",
            Self::Times => "x",
            Self::Mebibytes => "MiB",
            Self::Percent => "%",
        })
    }
}

/// One part of what is asked. A figure holds when every part does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    /// The value or more.
    AtLeast(f64),
    /// The value or less.
    AtMost(f64),
    /// This share of the limit, or more.
    OfLimit(f64),
    /// Better than the first of these peers that was measured, by this factor.
    Beats(f64, &'static [&'static str]),
    /// Something else that was found to hold or not.
    Also(&'static str, bool),
}

/// A figure that is not judged yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    pub(crate) limit: Option<f64>,
    pub(crate) peers: BTreeMap<String, f64>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) detail: String,
}

/// One number that pinlane is held to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name, which stays.
    pub id: String,
    /// What was measured.
    pub value: f64,
    /// What the value, the limit and the peers count.
    pub unit: Unit,
    /// What the hardware would allow, where there is such a limit.
    pub limit: Option<f64>,
    /// What others reach, by their names.
    pub peers: BTreeMap<String, f64>,
    /// What is asked, for people.
    pub asked: String,
    /// Whether all of it holds; `None` of a simulated device, which says nothing of what is asked of hardware.
    pub holds: Option<bool>,
    /// What else there is to say.
    pub detail: String,
}

impl Draft {
    pub(crate) fn new(value: f64, unit: Unit) -> Self {
        Self {
            value,
            unit,
            limit: None,
            peers: BTreeMap::new(),
            asked: Vec::new(),
            detail: String::new(),
        }
    }

    pub(crate) fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// A peer that was measured in this run.
    pub(crate) fn peer(mut self, name: &str, value: f64) -> Self {
        self.peers.insert(name.to_owned(), value);
        self
    }

    /// The peers of figure `id` that were measured elsewhere, moving `bytes` bytes.
    pub(crate) fn peers(mut self, peers: &Peers, id: &str, bytes: usize) -> Self {
        for (name, seconds) in peers.of(id) {
            if let Some(value) = self.unit.of_seconds(seconds, bytes) {
                self.peers.insert(name.to_owned(), value);
            }
        }
        self
    }

    pub(crate) fn asked(mut self, asked: impl IntoIterator<Item = Asked>) -> Self {
        self.asked.extend(asked);
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Judges it. A figure that is no number holds nothing.
    pub(crate) fn judge(self, id: &str) -> Figure {
        let texts: Vec<String> = self.asked.iter().map(|asked| self.text(asked)).collect();
        let holds = self.value.is_finite() && self.asked.iter().all(|asked| self.holds(asked));
        Figure {
            id: id.to_owned(),
            value: self.value,
            unit: self.unit,
            limit: self.limit,
            asked: texts.join("; "),
            holds: Some(holds),
            peers: self.peers,
            detail: self.detail,
        }
    }

    fn holds(&self, asked: &Asked) -> bool {
        match asked {
            Asked::AtLeast(least) => self.value >= *least,
            Asked::AtMost(most) => self.value <= *most,
            Asked::OfLimit(share) => self.limit.is_some_and(|limit| self.value >= share * limit),
            Asked::Beats(factor, names) => self.first_peer(names).is_some_and(|(_, peer)| {
                if self.unit.more_is_better() {
                    self.value >= factor * peer
                } else {
                    self.value * factor <= peer
                }
            }),
            Asked::Also(_, holds) => *holds,
        }
    }

    fn text(&self, asked: &Asked) -> String {
        match asked {
            Asked::AtLeast(least) => format!("at least {least} {}", self.unit),
            Asked::AtMost(most) => format!("at most {most} {}", self.unit),
            Asked::OfLimit(share) => format!("at least {share} of the limit"),
            Asked::Beats(factor, names) => match self.first_peer(names) {
                Some((name, _)) => format!("{factor} times better than {name}"),
                None => format!(
                    "{factor} times better than {}, which was not measured",
                    names.join(" or ")
                ),
            },
            Asked::Also(text, _) => (*text).to_owned(),
        }
    }

    fn first_peer<'n>(&self, names: &[&'n str]) -> Option<(&'n str, f64)> {
        names
            .iter()
            .find_map(|name| Some((*name, *self.peers.get(*name)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(value: f64) -> Draft {
        Draft::new(value, Unit::GigabytesPerSecond)
    }

    #[test]
    fn a_figure_holds_only_when_every_part_of_what_is_asked_does() {
        let asked = [Asked::OfLimit(0.95), Asked::Beats(5.5, &["torch_to", "plain_to"])];
        let judge = |value: f64, plain: f64| {
            let draft = rate(value).limit(55.0).peer("plain_to", plain);
            draft.asked(asked.clone()).judge("id").holds == Some(true)
        };
        assert!(judge(52.5, 9.5));
        assert!(!judge(52.0, 9.0), "below 0.95 of the limit");
        assert!(!judge(52.5, 9.6), "not 5.5 times the peer");
    }

    #[test]
    fn the_first_named_peer_that_was_measured_counts_and_is_named() {
        let draft = rate(50.0).peer("plain_to", 100.0).peer("torch_to", 10.0);
        let figure = draft
            .asked([Asked::Beats(5.0, &["torch_to", "plain_to"])])
            .judge("id");
        assert_eq!(figure.holds, Some(true));
        assert_eq!(figure.asked, "5 times better than torch_to");
        let alone = rate(50.0).asked([Asked::Beats(5.0, &["torch_to"])]).judge("id");
        assert_eq!(alone.holds, Some(false));
        assert!(alone.asked.contains("not measured"));
    }

    #[test]
    fn a_shorter_time_is_the_better_one() {
        let time = |value: f64| {
            let draft = Draft::new(value, Unit::Milliseconds).peer("plain", 9.9);
            draft
                .asked([Asked::AtMost(0.22), Asked::Beats(45.0, &["plain"])])
                .judge("id")
                .holds
                == Some(true)
        };
        assert!(time(0.22));
        assert!(!time(0.221), "45 times 0.221 is above 9.9");
        assert!(!time(0.3));
    }

    #[test]
    fn a_missing_limit_a_false_condition_or_no_number_holds_nothing() {
        let holds = |draft: Draft| draft.judge("id").holds == Some(true);
        assert!(!holds(rate(50.0).asked([Asked::OfLimit(0.1)])));
        let also = [Asked::AtLeast(1.0), Asked::Also("idle", false)];
        assert!(!holds(rate(50.0).asked(also)));
        assert!(!holds(rate(f64::NAN)));
        assert!(holds(rate(48.0).asked([Asked::AtLeast(48.0)])));
    }

    #[test]
    fn seconds_become_the_unit_of_the_figure() {
        assert_eq!(Unit::GigabytesPerSecond.of_seconds(0.5, 1_000_000_000), Some(2.0));
        assert_eq!(Unit::Milliseconds.of_seconds(0.5, 7), Some(500.0));
        assert_eq!(Unit::Times.of_seconds(0.5, 7), None);
    }
}
