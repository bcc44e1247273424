//! What the engine warns of when it works, but not as well as it could. The one test has the process to itself, since lanes
//! warn on threads of their own.

#![cfg(not(shuttle))]

mod rig;

use std::{
    fmt, mem,
    sync::{Mutex, PoisonError},
};

use pinlane::{DType, Device, DeviceOptions, Tensor, Tree, driver::sim::MachineConfig};
use rig::{Rig, pattern};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

const SLOT: usize = 8192;

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorder;

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let mut text = Text::default();
            event.record(&mut text);
            WARNINGS
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text.0);
        }
    }
}

/// An event's fields as one line.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

/// What was warned of while bytes moved there and back on a host that pins at most `limit` bytes.
fn warnings_with(limit: Option<u64>) -> Vec<String> {
    let config = MachineConfig {
        pin_limit: limit,
        ..MachineConfig::default()
    };
    let options = DeviceOptions {
        pinned_budget: Some(1 << 20),
        lanes: Some(2),
        slots_per_lane: Some(8),
        slot_bytes: Some(SLOT),
        profile: None,
    };
    let rig = Rig::on(config, &options);
    for seed in 0..3 {
        let there = Tensor::from_bytes(pattern(300_000, seed), DType::U8, &[300_000]).unwrap();
        let back = there.to(rig.device()).unwrap().to(&Device::host()).unwrap();
        assert!(back.as_bytes().unwrap() == pattern(300_000, seed));
    }
    rig.finish();
    mem::take(&mut *WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn a_host_that_pins_too_little_is_warned_of_once_with_what_to_do() {
    let subscriber = tracing_subscriber::registry().with(Recorder);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let warnings = warnings_with(Some(5 * SLOT as u64));
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    for told in ["slots=4 ", "wanted=32 ", "pin", "ulimit -l"] {
        assert!(warning.contains(told), "{told:?} in {warning}");
    }
    let none = warnings_with(None);
    assert!(none.is_empty(), "{none:?}");
}
