//! What a session of tracing collects, and the file that it writes: held against the rules of the Trace Event Format and
//! against what the simulated device did.

#![cfg(not(shuttle))]

mod rig;

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pinlane::{
    DType, DeviceOptions, HostMemory, Profile, Route, Tensor, TransferOptions, Tree,
    driver::sim::{DeviceConfig, MachineConfig, Step},
    trace::{self, EngineKind, TimedBy, Trace, TraceFile},
};
use rig::{Rig, pattern, small_engine};
use serde_json::Value;

const SLOT: usize = 64 << 10;
const LANES: usize = 2;
/// Several chunks for each lane.
const BYTES: usize = 32 * SLOT;

/// Sessions see the whole process: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device with a link so slow that a chunk takes a while, whose work is done by lanes.
fn slow_rig() -> Rig {
    let config = DeviceConfig {
        memory_bytes: 64 << 20,
        bytes_per_second: Some(100e6),
        ..DeviceConfig::default()
    };
    rig_on(config)
}

fn rig_on(config: DeviceConfig) -> Rig {
    let machine = MachineConfig::equal_devices(1, config);
    let probe = Rig::on(machine.clone(), &DeviceOptions::default());
    let mut profile = Profile::assumed(probe.device().driver().unwrap().properties());
    profile.inline_bytes = 0;
    profile.plain_bytes = 0;
    let options = DeviceOptions {
        pinned_budget: Some(8 << 20),
        profile: Some(profile),
        ..small_engine(LANES, 2, SLOT)
    };
    Rig::on(machine, &options)
}

fn tensor(bytes: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, 1), DType::U8, &[bytes]).unwrap()
}

fn there_and_back(rig: &Rig) {
    let options = TransferOptions::new().route(Route::Staged);
    let there = tensor(BYTES).to_with(rig.device(), &options).unwrap();
    let back = there.to_with(&pinlane::Device::host(), &options).unwrap();
    assert_eq!(back.as_bytes().unwrap(), pattern(BYTES, 1));
}

fn traced(work: impl FnOnce()) -> Trace {
    let session = trace::start();
    work();
    session.finish()
}

