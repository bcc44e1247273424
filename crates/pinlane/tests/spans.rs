//! What a subscriber of `tracing` hears of a transfer: which operations, with how many bytes, by which route, on
//! which lane. A table of operations is only as true as these.

#![cfg(not(shuttle))]

mod rig;

use std::{
    fmt, mem,
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use pinlane::{DType, Device, DeviceOptions, Profile, Route, Tensor, TransferOptions, Tree};
use rig::{Rig, pattern, small_engine};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::LookupSpan,
};

const SLOT: usize = 4096;
const LANES: usize = 2;
/// Tensors so small that several share a slot, and so many that they take several slots.
const LEAVES: usize = 40;
const LEAF: usize = 500;
const BYTES: u64 = (LEAVES * LEAF) as u64;

/// A span of the engine, as far as it says anything.
#[derive(Debug, Default)]
struct Span {
    name: &'static str,
    bytes: Option<u64>,
    lane: Option<u64>,
    route: Option<String>,
}

impl Visit for Span {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "bytes" => self.bytes = Some(value),
            "lane" => self.lane = Some(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "route" {
            self.route = Some(format!("{value:?}"));
        }
    }
}

/// The engine's spans that have ended, of all threads.
static ENDED: Mutex<Vec<Span>> = Mutex::new(Vec::new());

fn ended() -> MutexGuard<'static, Vec<Span>> {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what each span says in the span itself, and puts it among [`ENDED`] when the span ends.
struct Recorder;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if !attributes.metadata().target().starts_with("pinlane") {
            return;
        }
        let mut span = Span {
            name: attributes.metadata().name(),
            ..Span::default()
        };
        attributes.record(&mut span);
        context.span(id).unwrap().extensions_mut().insert(span);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id).unwrap().extensions_mut().get_mut::<Span>() {
            values.record(span);
        }
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        ended().extend(context.span(&id).unwrap().extensions_mut().remove::<Span>());
    }
}

/// Listens to the whole process, since lanes have threads of their own. While one test holds it, no other moves
/// anything.
struct Listener {
    _turn: MutexGuard<'static, ()>,
}

impl Listener {
    /// Waits for the turn of the test.
    fn start() -> Self {
        static INSTALL: Once = Once::new();
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        INSTALL.call_once(|| {
            let subscriber = tracing_subscriber::registry().with(Recorder);
            tracing::subscriber::set_global_default(subscriber).unwrap();
        });
        Self { _turn: turn }
    }

    /// What `work` returned, and the spans of the engine that ended meanwhile.
    fn record<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<Span>) {
        ended().clear();
        let result = work();
        (result, mem::take(&mut *ended()))
    }
}

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Caller,
    Lanes,
}

/// A device whose work is done by its lanes, or as far as possible by the caller.
fn rig(by: By) -> Rig {
    let probe = Rig::new(1, &DeviceOptions::default());
    let mut profile = Profile::assumed(probe.device().driver().unwrap().properties());
    profile.inline_bytes = match by {
        By::Caller => BYTES as usize,
        By::Lanes => 0,
    };
    let options = DeviceOptions {
        pinned_budget: Some(1 << 20),
        profile: Some(profile),
        ..small_engine(LANES, 2, SLOT)
    };
    Rig::new(2, &options)
}

