//! The table of operations: how often each was called, and where the time went.
//!
//! A step's *total* time is its own with that of the steps within it, on the same thread; its *self* time is without.

use std::{collections::HashMap, fmt};

use serde::Serialize;

use super::collected::{HostSpan, Thread};
use crate::units;

/// One line of an operation table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// The operation's name.
    pub name: String,
    /// Time in it without its children, in seconds.
    pub self_seconds: f64,
    /// Time in it with its children, in seconds.
    pub total_seconds: f64,
    /// How often it was called.
    pub calls: u64,
}

/// What was done, how often, and where the time went; the longest self time first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OperationTable {
    /// The lines.
    pub operations: Vec<Operation>,
}

impl OperationTable {
    pub(super) fn of(threads: &[Thread]) -> Self {
        let mut lines: HashMap<&'static str, Operation> = HashMap::new();
        for thread in threads {
            for (span, self_seconds) in self_times(&thread.spans) {
                let line = lines.entry(span.name).or_insert_with(|| Operation {
                    name: span.name.to_owned(),
                    self_seconds: 0.0,
                    total_seconds: 0.0,
                    calls: 0,
                });
                line.self_seconds += self_seconds;
                line.total_seconds += span.seconds();
                line.calls += 1;
            }
        }
        let mut operations: Vec<_> = lines.into_values().collect();
        operations.sort_by(|a, b| {
            b.self_seconds
                .total_cmp(&a.self_seconds)
                .then_with(|| a.name.cmp(&b.name))
        });
        Self { operations }
    }

    /// The line of that name, if there was such an operation.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.name == name)
    }

    /// The number of calls of the operation of that name.
    #[must_use]
    pub fn calls(&self, name: &str) -> u64 {
        self.get(name).map_or(0, |operation| operation.calls)
    }

    /// The self times of all lines together, in seconds: the time that threads spent in operations.
    #[must_use]
    pub fn self_seconds(&self) -> f64 {
        self.operations
            .iter()
            .map(|operation| operation.self_seconds)
            // The sum of none is minus zero.
            .fold(0.0, |sum, seconds| sum + seconds)
    }
}

/// Each step of one thread with its time in seconds without that of the steps within it. They come in the order in which they
/// ended.
fn self_times(spans: &[HostSpan]) -> impl Iterator<Item = (&HostSpan, f64)> {
    // Steps that have ended and lie in none yet that has.
    let mut ended: Vec<&HostSpan> = Vec::new();
    spans.iter().map(move |span| {
        let mut within = 0.0;
        while let Some(inner) = ended.pop_if(|inner| inner.start >= span.start) {
            within += inner.seconds();
        }
        ended.push(span);
        (span, (span.seconds() - within).max(0.0))
    })
}

impl fmt::Display for OperationTable {
    /// As a table of text, with the share of all self time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.self_seconds();
        let percent = |seconds: f64| {
            let share = if whole > 0.0 { seconds / whole } else { 0.0 };
            format!("{:.2}%", 100.0 * share)
        };
        let longest = self.operations.iter().map(|operation| operation.name.len());
        let width = longest.max().unwrap_or(0).max("Name".len());
        let row = |f: &mut fmt::Formatter<'_>, name: &str, cells: [&str; 6]| {
            write!(f, "{name:<width$}")?;
            cells.iter().try_for_each(|cell| write!(f, "  {cell:>10}"))?;
            writeln!(f)
        };
        row(
            f,
            "Name",
            ["Self %", "Self", "Total %", "Total", "Average", "# of Calls"],
        )?;
        for operation in &self.operations {
            row(
                f,
                &operation.name,
                [
                    &percent(operation.self_seconds),
                    &units::time(operation.self_seconds),
                    &percent(operation.total_seconds),
                    &units::time(operation.total_seconds),
                    &units::time(operation.total_seconds / operation.calls as f64),
                    &operation.calls.to_string(),
                ],
            )?;
        }
        write!(f, "Self time total: {}", units::time(whole))
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::sync::Duration;

    use super::*;

    #[test]
    fn a_table_of_nothing_took_no_time() {
        let shown = OperationTable::of(&[]).to_string();
        assert!(shown.ends_with("Self time total: 0.00 ns"), "{shown}");
    }

    fn span(name: &'static str, start: u64, end: u64) -> HostSpan {
        HostSpan {
            name,
            start: Duration::from_millis(start),
            end: Duration::from_millis(end),
            bytes: None,
            route: None,
            lane: None,
        }
    }

    fn thread(spans: Vec<HostSpan>) -> Thread {
        Thread {
            number: 1,
            name: None,
            spans,
        }
    }

    fn line(table: &OperationTable, name: &str) -> (u64, u64, u64) {
        let operation = table.get(name).unwrap();
        let millis = |seconds: f64| (seconds * 1e3).round() as u64;
        (
            operation.calls,
            millis(operation.self_seconds),
            millis(operation.total_seconds),
        )
    }

    #[test]
    fn a_parent_s_self_time_is_its_total_without_its_children() {
        let table = OperationTable::of(&[thread(vec![
            span("fill", 12, 20),
            span("copy", 10, 40),
            span("wait", 50, 90),
            span("to", 0, 100),
            span("copy", 110, 120),
        ])]);
        assert_eq!(line(&table, "fill"), (1, 8, 8));
        assert_eq!(line(&table, "copy"), (2, 32, 40));
        assert_eq!(line(&table, "to"), (1, 30, 100));
        assert_eq!(table.operations[0].name, "wait");
    }

    #[test]
    fn steps_of_another_thread_are_no_children() {
        let threads = [
            thread(vec![span("to", 0, 100)]),
            thread(vec![span("copy", 10, 40)]),
        ];
        assert_eq!(line(&OperationTable::of(&threads), "to"), (1, 100, 100));
    }

    #[test]
    fn the_table_shows_shares_of_all_self_time() {
        let table = OperationTable::of(&[thread(vec![
            span("copy", 0, 1),
            span("copy", 1, 2),
            span("to", 0, 8),
        ])]);
        let text = table.to_string();
        for expected in [
            "# of Calls",
            "75.00%",
            "100.00%",
            "1.00 ms",
            "Self time total: 8.00 ms",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }
}