fn document(trace: &Trace) -> Value {
    let mut bytes = Vec::new();
    trace.write_to(&mut bytes).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// A span of the file: its row, and when it began and ended in microseconds.
#[derive(Debug)]
struct Drawn {
    row: (u64, u64),
    name: String,
    start: f64,
    end: f64,
    bytes: Option<u64>,
}

/// Holds a file against the rules of its format, and gives its spans with the names of their rows.
fn drawn(document: &Value) -> (Vec<Drawn>, HashMap<(u64, u64), String>) {
    let (mut spans, mut rows, mut processes) = (Vec::new(), HashMap::new(), HashSet::new());
    for event in document["traceEvents"].as_array().unwrap() {
        let row = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let start = event["ts"].as_f64().unwrap();
        let name = event["name"].as_str().unwrap();
        match event["ph"].as_str().unwrap() {
            "X" => {
                let duration = event["dur"].as_f64().unwrap();
                assert!(start >= 0.0 && duration >= 0.0, "{event}");
                spans.push(Drawn {
                    row,
                    name: name.to_owned(),
                    start,
                    end: start + duration,
                    bytes: event["args"]["bytes"].as_u64(),
                });
            }
            "M" => match name {
                "thread_name" => {
                    let named = event["args"]["name"].as_str().unwrap().to_owned();
                    assert!(rows.insert(row, named).is_none(), "named twice: {event}");
                }
                "process_name" => {
                    assert!(event["args"]["name"].is_string(), "{event}");
                    assert!(processes.insert(row.0), "named twice: {event}");
                }
                "thread_sort_index" | "process_sort_index" => {
                    assert!(event["args"]["sort_index"].is_u64(), "{event}");
                }
                other => panic!("no label of the format: {other}"),
            },
            other => panic!("an event that nobody writes: {other}"),
        }
    }
    for span in &spans {
        assert!(rows.contains_key(&span.row), "on a row without a name: {span:?}");
        assert!(
            processes.contains(&span.row.0),
            "of a process without a name: {span:?}"
        );
    }
    (spans, rows)
}

fn overlap(a: &Drawn, b: &Drawn) -> bool {
    a.start < b.end && b.start < a.end
}

#[test]
fn a_trace_keeps_the_rules_of_its_format() {
    let _turn = turn();
    let rig = slow_rig();
    let trace = traced(|| {
        let _span = trace::span("a step of the program's own");
        there_and_back(&rig);
    });
    let (spans, rows) = drawn(&document(&trace));
    assert!(spans.is_sorted_by(|a, b| a.start <= b.start));
    // What a thread does lies within each other or apart: a viewer can't draw it otherwise.
    for (place, span) in spans.iter().enumerate() {
        for other in spans[place + 1..].iter().filter(|other| other.row == span.row) {
            assert!(
                other.start >= span.end - 0.002 || other.end <= span.end + 0.002,
                "{span:?} and {other:?} on {}",
                rows[&span.row]
            );
        }
    }
    let names: Vec<&str> = rows.values().map(String::as_str).collect();
    for expected in [
        "busy with pinlane's copies",
        "copy engine to the device, pinlane's copies",
        "copy engine to the host, pinlane's copies",
    ] {
        assert!(names.contains(&expected), "{expected} is not in {names:?}");
    }
    assert!(
        names.iter().any(|name| name.starts_with("lane sim:0-up-")),
        "{names:?}"
    );
    assert!(names.iter().any(|name| name.starts_with("caller ")), "{names:?}");
    rig.finish();
}

#[test]
fn a_lane_fills_while_an_engine_copies_and_no_engine_does_two_copies_at_once() {
    let _turn = turn();
    let rig = slow_rig();
    let trace = traced(|| there_and_back(&rig));
    let (spans, rows) = drawn(&document(&trace));
    let on = |row: &str| {
        spans
            .iter()
            .filter(|span| rows[&span.row] == row)
            .collect::<Vec<_>>()
    };
    for engine in [
        "copy engine to the device, pinlane's copies",
        "copy engine to the host, pinlane's copies",
    ] {
        let copies = on(engine);
        assert_eq!(
            copies.iter().map(|copy| copy.bytes.unwrap()).sum::<u64>(),
            BYTES as u64
        );
        let busy: f64 = copies.iter().map(|copy| copy.end - copy.start).sum();
        assert!(
            busy >= 0.95e6 * BYTES as f64 / 100e6,
            "{busy} us, faster than the link"
        );
        for (place, copy) in copies.iter().enumerate() {
            for other in &copies[place + 1..] {
                assert!(other.start >= copy.end - 0.002, "{copy:?} beside {other:?}");
            }
        }
        let fills = spans.iter().filter(|span| span.name == "fill");
        let beside = fills
            .filter(|fill| copies.iter().any(|copy| overlap(copy, fill)))
            .count();
        assert!(
            beside > 0,
            "nothing was filled or emptied while {engine} was busy"
        );
    }
    rig.finish();
}

#[test]
fn an_engine_that_its_copies_queue_for_is_busy_without_a_break() {
    let _turn = turn();
    let rig = slow_rig();
    let sim = &rig.sims[0];
    let pinned: Vec<Tensor> = (0..4)
        .map(|seed| {
            let pinned = HostMemory::Pinned(rig.device());
            pinned.rand(DType::F32, &[SLOT / 4], seed).unwrap()
        })
        .collect();
    let trace = traced(|| {
        // What time the device has is known from the first.
        drop(pinned[0].to(rig.device()).unwrap());
        // The others are enqueued before any of them begins, each on a stream of its own.
        let copies = sim.calls(Step::Copy);
        let stall = sim.stall();
        std::thread::scope(|scope| {
            for tensor in &pinned {
                scope.spawn(|| tensor.to(rig.device()).unwrap());
            }
            rig::eventually("all are enqueued", || sim.calls(Step::Copy) >= copies + 4);
            drop(stall);
        });
    });
    let [_, queued @ ..] = trace.devices()[0].spans.as_slice() else {
        panic!("{:?}", trace.devices());
    };
    assert_eq!(queued.len(), 4);
    for (before, after) in queued.iter().zip(&queued[1..]) {
        // Its stream got to it long before the engine did.
        assert_eq!(after.start, before.end, "{queued:?}");
    }
    drop(pinned);
    rig.finish();
}

#[test]
fn every_route_says_its_bytes_on_the_host_and_on_the_device() {
    let _turn = turn();
    let rig = rig_on(DeviceConfig {
        memory_bytes: 64 << 20,
        ..DeviceConfig::default()
    });
    let tensors: Vec<Tensor> = (0..40).map(|_| tensor(500)).collect();
    for (route, engine) in [
        (Route::Staged, EngineKind::ToDevice),
        (Route::Packed, EngineKind::ToDevice),
        (Route::Plain, EngineKind::ToDevice),
        (Route::Gathered, EngineKind::Kernel),
    ] {
        let options = TransferOptions::new().route(route);
        let trace = traced(|| drop(tensors.to_with(rig.device(), &options).unwrap()));
        let device = &trace.devices()[0];
        assert!(
            device
                .spans
                .iter()
                .all(|span| span.engine == engine && span.route == Some(route))
        );
        assert_eq!(device.spans.iter().map(|span| span.bytes).sum::<u64>(), 40 * 500);
        let copies = trace.threads().iter().flat_map(|thread| &thread.spans);
        let copies = copies.filter(|span| span.name == "copy");
        let bytes = copies.inspect(|span| assert_eq!(span.route, Some(route.to_string().as_str())));
        assert_eq!(
            bytes.filter_map(|span| span.bytes).sum::<u64>(),
            40 * 500,
            "{route}"
        );
    }
    drop(tensors);
    rig.finish();
}

#[test]
fn a_lone_small_tensor_is_told_of_too() {
    let _turn = turn();
    let rig = Rig::new(1, &DeviceOptions::default());
    let trace = traced(|| drop(tensor(100).to(rig.device()).unwrap()));
    let [span] = trace.devices()[0].spans.as_slice() else {
        panic!("{:?}", trace.devices());
    };
    assert_eq!(
        (span.bytes, span.route, span.lane),
        (100, Some(Route::Plain), None)
    );
    assert_eq!(trace.operations().calls("copy"), 1);
    rig.finish();
}

#[test]
fn sessions_that_overlap_get_what_happened_in_each() {
    let _turn = turn();
    let rig = Rig::new(1, &DeviceOptions::default());
    let step = |name| drop(trace::span(name));
    let outer = trace::start();
    step("before");
    let (bytes, table) = trace::record(|| {
        step("within");
        tensor(100).to(rig.device()).unwrap().bytes().unwrap()
    });
    step("after");
    let trace = outer.finish();
    step("outside");
    assert_eq!(bytes, 100);
    assert_eq!(
        (table.calls("before"), table.calls("within"), table.calls("after")),
        (0, 1, 0)
    );
    let table = trace.operations();
    for (name, calls) in [("before", 1), ("within", 1), ("after", 1), ("outside", 0)] {
        assert_eq!(table.calls(name), calls, "{name}");
    }
    rig.finish();
}

#[test]
fn without_a_session_nothing_is_collected_and_no_event_tells_the_time() {
    let _turn = turn();
    let rig = slow_rig();
    let records = |work: &dyn Fn()| {
        let before = rig.sims[0].calls(Step::Record);
        work();
        rig.sims[0].calls(Step::Record) - before
    };
    let with = records(&|| drop(traced(|| there_and_back(&rig))));
    let without = records(&|| there_and_back(&rig));
    // A chunk's own mark each way; in a session the end of each way besides, and what sets that to the host's clock.
    let chunks = 2 * (BYTES / SLOT) as u64;
    assert_eq!(without, chunks);
    assert!(with > chunks + 2, "{with} of {chunks} chunks");
    assert!(traced(|| {}).is_empty());
    rig.finish();
}

#[test]
fn the_device_was_busy_while_it_copied_and_for_no_longer_than_the_session() {
    let _turn = turn();
    let rig = slow_rig();
    let trace = traced(|| there_and_back(&rig));
    let device = &trace.devices()[0];
    let busy = device.busy_time();
    // Both ways at 100 MB/s.
    assert!(
        busy >= Duration::from_secs_f64(2.0 * BYTES as f64 / 100e6 * 0.99),
        "{busy:?}"
    );
    assert!(busy <= trace.length(), "{busy:?} of {:?}", trace.length());
    let summary = trace.summary().to_string();
    for expected in [
        "# of Calls",
        "fill",
        "sim:0",
        "copy engine to the host",
        pinlane::SIMULATED,
    ] {
        assert!(summary.contains(expected), "{expected} is missing in\n{summary}");
    }
    rig.finish();
}

#[test]
fn a_copy_that_fails_is_missed_in_the_trace_and_fails_as_ever() {
    use pinlane::driver::sim::{Fault, FaultPlan};
    let _turn = turn();
    let rig = slow_rig();
    rig.sims[0].set_faults(FaultPlan::new().at(Step::Copy, 1, Fault::CopyFailed));
    let options = TransferOptions::new().route(Route::Staged);
    let trace = traced(|| assert!(tensor(BYTES).to_with(rig.device(), &options).is_err()));
    assert!(trace.devices()[0].missed > 0, "{:?}", trace.devices());
    rig.sims[0].set_faults(FaultPlan::new());
    there_and_back(&rig);
    rig.finish();
}

#[test]
fn a_file_that_can_not_be_written_is_an_error_before_anything_is_collected() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    assert!(TraceFile::create(folder.path().join("nowhere/trace.json")).is_err());
    let file = TraceFile::create(folder.path().join("trace.json")).unwrap();
    let path = file.path().to_owned();
    file.finish().unwrap();
    drawn(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
}

#[test]
fn what_is_in_a_traces_file_already_stays_until_the_trace_is_there() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    std::fs::write(&path, "an older one").unwrap();
    let file = TraceFile::create(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"an older one");
    file.finish().unwrap();
    drawn(&serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_copy_says_whose_clock_timed_it_and_the_file_says_whose_copies_it_has() {
    let _turn = turn();
    let rig = Rig::on(
        MachineConfig::equal_devices(1, DeviceConfig::default()),
        &DeviceOptions::default(),
    );
    for (bytes, timed_by) in [(64, TimedBy::Host), (8 << 20, TimedBy::Device)] {
        let trace = traced(|| drop(tensor(bytes).to(rig.device()).unwrap()));
        let spans = &trace.devices()[0].spans;
        assert!(spans.iter().all(|span| span.timed_by == timed_by), "{spans:?}");
        let document = document(&trace);
        let told = document["otherData"]["devices"].as_str().unwrap();
        assert!(told.contains("pinlane's copies only"), "{told}");
        let events = document["traceEvents"].as_array().unwrap();
        let copies: Vec<_> = events
            .iter()
            .filter(|event| event["cat"] == "device" && event["name"] == "copy")
            .collect();
        assert!(!copies.is_empty());
        for copy in copies {
            assert_eq!(copy["args"]["timed_by"], timed_by.name(), "{copy}");
        }
    }
    rig.finish();
}
