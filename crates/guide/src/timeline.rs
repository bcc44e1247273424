//! Intervals of time on a device: how much they overlap, and what they look like.

use serde::Serialize;

/// Named intervals on one time axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// What was tried.
    pub title: String,
    /// What ran, each in a row of its own.
    pub bars: Vec<Bar>,
}

/// Something that ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// What it was.
    pub name: String,
    /// When.
    #[serde(flatten)]
    pub interval: Interval,
}

/// When something began and ended, in seconds from a common origin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// When it began.
    #[serde(rename = "start_seconds")]
    pub start: f64,
    /// When it ended.
    #[serde(rename = "end_seconds")]
    pub end: f64,
}

impl Interval {
    fn length(self) -> f64 {
        (self.end - self.start).max(0.0)
    }

    /// How much of the shorter of the two lies within the longer: from 0, one after the other, to 1.
    #[must_use]
    pub(crate) fn overlap(self, other: Self) -> f64 {
        let shorter = self.length().min(other.length());
        let both = Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        if shorter > 0.0 {
            (both.length() / shorter).min(1.0)
        } else {
            0.0
        }
    }
}

/// How many characters the time axis has.
const COLUMNS: f64 = 60.0;

impl Timeline {
    /// Names the intervals.
    #[must_use]
    pub fn new(title: impl Into<String>, bars: &[(&str, Interval)]) -> Self {
        let bar = |&(name, interval): &(&str, Interval)| Bar {
            name: name.to_owned(),
            interval,
        };
        Self {
            title: title.into(),
            bars: bars.iter().map(bar).collect(),
        }
    }

    /// Draws each interval as a bar of characters over one time axis.
    #[must_use]
    pub fn draw(&self) -> String {
        let bars: Vec<_> = self
            .bars
            .iter()
            .map(|bar| (bar.name.as_str(), bar.interval))
            .collect();
        draw(&self.title, &bars)
    }
}

fn draw(title: &str, bars: &[(&str, Interval)]) -> String {
    let end = bars.iter().map(|(_, bar)| bar.end).fold(0.0, f64::max);
    let column = |seconds: f64| {
        if end > 0.0 {
            (seconds.max(0.0) / end * COLUMNS).round() as usize
        } else {
            0
        }
    };
    let width = bars.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = bars.iter().map(|(name, bar)| {
        let (from, to) = (column(bar.start), column(bar.end));
        let (before, during) = (" ".repeat(from), "#".repeat((to - from.min(to)).max(1)));
        let axis = COLUMNS as usize + 1;
        format!("  {name:<width$} |{:<axis$}|", format!("{before}{during}"))
    });
    let scale = format!("  {:<width$}  0{:>60}", "", crate::units::time(end));
    std::iter::once(title.to_owned())
        .chain(lines)
        .chain(std::iter::once(scale))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: f64, end: f64) -> Interval {
        Interval { start, end }
    }

    #[test]
    fn the_overlap_is_the_share_of_the_shorter_one() {
        assert_eq!(interval(0.0, 4.0).overlap(interval(1.0, 2.0)), 1.0);
        assert_eq!(interval(0.0, 4.0).overlap(interval(3.0, 5.0)), 0.5);
        assert_eq!(interval(0.0, 4.0).overlap(interval(4.0, 5.0)), 0.0);
        assert_eq!(interval(0.0, 4.0).overlap(interval(6.0, 7.0)), 0.0);
        assert_eq!(interval(0.0, 4.0).overlap(interval(1.0, 1.0)), 0.0);
    }

    #[test]
    fn bars_are_drawn_to_scale() {
        let drawn = draw(
            "two",
            &[("compute", interval(0.5, 1.0)), ("copy", interval(0.0, 0.5))],
        );
        let lines: Vec<_> = drawn.lines().collect();
        assert_eq!(lines[0], "two");
        assert_eq!(
            lines[1],
            format!("  compute |{}{} |", " ".repeat(30), "#".repeat(30))
        );
        assert_eq!(
            lines[2],
            format!("  copy    |{}{}|", "#".repeat(30), " ".repeat(31))
        );
        assert!(lines[3].ends_with("1.00 s"));
    }

    #[test]
    fn nothing_at_all_can_be_drawn() {
        assert_eq!(draw("none", &[]).lines().count(), 2);
    }
}
