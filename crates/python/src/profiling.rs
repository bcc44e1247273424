//! What the engine does, for a profile: the spans that it opens while one is taken.
//!
//! A span is a stretch of work on one thread: a plan, a slot being filled, copies being handed to the driver, a wait. While no
//! profile is taken, no span is wanted, and the engine's own check for that is all that is left: one load for each.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use pyo3::prelude::*;
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::LookupSpan,
};

use crate::errors;

/// Whether a profile is being taken.
static IS_WANTED: AtomicBool = AtomicBool::new(false);
/// What was seen of it so far; `None` while none is taken.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

struct Taken {
    began: Instant,
    spans: Vec<Seen>,
}

/// A span that has ended: its name, the thread's number and name, when it began and how long it took in microseconds, and what
/// it says of itself.
type Seen = (&'static str, u32, Option<String>, f64, f64, Fields);

type Fields = BTreeMap<&'static str, String>;

fn taken() -> MutexGuard<'static, Option<Taken>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to collect spans.
#[pyfunction]
pub(crate) fn start_profile(py: Python<'_>) -> PyResult<()> {
    static LISTENS: OnceLock<bool> = OnceLock::new();
    let listens = LISTENS.get_or_init(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Listener)).is_ok()
    });
    let mut taken = taken();
    if !listens || taken.is_some() {
        // Raising runs Python code.
        drop(taken);
        let message = "taking a profile: one is being taken already, and there is one at a time";
        return Err(errors::raise(py, "Error", message));
    }
    *taken = Some(Taken {
        began: Instant::now(),
        spans: Vec::new(),
    });
    drop(taken);
    want(true);
    Ok(())
}

/// Ends collecting; gives what was collected, in the order in which it ended.
#[pyfunction]
pub(crate) fn stop_profile() -> Vec<Seen> {
    want(false);
    taken().take().map_or_else(Vec::new, |taken| taken.spans)
}

fn want(is_wanted: bool) {
    IS_WANTED.store(is_wanted, Ordering::SeqCst);
    // Every place in the code that opens spans remembers whether they are wanted.
    tracing::callsite::rebuild_interest_cache();
}

/// Writes down spans as they end.
struct Listener;

/// What is known of a span while it is open.
struct Open {
    fields: Fields,
    /// When it was entered, while it is.
    entered: Option<Instant>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        if IS_WANTED.load(Ordering::SeqCst) {
            Some(LevelFilter::DEBUG)
        } else {
            Some(LevelFilter::OFF)
        }
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Written(Fields::new());
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Open {
                fields: fields.0,
                entered: None,
            });
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            let mut fields = Written(std::mem::take(&mut open.fields));
            values.record(&mut fields);
            open.fields = fields.0;
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            open.entered = Some(Instant::now());
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let now = Instant::now();
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(open) = extensions.get_mut::<Open>() else {
            return;
        };
        let Some(entered) = open.entered.take() else {
            return;
        };
        if let Some(taken) = taken().as_mut() {
            let microseconds =
                |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e6;
            let (number, name) = this_thread();
            taken.spans.push((
                span.name(),
                number,
                name,
                microseconds(taken.began, entered),
                microseconds(entered, now),
                open.fields.clone(),
            ));
        }
    }
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("pinlane") && IS_WANTED.load(Ordering::SeqCst)
}

/// The system's number of this thread, and its name if it is one of the engine's.
fn this_thread() -> (u32, Option<String>) {
    let number = rustix::thread::gettid().as_raw_nonzero().get();
    let name = std::thread::current().name().map(str::to_owned);
    (number.unsigned_abs(), name)
}

/// Writes the values of a span's fields down.
struct Written(Fields);

impl Visit for Written {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
