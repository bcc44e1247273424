//! Every fault at every step: a typed error, nothing leaked, and the next run works.

use std::{sync::Arc, time::Duration};

use pinlane_driver::{
    Conversion, DeviceMemory, Driver, ErrorKind, Float, MemCopy, PinnedRange, Result, Stream, Timing,
    sim::{Alive, DeviceConfig, Fault, FaultPlan, Machine, SimDriver, Step},
};

use crate::{fill, pattern, pin, read, sim};

const BYTES: usize = 5000;

/// How often [`every_verb`] synchronises with a stream. The calls after that are [`Drained`]'s, which tries again.
const SYNCHRONISED: u64 = 2;

/// Host memory of [`every_verb`], which outlives its machine: after a loss an engine may still write to it.
struct Buffers {
    source: Vec<u8>,
    sink: Vec<u8>,
    batch: Vec<u8>,
    /// Words, so that it is aligned.
    table: Vec<u128>,
}

impl Buffers {
    fn new() -> Self {
        Self {
            source: pattern(BYTES),
            sink: vec![0; BYTES],
            batch: vec![0; BYTES],
            table: vec![0; 16],
        }
    }
}

/// Drains a stream before what was made earlier is given back.
struct Drained(Stream);

impl Drop for Drained {
    fn drop(&mut self) {
        while self
            .0
            .synchronize()
            .is_err_and(|error| error.kind() != ErrorKind::DeviceLost)
        {}
    }
}

/// Calls every verb at least once, pinned and pageable.
fn every_verb(device: &Arc<dyn Driver>, buffers: &mut Buffers) -> Result<()> {
    device.memory_info()?;
    let start = std::ptr::NonNull::from(buffers.sink.as_mut_slice()).cast();
    let sink = start.as_ptr();
    let _pinned = unsafe { PinnedRange::new(device, start, BYTES)? };
    let table = std::ptr::NonNull::from(buffers.table.as_mut_slice()).cast();
    let _pinned_table = unsafe { PinnedRange::new(device, table, size_of_val(&*buffers.table))? };
    let memory = [
        DeviceMemory::new(device, BYTES)?,
        DeviceMemory::new(device, BYTES)?,
    ];
    let [first, second] = [memory[0].ptr(), memory[1].ptr()];
    let (one, other) = (Drained(Stream::new(device)?), Drained(Stream::new(device)?));
    let before = one.0.record(Timing::Enabled)?;
    device.busy(Duration::from_micros(50), one.0.raw())?;
    unsafe {
        device.memset(second, 0, BYTES, one.0.raw())?;
        one.0
            .copy(MemCopy::to_device(first, buffers.source.as_ptr(), BYTES))?;
        let halves =
            [0, BYTES / 2].map(|at| MemCopy::on_device(second.offset(at), first.offset(at), BYTES / 2));
        device.copy_batch(&halves, one.0.raw())?;
    }
    let after = one.0.record(Timing::Enabled)?;
    other.0.wait(&after)?;
    unsafe {
        other.0.copy(MemCopy::to_host(sink, second, BYTES))?;
        let halves = [
            MemCopy::to_host(sink, second, 100),
            MemCopy::on_device(second.offset(100), first.offset(100), 100),
        ];
        device.copy_scattered(&halves, table, other.0.raw())?;
        let widening = Conversion::new(Float::F8E4M3, Float::F32).unwrap();
        device.convert(widening, first, second, BYTES / 8, other.0.raw())?;
    }
    let done = other.0.record(Timing::Disabled)?;
    done.query()?;
    done.synchronize()?;
    after.elapsed_since(&before)?;
    unsafe {
        other
            .0
            .copy(MemCopy::to_host(buffers.batch.as_mut_ptr(), second, BYTES))?
    };
    one.0.synchronize()?;
    other.0.synchronize()
}

fn small_pieces() -> DeviceConfig {
    DeviceConfig {
        bounce_bytes: 1024,
        ..DeviceConfig::default()
    }
}

/// Checks that [`every_verb`] works on this device and leaves nothing behind.
fn works(sim: &SimDriver, device: &Arc<dyn Driver>, buffers: &mut Buffers) {
    every_verb(device, buffers).unwrap();
    assert_eq!(buffers.sink, pattern(BYTES));
    assert_eq!(buffers.batch, pattern(BYTES));
    assert_eq!(sim.alive(), Alive::default());
    assert_eq!(sim.freed_in_use(), 0);
}

