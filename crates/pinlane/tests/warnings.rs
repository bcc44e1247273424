//! What the engine warns of when it works, but not as well as it could. The one test has the process to itself, since lanes
//! warn on threads of their own.

#![cfg(not(shuttle))]

mod rig;

use std::{
    fmt, mem,
    sync::{Mutex, PoisonError},
};

use pinlane::{
    DType, Device, DeviceOptions, HostMemory, Tensor, Tree,
    driver::{ErrorKind, sim::MachineConfig},
};
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

/// A device of a host that pins at most `limit` bytes.
fn rig(limit: Option<u64>) -> Rig {
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
    Rig::on(config, &options)
}

fn move_there_and_back(device: &Device) {
    for seed in 0..3 {
        let there = Tensor::from_bytes(pattern(300_000, seed), DType::U8, &[300_000]).unwrap();
        let back = there.to(device).unwrap().to(&Device::host()).unwrap();
        assert!(back.as_bytes().unwrap() == pattern(300_000, seed));
    }
}

/// The warnings since the last time.
fn warnings() -> Vec<String> {
    mem::take(&mut *WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Checks that there was one warning, which says all of `told`.
fn assert_warned_once(told: &[&str]) {
    let warnings = warnings();
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    for told in told {
        assert!(warning.contains(told), "{told:?} in {warning}");
    }
}

#[test]
fn slots_that_are_fewer_than_wanted_are_warned_of_once_with_what_to_do() {
    let subscriber = tracing_subscriber::registry().with(Recorder);
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let host_pins_little = rig(Some(5 * SLOT as u64));
    move_there_and_back(host_pins_little.device());
    host_pins_little.finish();
    assert_warned_once(&["slots=4 ", "wanted=32 ", "ulimit -l"]);

    // A budget that was lowered to what the slots need, while a tensor has more than that.
    let budget_is_short = rig(None);
    let device = budget_is_short.device();
    let tensor = HostMemory::Pinned(device).zeros(DType::U8, &[86 * SLOT]).unwrap();
    device.set_pinned_budget(32 * SLOT).unwrap();
    move_there_and_back(device);
    drop(tensor);
    budget_is_short.finish();
    assert_warned_once(&["slots=8 ", "wanted=32 ", "set a larger pinned budget"]);

    // Nothing goes on here: that is an error, and no warning says otherwise.
    let host_pins_nothing = rig(Some(0));
    let tensor = Tensor::from_bytes(pattern(300_000, 1), DType::U8, &[300_000]).unwrap();
    let refused = tensor.to(host_pins_nothing.device()).unwrap_err();
    assert_eq!(refused.driver_kind(), Some(ErrorKind::PinLimit), "{refused}");
    let text = refused.to_string();
    for told in ["pinning 8192 bytes of host memory", "the host allows 0 bytes"] {
        assert!(text.contains(told), "{told:?} in {text}");
    }
    host_pins_nothing.finish();
    assert_eq!(warnings(), [""; 0]);

    let nothing_is_short = rig(None);
    move_there_and_back(nothing_is_short.device());
    nothing_is_short.finish();
    assert_eq!(warnings(), [""; 0]);
}
