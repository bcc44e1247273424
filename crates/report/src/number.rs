//! Numbers as people read them, and scales with round numbers on them.

/// A number with three digits that count: `1240`, `55.0`, `0.304`.
pub(crate) fn significant(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size == 0.0 => 0,
        _ if size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ => (2 - size.log10().floor() as i32).clamp(0, 9) as usize,
    };
    format!("{value:.digits$}")
}

/// The same without zeros at the end, for the marks of an axis, which has little room: `1e-5` for what would be longer.
pub(crate) fn mark(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let text = significant(value);
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}

/// How an axis counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Evenly from 0 to the given end.
    Linear(f64),
    /// By factors, between two ends.
    Log(f64, f64),
}

impl Scale {
    /// An even scale from 0 that ends on a round number at or above `most`.
    pub(crate) fn up_to(most: f64) -> Self {
        if !(most.is_finite() && most > 0.0) {
            return Self::Linear(1.0);
        }
        let step = step(most);
        Self::Linear((most / step - 1e-9).ceil().max(1.0) * step)
    }

    /// A scale of factors, a little wider than the values; `None` where none of them is positive.
    pub(crate) fn around(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            least = least.min(value);
            most = most.max(value);
        }
        (most > 0.0).then(|| {
            // One value still needs a width.
            let (least, most) = if most / least < 1.5 {
                (least / 2.0, most * 2.0)
            } else {
                (least, most)
            };
            Self::Log(least, most)
        })
    }

    /// Where a value is, as a share of the whole axis; what lies beyond an end is at it.
    pub(crate) fn place(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear(end) => value / end,
            Self::Log(least, most) => (value / least).ln() / (most / least).ln(),
        };
        if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        }
    }

    /// Round values on it: of a scale of factors, powers of `base`, thinned to `most` of them.
    pub(crate) fn marks(self, base: f64, most: usize) -> Vec<f64> {
        match self {
            Self::Linear(end) => {
                let step = step(end);
                let count = (end / step).round() as usize;
                (0..=count).map(|place| place as f64 * step).collect()
            }
            Self::Log(least, end) => {
                let first = (least.ln() / base.ln() - 1e-9).ceil() as i32;
                let last = (end.ln() / base.ln() + 1e-9).floor() as i32;
                let count = (last - first + 1).max(1) as usize;
                let each = count.div_ceil(most.max(1)).max(1);
                (first..=last)
                    .step_by(each)
                    .map(|power| base.powi(power))
                    .collect()
            }
        }
    }
}

/// A round step of which four to eight make up `most`.
fn step(most: f64) -> f64 {
    let rough = most / 5.0;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0];
    let found = nice.into_iter().find(|nice| nice * magnitude >= rough * 0.999);
    found.unwrap_or(10.0) * magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (1240.4, "1240"),
            (55.04, "55.0"),
            (7.5, "7.50"),
            (0.30351, "0.304"),
            (0.0, "0"),
        ] {
            assert_eq!(significant(value), text);
        }
        assert_eq!(mark(20.0), "20");
        assert_eq!(mark(0.5), "0.5");
        assert_eq!(mark(1000.0), "1000");
        assert_eq!(mark(3.0 * 1e-5), "3e-5");
        assert_eq!(mark(2.5e-4), "2.5e-4");
    }

    #[test]
    fn an_even_scale_ends_on_a_round_number_and_has_a_handful_of_marks() {
        for most in [0.37, 1.0, 9.99, 55.0, 12_345.0] {
            let scale = Scale::up_to(most);
            let marks = scale.marks(10.0, 6);
            assert!((3..=9).contains(&marks.len()), "{most}: {marks:?}");
            assert!(*marks.last().unwrap() >= most * 0.999, "{most}: {marks:?}");
            assert!(scale.place(most) <= 1.0 && scale.place(most) > 0.5);
        }
    }

    #[test]
    fn a_scale_of_factors_has_powers_as_marks() {
        let scale = Scale::around([4.0, 1024.0].into_iter()).unwrap();
        assert_eq!(scale.place(4.0), 0.0);
        assert_eq!(scale.place(64.0), 0.5);
        assert_eq!(scale.marks(4.0, 9), [4.0, 16.0, 64.0, 256.0, 1024.0]);
        assert_eq!(scale.marks(4.0, 3), [4.0, 64.0, 1024.0]);
        assert!(Scale::around([0.0, f64::NAN].into_iter()).is_none());
    }
}
