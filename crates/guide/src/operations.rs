//! The table of operations: how often each was called, and where the time went.
//!
//! A [`Recorder`] is a layer for `tracing`. Each thread keeps a stack of the spans that it has entered; when a span is
//! left, its duration counts as *total* time of its name, and what its children did not take counts as *self* time.
//! The engine's spans (plan, allocate, fill, copy, wait) and those of the guide's own ways carry the same names, so
//! their tables compare line by line. While nothing records, a span costs one relaxed load.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tracing::{Metadata, Subscriber, span, subscriber::Interest};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::LookupSpan,
};

use crate::units;

/// The time and calls of all spans of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    calls: u64,
    total: Duration,
    own: Duration,
}

/// A span that its thread is in.
struct Frame {
    span: span::Id,
    name: &'static str,
    entered: Instant,
    in_children: Duration,
}

thread_local! {
    static STACK: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

#[derive(Default)]
struct Shared {
    recording: AtomicBool,
    tallies: Mutex<HashMap<&'static str, Tally>>,
}

impl Shared {
    fn tallies(&self) -> MutexGuard<'_, HashMap<&'static str, Tally>> {
        // A tally is whole at every statement, so a panic elsewhere does not spoil it.
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes operation tables of the spans that enter while it records. Clones record into the same tables.
#[derive(Clone, Default)]
pub struct Recorder {
    shared: Arc<Shared>,
}

impl Recorder {
    /// A recorder that the whole process reports to.
    ///
    /// # Errors
    ///
    /// When the process has a `tracing` subscriber already.
    pub fn install() -> Result<Self, tracing::subscriber::SetGlobalDefaultError> {
        let recorder = Self::default();
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(recorder.layer()))?;
        Ok(recorder)
    }

    /// The layer that feeds this recorder.
    #[must_use]
    pub fn layer(&self) -> OperationLayer {
        OperationLayer {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Runs `work` and returns what it returned with the table of the operations in it, of all threads.
    ///
    /// One recording at a time: a second one from another thread would mix its operations in.
    pub fn record<T>(&self, work: impl FnOnce() -> T) -> (T, OperationTable) {
        self.shared.tallies().clear();
        self.shared.recording.store(true, Ordering::Relaxed);
        let result = work();
        self.shared.recording.store(false, Ordering::Relaxed);
        let tallies = std::mem::take(&mut *self.shared.tallies());
        (result, OperationTable::of(tallies))
    }
}

/// Feeds a [`Recorder`]; see [`Recorder::layer`].
pub struct OperationLayer {
    shared: Arc<Shared>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for OperationLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // "Sometimes" makes `enabled` decide each time: recording goes on and off.
        if metadata.is_span() && metadata.target().starts_with("pinlane") {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, _: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.shared.recording.load(Ordering::Relaxed)
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        STACK.with_borrow_mut(|stack| {
            stack.push(Frame {
                span: id.clone(),
                name: span.name(),
                entered: Instant::now(),
                in_children: Duration::ZERO,
            });
        });
    }

    fn on_exit(&self, id: &span::Id, _: Context<'_, S>) {
        let now = Instant::now();
        let Some((name, tally)) = STACK.with_borrow_mut(|stack| leave(stack, id, now)) else {
            return;
        };
        let mut tallies = self.shared.tallies();
        let sum = tallies.entry(name).or_default();
        sum.calls += tally.calls;
        sum.total += tally.total;
        sum.own += tally.own;
    }
}

/// Takes the span off the stack and tells its parent how long it took. A span that was not entered is ignored.
fn leave(stack: &mut Vec<Frame>, id: &span::Id, now: Instant) -> Option<(&'static str, Tally)> {
    let place = stack.iter().rposition(|frame| &frame.span == id)?;
    let frame = stack.remove(place);
    let total = now.duration_since(frame.entered);
    if let Some(parent) = place.checked_sub(1) {
        stack[parent].in_children += total;
    }
    let own = total.saturating_sub(frame.in_children);
    Some((frame.name, Tally { calls: 1, total, own }))
}

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
    fn of(tallies: HashMap<&'static str, Tally>) -> Self {
        let mut operations: Vec<_> = tallies
            .into_iter()
            .map(|(name, tally)| Operation {
                name: name.to_owned(),
                self_seconds: tally.own.as_secs_f64(),
                total_seconds: tally.total.as_secs_f64(),
                calls: tally.calls,
            })
            .collect();
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
            .sum()
    }

    /// The table as text.
    #[must_use]
    pub fn render(&self) -> String {
        let whole = self.self_seconds();
        let percent = |seconds: f64| {
            let share = if whole > 0.0 { seconds / whole } else { 0.0 };
            format!("{:.2}%", 100.0 * share)
        };
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "Name",
            "Self %",
            "Self",
            "Total %",
            "Total",
            "Average",
            "# of Calls",
        ]);
        for operation in &self.operations {
            table.add_row([
                operation.name.clone(),
                percent(operation.self_seconds),
                units::time(operation.self_seconds),
                percent(operation.total_seconds),
                units::time(operation.total_seconds),
                units::time(operation.total_seconds / operation.calls as f64),
                operation.calls.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\nSelf time total: {}", units::time(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(span: u64, name: &'static str, entered: Instant) -> Frame {
        Frame {
            span: span::Id::from_u64(span),
            name,
            entered,
            in_children: Duration::ZERO,
        }
    }

    #[test]
    fn a_parent_s_self_time_is_its_total_without_its_children() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut stack = vec![frame(1, "to", at(0)), frame(2, "copy", at(10))];
        let (name, copy) = leave(&mut stack, &span::Id::from_u64(2), at(40)).unwrap();
        assert_eq!(
            (name, copy.total, copy.own),
            ("copy", Duration::from_millis(30), Duration::from_millis(30))
        );
        stack.push(frame(3, "wait", at(50)));
        leave(&mut stack, &span::Id::from_u64(3), at(90)).unwrap();
        let (name, to) = leave(&mut stack, &span::Id::from_u64(1), at(100)).unwrap();
        assert_eq!(
            (name, to.total, to.own),
            ("to", Duration::from_millis(100), Duration::from_millis(30))
        );
        assert!(stack.is_empty());
    }

    #[test]
    fn leaving_a_span_that_was_not_entered_changes_nothing() {
        let mut stack = vec![frame(1, "to", Instant::now())];
        assert!(leave(&mut stack, &span::Id::from_u64(7), Instant::now()).is_none());
        assert_eq!(stack.len(), 1);
    }

    #[test]
    fn spans_of_all_threads_are_counted_while_recording_and_none_otherwise() {
        let recorder = Recorder::default();
        let subscriber = Arc::new(tracing_subscriber::registry().with(recorder.layer()));
        let work = || {
            let _outer = tracing::trace_span!("to").entered();
            for _ in 0..3 {
                let _inner = tracing::trace_span!("copy", bytes = 4).entered();
            }
        };
        tracing::subscriber::with_default(Arc::clone(&subscriber), || {
            work();
            let ((), table) = recorder.record(|| {
                work();
                std::thread::scope(|scope| {
                    scope.spawn(|| tracing::subscriber::with_default(Arc::clone(&subscriber), work));
                });
            });
            work();
            assert_eq!(
                (table.calls("to"), table.calls("copy"), table.calls("wait")),
                (2, 6, 0)
            );
            let (to, copy) = (table.get("to").unwrap(), table.get("copy").unwrap());
            assert!(to.total_seconds >= copy.total_seconds);
            assert!((to.total_seconds - copy.total_seconds - to.self_seconds).abs() < 1e-9);
        });
    }

    #[test]
    fn the_table_shows_shares_of_all_self_time() {
        let table = OperationTable {
            operations: vec![
                Operation {
                    name: "to".into(),
                    self_seconds: 0.003,
                    total_seconds: 0.004,
                    calls: 1,
                },
                Operation {
                    name: "copy".into(),
                    self_seconds: 0.001,
                    total_seconds: 0.001,
                    calls: 2,
                },
            ],
        };
        let text = table.render();
        for expected in [
            "# of Calls",
            "75.00%",
            "100.00%",
            "500.00 us",
            "Self time total: 4.00 ms",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }
}
