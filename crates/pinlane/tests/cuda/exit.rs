//! Processes that end while bytes move. Each is this program again, with an environment variable that says how to end.

use std::{
    env,
    process::{ExitCode, exit},
    thread,
    time::Duration,
};

use pinlane::{
    DType, DeviceOptions, Tensor, Transfer, TransferOptions, Tree,
    driver::{Stream, Timing},
};

#[path = "../../../cuda/tests/cuda/child.rs"]
mod child;

use crate::{kernel, lost, rig, rig::Rig};

const CHILD: &str = "PINLANE_TEST_CHILD";

/// What a child does, after which it should be gone.
type End = fn() -> ExitCode;

/// The ways to end, by name.
const ENDS: [(&str, End); 5] = [
    ("main drops all and returns", drop_and_return),
    ("main returns and leaves all as it is", leave_and_return),
    ("main exits with all on its stack", exit_at_once),
    ("main exits while a thread waits", exit_while_a_thread_waits),
    ("a thread exits while main waits", exit_from_a_thread),
];

/// What this process is to do if it is a child.
pub(crate) fn child() -> Option<End> {
    let name = env::var(CHILD).ok()?;
    let (_, end) = ENDS
        .into_iter()
        .chain([
            (lost::LOSES, lost::lose_the_device as End),
            (kernel::GATHERS, kernel::gather_first as End),
        ])
        .find(|(known, _)| *known == name)
        .expect("a child is told a way to end that is known");
    Some(end)
}

pub(crate) fn a_process_may_exit_with_transfers_in_flight() {
    ENDS.iter().for_each(|(name, _)| ends_well(name));
}

/// Runs the child of that name, which must end by itself, and well.
pub(crate) fn ends_well(name: &str) {
    child::ends_well(CHILD, name);
}

/// Transfers in flight both ways, pageable and pinned, some behind an event that fires later.
struct Flying {
    up: Vec<Transfer<Vec<Tensor>>>,
    down: Vec<Transfer<Tensor>>,
    rig: Rig,
}

fn start() -> Flying {
    const BYTES: usize = 24 << 20;
    let rig = rig(&DeviceOptions::default());
    let device = rig.device();
    let pageable = Tensor::full(DType::U8, &[BYTES], 1).unwrap();
    let pinned = pageable.pin_memory(device).unwrap();
    let there = pageable.to(device).unwrap();
    let tree = vec![pageable, pinned];
    let driver = device.driver().unwrap();
    let stalled = Stream::new(driver).unwrap();
    driver.busy(Duration::from_millis(300), stalled.raw()).unwrap();
    let after = TransferOptions::new().after(stalled.record(Timing::Disabled).unwrap().into());
    let mut flying = Flying {
        up: Vec::new(),
        down: Vec::new(),
        rig,
    };
    let device = flying.rig.device();
    let host = pinlane::Device::host();
    for options in [&after, &TransferOptions::new()] {
        for _ in 0..2 {
            flying.up.push(tree.transfer_with(device, options).unwrap());
            flying.down.push(there.transfer_with(&host, options).unwrap());
        }
    }
    flying
}

fn drop_and_return() -> ExitCode {
    drop(start());
    ExitCode::SUCCESS
}

fn leave_and_return() -> ExitCode {
    std::mem::forget(start());
    ExitCode::SUCCESS
}

fn exit_at_once() -> ExitCode {
    let flying = start();
    if flying.up.is_empty() {
        return ExitCode::FAILURE;
    }
    exit(0);
}

fn exit_while_a_thread_waits() -> ExitCode {
    let Flying { up, down, rig } = start();
    thread::spawn(move || up.into_iter().for_each(|transfer| drop(transfer.wait())));
    thread::spawn(move || down.into_iter().for_each(|transfer| drop(transfer.wait())));
    // Long enough for them to begin, and less than what they wait for takes.
    thread::sleep(Duration::from_millis(20));
    std::mem::forget(rig);
    exit(0);
}

fn exit_from_a_thread() -> ExitCode {
    let Flying { up, down, rig } = start();
    let exits = thread::spawn(|| {
        thread::sleep(Duration::from_millis(20));
        exit(0);
    });
    up.into_iter().for_each(|transfer| drop(transfer.wait()));
    down.into_iter().for_each(|transfer| drop(transfer.wait()));
    drop(rig);
    // Main may be through before the process has ended.
    exits.join().unwrap()
}
