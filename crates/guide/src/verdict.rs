//! Judging a claim by what was measured.
//!
//! A claim of the guide is judged as one or several comparisons. Two times differ only when their ratio leaves the noise
//! margin and their quartiles do not overlap; a claim holds when all of its comparisons do, and fails when all fail; anything else depends.

use std::fmt;

use serde::Serialize;

use crate::timer::Measurement;

/// Ratios within this much of 1 are noise.
pub const NOISE_MARGIN: f64 = 0.05;

/// What this machine says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It is so here.
    #[serde(rename = "holds")]
    Holds,
    /// It is not so here.
    #[serde(rename = "does not hold")]
    DoesNotHold,
    /// It is so in part, or the difference is within the noise.
    #[serde(rename = "depends")]
    Depends,
}

impl Verdict {
    /// The verdict on "the first takes less time than the second", from how many times as long the second takes.
    #[must_use]
    pub fn of_speedup(speedup: f64) -> Self {
        if speedup > 1.0 + NOISE_MARGIN {
            Self::Holds
        } else if speedup < 1.0 - NOISE_MARGIN {
            Self::DoesNotHold
        } else {
            Self::Depends
        }
    }

    /// The verdict on a statement of fact.
    #[must_use]
    pub fn of_fact(so: bool) -> Self {
        if so { Self::Holds } else { Self::DoesNotHold }
    }

    /// The verdict on a claim that says each of `parts`: theirs where they agree, else it depends.
    #[must_use]
    pub fn of_parts(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else {
            return Self::Depends;
        };
        if parts.all(|part| part == first) {
            first
        } else {
            Self::Depends
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::Depends => "depends",
        })
    }
}

/// A verdict with the figures that it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What this machine says.
    pub verdict: Verdict,
    /// Why, with figures.
    pub reason: String,
}

impl Judgement {
    /// A verdict and its reason.
    #[must_use]
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            reason: reason.into(),
        }
    }

    /// Judges "`fast` takes less time than `slow`". `about` says what was compared.
    ///
    /// The medians decide, unless the middle halves of both measurements overlap: then it depends.
    #[must_use]
    pub fn faster(about: &str, fast: &Measurement, slow: &Measurement) -> Self {
        let speedup = slow.median_seconds / fast.median_seconds;
        let apart = fast.third_quartile_seconds < slow.first_quartile_seconds
            || slow.third_quartile_seconds < fast.first_quartile_seconds;
        if apart {
            Self::new(Verdict::of_speedup(speedup), format!("{about} {speedup:.2}x"))
        } else {
            Self::new(
                Verdict::Depends,
                format!("{about} {speedup:.2}x (quartiles overlap)"),
            )
        }
    }

    /// Judges a claim that says each of `parts`; the reasons are joined.
    #[must_use]
    pub fn of_parts(parts: &[Self]) -> Self {
        let reasons: Vec<_> = parts.iter().map(|part| part.reason.as_str()).collect();
        Self::new(
            Verdict::of_parts(parts.iter().map(|part| part.verdict)),
            reasons.join("; "),
        )
    }

    /// Says ahead of the reason what it is about.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.reason = format!("{what}: {}", self.reason);
        self
    }

    /// Adds to the reason without changing the verdict.
    #[must_use]
    pub fn because(mut self, more: &str) -> Self {
        self.reason = format!("{}; {more}", self.reason);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(median: f64) -> Measurement {
        Measurement::of_samples(vec![median], 1)
    }

    #[test]
    fn a_ratio_within_the_noise_margin_depends() {
        assert_eq!(Verdict::of_speedup(1.06), Verdict::Holds);
        assert_eq!(Verdict::of_speedup(1.04), Verdict::Depends);
        assert_eq!(Verdict::of_speedup(1.0), Verdict::Depends);
        assert_eq!(Verdict::of_speedup(0.96), Verdict::Depends);
        assert_eq!(Verdict::of_speedup(0.94), Verdict::DoesNotHold);
    }

    #[test]
    fn a_figure_that_is_not_a_number_decides_nothing() {
        assert_eq!(Verdict::of_speedup(f64::NAN), Verdict::Depends);
    }

    #[test]
    fn a_claim_of_several_parts_needs_them_to_agree() {
        use Verdict::{Depends, DoesNotHold, Holds};
        assert_eq!(Verdict::of_parts([Holds, Holds]), Holds);
        assert_eq!(Verdict::of_parts([DoesNotHold, DoesNotHold]), DoesNotHold);
        assert_eq!(Verdict::of_parts([Holds, DoesNotHold]), Depends);
        assert_eq!(Verdict::of_parts([Holds, Depends]), Depends);
        assert_eq!(Verdict::of_parts([]), Depends);
    }

    #[test]
    fn medians_apart_decide_nothing_while_the_quartiles_overlap() {
        let steady = Measurement::of_samples(vec![1.0, 1.0, 1.1, 1.1], 1);
        let shaky = Measurement::of_samples(vec![0.9, 1.0, 1.5, 1.6], 1);
        let judgement = Judgement::faster("", &steady, &shaky);
        assert_eq!(judgement.verdict, Verdict::Depends);
        assert!(judgement.reason.contains("quartiles overlap"));
    }

    #[test]
    fn a_judgement_carries_the_figures() {
        let judgement = Judgement::of_parts(&[
            Judgement::faster("pinned, 1 MiB", &seconds(1.0), &seconds(2.0)),
            Judgement::faster("pinned, 16 MiB", &seconds(1.0), &seconds(1.5)),
        ]);
        assert_eq!(judgement.verdict, Verdict::Holds);
        assert_eq!(judgement.reason, "pinned, 1 MiB 2.00x; pinned, 16 MiB 1.50x");
    }
}