fn tree(rig: &Rig, pinned: bool) -> Vec<Tensor> {
    let tensors: Vec<_> = (0..LEAVES)
        .map(|seed| Tensor::from_bytes(pattern(LEAF, seed), DType::U8, &[LEAF]).unwrap())
        .collect();
    if pinned {
        tensors.pin_memory(rig.device()).unwrap()
    } else {
        tensors
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn total(spans: &[&Span]) -> u64 {
    let bytes = spans
        .iter()
        .map(|span| span.bytes.expect("every operation says how many bytes"));
    bytes.sum()
}

/// The whole of one transfer of [`BYTES`], which was waited for.
fn assert_tells_of(spans: &[Span], route: Route, by: By) {
    for name in ["plan", "allocate"] {
        let found = named(spans, name);
        assert_eq!((found.len(), total(&found)), (1, BYTES), "{name}: {found:?}");
    }
    let copies = named(spans, "copy");
    assert_eq!(total(&copies), BYTES, "copy: {copies:?}");
    let fills = named(spans, "fill");
    let slotted = matches!(route, Route::Staged | Route::Packed | Route::Gathered);
    assert_eq!(total(&fills), if slotted { BYTES } else { 0 }, "fill: {fills:?}");
    for span in copies.iter().chain(&fills) {
        assert_eq!(
            span.route.as_deref(),
            Some(route.to_string().as_str()),
            "{span:?}"
        );
        let lane = span.lane.expect("who copies says on which lane");
        match by {
            // The caller's own stream has the number after the lanes'.
            By::Caller => assert_eq!(lane, LANES as u64, "{span:?}"),
            // A caller who waits takes part.
            By::Lanes => assert!(lane <= LANES as u64, "{span:?}"),
        }
    }
    // The wait for the whole; waits for slots and for chunks that are emptied are told besides.
    let whole = |span: &&&Span| span.lane.is_none() && span.bytes == Some(BYTES);
    let waits = named(spans, "wait");
    assert_eq!(waits.iter().filter(whole).count(), 1, "wait: {waits:?}");
    let known = ["plan", "allocate", "fill", "copy", "wait"];
    assert!(
        spans.iter().all(|span| known.contains(&span.name)),
        "an operation that no table knows: {spans:?}"
    );
}

fn there_and_back(route: Route, by: By) {
    let listener = Listener::start();
    let rig = rig(by);
    let direct = route == Route::Direct;
    let tree = tree(&rig, direct);
    let mut options = TransferOptions::new().route(route);
    let (there, spans) = listener.record(|| tree.to_with(rig.device(), &options).unwrap());
    // What needs no slot is the caller's, however little that may do.
    let by = if matches!(route, Route::Direct | Route::Plain) {
        By::Caller
    } else {
        by
    };
    assert_tells_of(&spans, route, by);
    if direct {
        options = options.pinned_result();
    }
    let (back, spans) = listener.record(|| there.to_with(&Device::host(), &options).unwrap());
    assert_tells_of(&spans, route, by);
    let chunks: Vec<_> = named(&spans, "wait")
        .into_iter()
        .filter(|span| span.lane.is_some())
        .collect();
    let slotted = matches!(route, Route::Staged | Route::Packed | Route::Gathered);
    assert_eq!(
        total(&chunks),
        if slotted { BYTES } else { 0 },
        "each chunk is waited for before its slot is emptied: {chunks:?}"
    );
    assert!(chunks.iter().all(|span| span.route.is_some()), "{chunks:?}");
    drop((tree, there, back));
    rig.finish();
}

#[test]
fn a_direct_transfer_tells_of_its_copies_and_fills_nothing() {
    there_and_back(Route::Direct, By::Caller);
}

#[test]
fn a_plain_transfer_tells_of_its_copies_and_fills_nothing() {
    there_and_back(Route::Plain, By::Caller);
}

#[test]
fn a_staged_transfer_tells_of_what_each_lane_fills_and_copies() {
    there_and_back(Route::Staged, By::Lanes);
}

#[test]
fn a_packed_transfer_tells_of_what_each_lane_fills_and_copies() {
    there_and_back(Route::Packed, By::Lanes);
}

#[test]
fn a_gathered_transfer_tells_of_what_each_lane_fills_and_copies() {
    there_and_back(Route::Gathered, By::Lanes);
}

#[test]
fn a_caller_that_does_the_work_itself_tells_the_same() {
    there_and_back(Route::Staged, By::Caller);
    there_and_back(Route::Packed, By::Caller);
    there_and_back(Route::Gathered, By::Caller);
}

#[test]
fn a_transfer_between_devices_tells_of_its_copies() {
    let listener = Listener::start();
    let rig = rig(By::Caller);
    let there = tree(&rig, false).to(rig.device()).unwrap();
    let (next, spans) = listener.record(|| there.to(&rig.devices[1]).unwrap());
    assert_tells_of(&spans, Route::Direct, By::Caller);
    drop((there, next));
    rig.finish();
}

#[test]
fn lanes_tell_the_same_of_a_transfer_that_nobody_blocks_on() {
    let listener = Listener::start();
    let rig = rig(By::Lanes);
    let tree = tree(&rig, false);
    let options = TransferOptions::new().route(Route::Packed);
    let (there, spans) = listener.record(|| {
        let transfer = tree.transfer_with(rig.device(), &options).unwrap();
        rig::eventually("the transfer is done", || transfer.is_done());
        transfer.wait().unwrap()
    });
    assert_tells_of(&spans, Route::Packed, By::Lanes);
    drop((tree, there));
    rig.finish();
}
