//! A trace as a file: the Trace Event Format.
//!
//! The host is one process of the trace, with a row for each thread; each device is another, with a row for each engine and one
//! for when any of them was busy. Every span is a complete event (`ph` is `X`), in the order in which they begin; spans that
//! begin together come with the longer first, so that those within it are drawn below it.

use std::io::{self, BufWriter, Write};

use pinlane_driver::{DeviceId, sync::Duration};
use serde::{Serialize, ser::SerializeSeq as _};

use super::collected::{EngineKind, Trace, TracedDevice};
use crate::Route;

/// What the process of the first device is called is the host's number and this. Linux gives no process a number so high.
const DEVICE_PROCESS: u32 = 1 << 24;
/// What a device's rows show, for who reads the file without them.
const DEVICES: &str =
    "the rows of a device show pinlane's copies only: what else a program has it do is not there";
/// The row of a device that shows when it was busy, before those of the engines.
const BUSY_ROW: u32 = 1;

/// What every trace begins with.
pub(super) const BEGINS: &[u8] = br#"{"traceEvents":["#;

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    cat: &'static str,
    ph: char,
    pid: u32,
    tid: u32,
    /// Microseconds from the beginning of the session.
    ts: f64,
    dur: f64,
    args: Args<'a>,
}

#[derive(Serialize)]
struct Args<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timed_by: Option<&'static str>,
}

/// A name or a place of a process or a row.
#[derive(Serialize)]
struct Label<'a> {
    name: &'static str,
    ph: char,
    pid: u32,
    tid: u32,
    ts: f64,
    args: LabelArgs<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LabelArgs<'a> {
    Name(&'a str),
    SortIndex(u32),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Either<'a> {
    Event(Event<'a>),
    Label(Label<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    trace_events: Events<'a>,
    display_time_unit: &'static str,
    other_data: OtherData,
}

#[derive(Serialize)]
struct OtherData {
    written_by: &'static str,
    dropped_spans: u64,
    simulated: bool,
    note: &'static str,
    devices: &'static str,
}

/// Written one by one, so that a long trace is never there twice.
struct Events<'a>(&'a Trace);

pub(super) fn write(trace: &Trace, writer: impl Write) -> io::Result<()> {
    let simulated = trace.devices.iter().any(|device| device.properties.simulated);
    let document = Document {
        trace_events: Events(trace),
        display_time_unit: "ms",
        other_data: OtherData {
            written_by: concat!("pinlane ", env!("CARGO_PKG_VERSION")),
            dropped_spans: trace.dropped,
            simulated,
            note: if simulated { crate::SIMULATED } else { "" },
            devices: DEVICES,
        },
    };
    let mut writer = BufWriter::with_capacity(1 << 18, writer);
    serde_json::to_writer(&mut writer, &document)?;
    writeln!(writer)?;
    writer.flush()
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

impl Serialize for Events<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(trace) = self;
        let mut seq = serializer.serialize_seq(None)?;
        let host = std::process::id();
        for label in labels(trace, host) {
            seq.serialize_element(&Either::Label(label.as_label()))?;
        }
        let mut events: Vec<_> = host_events(trace, host)
            .chain(device_events(trace, host))
            .collect();
        events.sort_by(|a, b| a.ts.total_cmp(&b.ts).then(b.dur.total_cmp(&a.dur)));
        for event in events {
            seq.serialize_element(&Either::Event(event))?;
        }
        seq.end()
    }
}

fn host_events(trace: &Trace, host: u32) -> impl Iterator<Item = Event<'_>> {
    trace.threads.iter().flat_map(move |thread| {
        thread.spans.iter().map(move |span| Event {
            name: span.name,
            cat: "host",
            ph: 'X',
            pid: host,
            tid: thread.number,
            ts: microseconds(span.start),
            dur: microseconds(span.end.saturating_sub(span.start)),
            args: Args {
                copies: None,
                bytes: span.bytes,
                route: span.route,
                lane: span.lane,
                timed_by: None,
            },
        })
    })
}

