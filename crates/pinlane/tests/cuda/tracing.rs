//! What a trace says that a device did, held against what it can do.

use std::time::Duration;

use pinlane::{
    DType, Device, DeviceOptions, HostMemory, Tensor, Tree,
    trace::{self, DeviceSpan, EngineKind, TimedBy, Trace},
};

use crate::{
    chosen_device, rig,
    rig::{Rig, pattern},
};

/// Many chunks for each lane.
const BYTES: usize = 256 << 20;
/// The same where the device only simulates.
const SIMULATED_BYTES: usize = 32 << 20;
/// How much faster than its link copies may seem to be: clocks are set to each other no better.
const MORE_THAN_THE_LINK: f64 = 1.1;

/// Large tensors there and back, pageable and pinned, and a short one.
fn moved(rig: &Rig, bytes: usize) {
    let device = rig.device();
    let large = Tensor::from_bytes(pattern(bytes, 1), DType::U8, &[bytes]).unwrap();
    let there = large.to(device).unwrap();
    let back = there.to(&Device::host()).unwrap();
    assert!(back.as_bytes().unwrap() == large.as_bytes().unwrap());
    let pinned = HostMemory::Pinned(device).zeros(DType::U8, &[bytes / 4]).unwrap();
    drop(pinned.to(device).unwrap());
    let short = Tensor::from_bytes(pattern(64, 2), DType::U8, &[64]).unwrap();
    drop(short.to(device).unwrap());
}

fn on(trace: &Trace, engine: EngineKind) -> Vec<&DeviceSpan> {
    let spans = trace.devices().iter().flat_map(|device| &device.spans);
    spans.filter(|span| span.engine == engine).collect()
}

pub(crate) fn a_trace_shows_copies_that_the_device_can_have_made() {
    let rig = rig(&DeviceOptions {
        pinned_budget: Some(512 << 20),
        ..DeviceOptions::default()
    });
    let properties = rig.device().driver().unwrap().properties().clone();
    let bytes = if properties.simulated {
        SIMULATED_BYTES
    } else {
        BYTES
    };
    // What is made once is not in the way of the copies that are looked at.
    moved(&rig, bytes);
    let session = trace::start();
    moved(&rig, bytes);
    let trace = session.finish();
    let device = chosen_device();
    assert_eq!(trace.devices().len(), 1, "{device}");
    assert_eq!(trace.devices()[0].missed, 0, "{device}");
    let timed_by = |clock| {
        let mut spans = trace.devices()[0].spans.iter();
        spans.any(|span| span.timed_by == clock)
    };
    assert!(timed_by(TimedBy::Device) && timed_by(TimedBy::Host), "{device}");
    for (engine, least) in [
        (EngineKind::ToDevice, bytes + bytes / 4 + 64),
        (EngineKind::ToHost, bytes),
    ] {
        let copies = on(&trace, engine);
        let all: u64 = copies.iter().map(|copy| copy.bytes).sum();
        assert_eq!(all, least as u64, "{engine} of {device}");
        for copy in &copies {
            assert!(copy.start <= copy.end && copy.end <= trace.length(), "{copy:?}");
        }
        for pair in copies.windows(2) {
            assert!(
                pair[1].start >= pair[0].end,
                "{engine} does two at once: {pair:?}"
            );
        }
        let busy: Duration = copies.iter().map(|copy| copy.end - copy.start).sum();
        if let Some(link) = properties.link.bytes_per_second {
            let rate = all as f64 / busy.as_secs_f64();
            assert!(
                rate <= MORE_THAN_THE_LINK * link,
                "{engine}: {rate:.3e} bytes per second over a link of {link:.3e}"
            );
        }
        let fills = trace.threads().iter().flat_map(|thread| &thread.spans);
        let beside = fills.filter(|span| span.name == "fill").any(|fill| {
            copies
                .iter()
                .any(|copy| copy.start < fill.end && fill.start < copy.end)
        });
        assert!(
            beside,
            "nothing was filled or emptied while the {engine} was busy"
        );
    }
    drop(trace);
    rig.finish();
}