fn kind_of(fault: Fault) -> Option<ErrorKind> {
    match fault {
        Fault::OutOfMemory => Some(ErrorKind::OutOfMemory),
        Fault::PinLimit => Some(ErrorKind::PinLimit),
        Fault::Refused => Some(ErrorKind::Refused),
        Fault::CopyFailed => Some(ErrorKind::CopyFailed),
        Fault::DeviceLost => Some(ErrorKind::DeviceLost),
        _ => None,
    }
}

#[test]
fn every_fault_at_every_step_is_a_typed_error_that_leaks_nothing() {
    let mut buffers = Buffers::new();
    let (sim, device) = sim(small_pieces());
    works(&sim, &device, &mut buffers);
    let counts = Step::ALL.map(|step| (step, sim.calls(step)));
    let mut tried = 0;
    for (step, calls) in counts {
        assert!(calls > 0, "{step:?} was not called");
        for fault in Fault::all(Duration::from_millis(1)) {
            if !fault.applies_to(step) || fault == Fault::DeviceLost {
                continue;
            }
            for nth in 0..calls {
                sim.set_faults(FaultPlan::new().at(step, nth, fault));
                let result = every_verb(&device, &mut buffers);
                let retried = step == Step::SynchronizeStream && nth >= SYNCHRONISED;
                let expected = kind_of(fault).filter(|_| !retried);
                let found = result.err().map(|error| error.kind());
                assert_eq!(found, expected, "{fault:?} at {step:?} {nth}");
                assert_eq!(sim.alive(), Alive::default(), "{fault:?} at {step:?} {nth}");
                works(&sim, &device, &mut buffers);
                tried += 1;
            }
        }
    }
    assert!(tried > 40, "only {tried} faults were tried");
}

#[test]
fn losing_the_device_at_any_step_fails_every_later_call_and_leaks_nothing() {
    let mut buffers = Buffers::new();
    let (counted, device) = sim(small_pieces());
    works(&counted, &device, &mut buffers);
    for step in Step::ALL {
        for nth in 0..counted.calls(step) {
            let (sim, device) = sim(small_pieces());
            sim.set_faults(FaultPlan::new().at(step, nth, Fault::DeviceLost));
            let result = every_verb(&device, &mut buffers);
            // What is given back last may lose the device after all else went well.
            let at_the_end = matches!(
                step,
                Step::Free | Step::Unpin | Step::DestroyStream | Step::DestroyEvent
            ) || (step == Step::SynchronizeStream && nth >= SYNCHRONISED);
            match &result {
                Ok(()) => assert!(at_the_end, "lost at {step:?} {nth} without an error"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::DeviceLost, "lost at {step:?} {nth}"),
            }
            assert_eq!(
                every_verb(&device, &mut buffers).unwrap_err().kind(),
                ErrorKind::DeviceLost
            );
            assert_eq!(sim.alive(), Alive::default(), "lost at {step:?} {nth}");
            assert_eq!(sim.freed_in_use(), 0);
        }
    }
}

#[test]
fn random_faults_leak_nothing_and_end_with_the_plan() {
    let mut buffers = Buffers::new();
    let (sim, device) = sim(small_pieces());
    let mut failed = 0;
    for seed in 0..100 {
        sim.set_faults(FaultPlan::seeded(seed, 0.05));
        failed += usize::from(every_verb(&device, &mut buffers).is_err());
        assert_eq!(sim.alive(), Alive::default(), "seed {seed}");
        sim.set_faults(FaultPlan::new());
        works(&sim, &device, &mut buffers);
    }
    assert!((1..100).contains(&failed), "{failed} of 100 runs failed");
}

#[test]
fn a_copy_that_fails_fails_what_stands_behind_it_and_what_waits_for_that() {
    let (sim, device) = sim(DeviceConfig::default());
    let mut host = vec![1; 100];
    let _pinned = pin(&device, &mut host);
    let (memory, kept) = (
        DeviceMemory::new(&device, 100).unwrap(),
        DeviceMemory::new(&device, 100).unwrap(),
    );
    let (first, second) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
    fill(&memory, 5, &first);
    fill(&kept, 6, &second);
    let before = first.record(Timing::Disabled).unwrap();
    sim.set_faults(FaultPlan::new().at(Step::Copy, 0, Fault::CopyFailed));
    unsafe {
        first
            .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), 100))
            .unwrap()
    };
    fill(&memory, 7, &first);
    let behind = first.record(Timing::Enabled).unwrap();
    second.wait(&behind).unwrap();
    fill(&kept, 8, &second);
    let waited = second.record(Timing::Disabled).unwrap();

    let failed = |result: Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::CopyFailed);
    before.synchronize().unwrap();
    failed(behind.synchronize());
    failed(behind.query().map(drop));
    failed(behind.elapsed_since(&behind).map(drop));
    failed(waited.synchronize());
    failed(first.synchronize());
    failed(second.synchronize());
    // Told once: both streams work again, and what stood behind the failure was skipped.
    first.synchronize().unwrap();
    second.synchronize().unwrap();
    assert_eq!(read(&memory, &first), vec![5; 100]);
    assert_eq!(read(&kept, &second), vec![6; 100]);
    // An event says what it said until it is recorded again.
    failed(behind.query().map(drop));
    behind.record(&first).unwrap();
    behind.synchronize().unwrap();
}