fn device_events(trace: &Trace, host: u32) -> impl Iterator<Item = Event<'_>> {
    trace.devices.iter().enumerate().flat_map(move |(place, device)| {
        let pid = device_process(host, place);
        let event = move |name, tid, (start, end): (Duration, Duration), args| Event {
            name,
            cat: "device",
            ph: 'X',
            pid,
            tid,
            ts: microseconds(start),
            dur: microseconds(end.saturating_sub(start)),
            args,
        };
        let copies = device.spans.iter().map(move |span| {
            let args = Args {
                copies: Some(span.copies),
                bytes: Some(span.bytes),
                route: span.route.map(Route::name),
                lane: span.lane,
                timed_by: Some(span.timed_by.name()),
            };
            event("copy", row(span.engine), (span.start, span.end), args)
        });
        let busy = device.busy().into_iter().map(move |times| {
            let args = Args {
                copies: None,
                bytes: None,
                route: None,
                lane: None,
                timed_by: None,
            };
            event("busy", BUSY_ROW, times, args)
        });
        copies.chain(busy)
    })
}

fn device_process(host: u32, place: usize) -> u32 {
    host + DEVICE_PROCESS * (place as u32 + 1)
}

fn row(engine: EngineKind) -> u32 {
    BUSY_ROW + 1 + engine as u32
}

/// A name of a process or a row, with its place among its like.
struct Named {
    of_process: bool,
    pid: u32,
    tid: u32,
    text: Option<String>,
    place: u32,
}

impl Named {
    fn as_label(&self) -> Label<'_> {
        Label {
            name: match (self.of_process, &self.text) {
                (true, Some(_)) => "process_name",
                (true, None) => "process_sort_index",
                (false, Some(_)) => "thread_name",
                (false, None) => "thread_sort_index",
            },
            ph: 'M',
            pid: self.pid,
            tid: self.tid,
            ts: 0.0,
            args: match &self.text {
                Some(text) => LabelArgs::Name(text),
                None => LabelArgs::SortIndex(self.place),
            },
        }
    }
}

fn labels(trace: &Trace, host: u32) -> Vec<Named> {
    let mut labels = Vec::new();
    let mut add = |of_process, pid, tid, text: String, place| {
        for text in [Some(text), None] {
            labels.push(Named {
                of_process,
                pid,
                tid,
                text,
                place,
            });
        }
    };
    add(true, host, 0, "host".to_owned(), 0);
    for thread in &trace.threads {
        // Threads of the engine are called after their device; all others are callers, and come first.
        let (name, place) = match &thread.name {
            Some(name) if is_of_engine(name, trace) => (format!("lane {name}"), 1),
            Some(name) => (format!("caller {name}"), 0),
            None => (format!("caller {}", thread.number), 0),
        };
        add(false, host, thread.number, name, place);
    }
    for (place, device) in trace.devices.iter().enumerate() {
        let pid = device_process(host, place);
        add(true, pid, 0, title(device), place as u32 + 1);
        add(false, pid, BUSY_ROW, "busy with pinlane's copies".to_owned(), 0);
        for engine in EngineKind::ALL {
            if device.spans.iter().any(|span| span.engine == engine) {
                add(
                    false,
                    pid,
                    row(engine),
                    format!("{engine}, pinlane's copies"),
                    row(engine),
                );
            }
        }
    }
    labels
}

fn is_of_engine(thread: &str, trace: &Trace) -> bool {
    let of = |id: DeviceId| {
        thread
            .strip_prefix(&id.to_string())
            .is_some_and(|rest| rest.starts_with('-'))
    };
    trace.devices.iter().any(|device| of(device.properties.id))
}

fn title(device: &TracedDevice) -> String {
    let properties = &device.properties;
    if properties.simulated {
        format!("{} ({})", properties.id, crate::SIMULATED)
    } else {
        format!("{} ({})", properties.id, properties.name)
    }
}