#[test]
fn a_failure_that_nobody_waited_for_is_told_by_the_idle_stream() {
    let (sim, device) = sim(DeviceConfig::default());
    let mut host = vec![1; 100];
    let _pinned = pin(&device, &mut host);
    let memory = DeviceMemory::new(&device, 100).unwrap();
    let stream = Stream::new(&device).unwrap();
    sim.set_faults(FaultPlan::new().at(Step::Copy, 0, Fault::CopyFailed));
    unsafe {
        stream
            .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), 100))
            .unwrap()
    };
    let event = stream.record(Timing::Disabled).unwrap();
    assert!(event.synchronize().is_err());
    assert_eq!(stream.synchronize().unwrap_err().kind(), ErrorKind::CopyFailed);
    stream.synchronize().unwrap();
}

#[test]
fn a_blocking_copy_that_fails_says_so_itself() {
    let (sim, device) = sim(DeviceConfig::default());
    let memory = DeviceMemory::new(&device, 100).unwrap();
    let stream = Stream::new(&device).unwrap();
    fill(&memory, 1, &stream);
    let mut host = vec![9; 100];
    sim.set_faults(FaultPlan::new().at(Step::Copy, 0, Fault::CopyFailed));
    let copy = MemCopy::to_host(host.as_mut_ptr(), memory.ptr(), 100);
    assert_eq!(
        unsafe { stream.copy(copy) }.unwrap_err().kind(),
        ErrorKind::CopyFailed
    );
    assert_eq!(stream.synchronize().unwrap_err().kind(), ErrorKind::CopyFailed);
    unsafe { stream.copy(copy).unwrap() };
    assert_eq!(host, vec![1; 100]);
}

#[test]
fn a_batch_that_is_refused_half_way_runs_the_copies_before() {
    let (sim, device) = sim(DeviceConfig::default());
    let mut host = vec![3; 100];
    let _pinned = pin(&device, &mut host);
    let memory = DeviceMemory::new(&device, 100).unwrap();
    let stream = Stream::new(&device).unwrap();
    fill(&memory, 0, &stream);
    let halves =
        [0, 50].map(|at| MemCopy::to_device(memory.ptr().offset(at), host.as_ptr().wrapping_add(at), 50));
    sim.set_faults(FaultPlan::new().at(Step::Copy, 1, Fault::Refused));
    let refused = unsafe { device.copy_batch(&halves, stream.raw()) };
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
    let found = read(&memory, &stream);
    assert_eq!((&found[..50], &found[50..]), (&[3; 50][..], &[0; 50][..]));
}

#[test]
fn a_late_copy_is_late_and_right() {
    let (sim, device) = sim(DeviceConfig::default());
    let mut host = pattern(100);
    let _pinned = pin(&device, &mut host);
    let memory = DeviceMemory::new(&device, 100).unwrap();
    let stream = Stream::new(&device).unwrap();
    let late = Duration::from_millis(5);
    sim.set_faults(FaultPlan::new().at(Step::Copy, 0, Fault::Late(late)));
    let start = stream.record(Timing::Enabled).unwrap();
    unsafe {
        stream
            .copy(MemCopy::to_device(memory.ptr(), host.as_ptr(), 100))
            .unwrap()
    };
    let end = stream.record(Timing::Enabled).unwrap();
    end.synchronize().unwrap();
    assert!(end.elapsed_since(&start).unwrap() >= late);
    assert_eq!(read(&memory, &stream), pattern(100));
}

#[test]
#[should_panic(expected = "can't happen")]
fn a_fault_that_can_not_happen_at_a_step_is_a_mistake_in_the_plan() {
    let _plan = FaultPlan::new().at(Step::Query, 0, Fault::PinLimit);
}

#[test]
fn a_plan_from_the_configuration_is_in_place_from_the_start() {
    let faults = FaultPlan::new().at(Step::CreateStream, 0, Fault::OutOfMemory);
    let machine = Machine::new(DeviceConfig {
        faults,
        ..DeviceConfig::default()
    });
    let device = machine.device(0).unwrap();
    assert_eq!(Stream::new(&device).unwrap_err().kind(), ErrorKind::OutOfMemory);
    Stream::new(&device).unwrap();
}
