//! Another library in the process that uses the same device through its primary context.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use pinlane::{
    DType, Device, DeviceOptions, Error, Layout, Route, Tensor, TransferOptions, Tree,
    driver::{Backend, ErrorKind, RawStream, Stream, Timing},
};

#[path = "../../../cuda/tests/cuda/other_library.rs"]
mod other_library;

use crate::{
    rig,
    rig::{Rig, eventually, pattern},
};
use other_library::OtherLibrary;

fn ordinal(rig: &Rig) -> i32 {
    let id = rig.device().id().unwrap();
    i32::try_from(id.ordinal).unwrap()
}

/// Fills memory of its own on a stream of its own, and reads it back, until told to stop; each time all of it is right.
fn work_meanwhile(ordinal: i32, stop: &AtomicBool) {
    const BYTES: usize = 4 << 20;
    let mut rounds = 0_u64;
    while !stop.load(Ordering::Relaxed) || rounds == 0 {
        // Comes and goes, as a library does that is loaded late.
        let other = OtherLibrary::on(ordinal);
        let (stream, memory) = (other.make_blocking_stream(), other.allocate(BYTES));
        let mut sink = vec![0; BYTES];
        for value in 0..10_u8 {
            other.fill(memory, value, BYTES, stream);
            other.read(memory, &mut sink, stream);
            assert!(
                sink.iter().all(|byte| *byte == value),
                "the other library reads what it did not write, round {rounds}"
            );
        }
        other.free(memory);
        other.destroy_stream(stream);
        rounds += 1;
    }
}

pub(crate) fn transfers_and_another_library_do_not_disturb_each_other() {
    const SIZES: [usize; 5] = [7, 5000, 300_000, 1 << 20, 12 << 20];
    let rig = rig(&DeviceOptions::default());
    let ordinal = ordinal(&rig);
    let stop = AtomicBool::new(false);
    let move_tree = |round: usize| {
        let sent: Vec<_> = SIZES.iter().map(|&bytes| pattern(bytes, round)).collect();
        let tree: Vec<_> = sent
            .iter()
            .map(|bytes| Tensor::from_bytes(bytes.clone(), DType::U8, &[bytes.len()]).unwrap())
            .collect();
        let back = tree.to(rig.device()).unwrap().to(&Device::host()).unwrap();
        for (landed, sent) in back.iter().zip(&sent) {
            assert!(
                landed.as_bytes().unwrap() == sent,
                "{} bytes, round {round}",
                sent.len()
            );
        }
    };
    thread::scope(|scope| {
        let meanwhile = scope.spawn(|| work_meanwhile(ordinal, &stop));
        // Also when a round panics, or the other thread would never end.
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (0..40).for_each(move_tree)));
        stop.store(true, Ordering::Relaxed);
        meanwhile.join().unwrap();
        rounds.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    // The other library has let go of the context by now.
    move_tree(100);
    rig.finish();
}

pub(crate) fn memory_that_another_library_pinned_is_copied_directly() {
    const BYTES: usize = 5 << 20;
    let rig = rig(&DeviceOptions::default());
    let other = OtherLibrary::on(ordinal(&rig));
    let pinned = other.allocate_pinned(BYTES);
    // SAFETY: as many bytes as were allocated, which nobody else knows.
    unsafe { pinned.copy_from_nonoverlapping(pattern(BYTES, 1).as_ptr(), BYTES) };
    assert!(rig.device().driver().unwrap().is_pinned(pinned, BYTES));

    let owner = Arc::new(());
    let layout = Layout::contiguous(&[BYTES]).unwrap();
    let ptr = NonNull::new(pinned).unwrap();
    // SAFETY: the bytes are freed below, when only this function holds the owner; nobody writes them.
    let foreign = unsafe {
        Tensor::from_raw_parts(
            ptr,
            BYTES,
            DType::U8,
            layout,
            Some(Backend::Cuda),
            Arc::clone(&owner) as _,
        )
    };
    let foreign = foreign.unwrap();
    assert!(foreign.is_pinned());
    let leased = rig.device().stats().unwrap().pinned.leased;
    for options in [
        TransferOptions::new(),
        TransferOptions::new().route(Route::Direct),
    ] {
        let transfer = foreign.transfer_with(rig.device(), &options).unwrap();
        for plan in transfer.plans() {
            assert!(plan.chunks_by(Route::Direct) > 0, "{plan}");
        }
        let back = transfer.wait().unwrap();
        assert_eq!(
            rig.device().stats().unwrap().pinned.leased,
            leased,
            "a slot was used"
        );
        let back = back
            .to_with(&Device::host(), &TransferOptions::new().route(Route::Plain))
            .unwrap();
        assert!(back.as_bytes().unwrap() == pattern(BYTES, 1));
    }
    drop(foreign);
    eventually("nothing uses the foreign memory", || {
        Arc::strong_count(&owner) == 1
    });
    other.free_pinned(pinned);
    rig.finish();
}

pub(crate) fn a_fence_on_a_stream_under_capture_is_an_error_that_says_so() {
    let rig = rig(&DeviceOptions::default());
    let driver = rig.device().driver().unwrap();
    let other = OtherLibrary::on(ordinal(&rig));
    let raw = other.make_blocking_stream();
    // SAFETY: the stream is destroyed after its last use.
    let stream = unsafe { Stream::adopt(driver, RawStream::from_raw(raw as u64)) };
    let memory = other.allocate(1);
    let sent = Tensor::from_bytes(pattern(5000, 1), DType::U8, &[5000]).unwrap();

    other.begin_capture(raw);
    other.fill(memory, 1, 1, raw);
    let transfer = sent.transfer(rig.device()).unwrap();
    let is_refused = |error: &pinlane::driver::Error| {
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("under graph capture"), "{error}");
    };
    // An event to come after can't be had of such a stream either.
    is_refused(&stream.record(Timing::Disabled).unwrap_err());
    match transfer.fence(&stream).unwrap_err() {
        Error::Driver { source, .. } => is_refused(&source),
        error => panic!("{error}"),
    }
    // Neither the transfer nor the capture takes harm.
    let there = transfer.wait().unwrap();
    other.end_capture(raw);
    let back = there.to(&Device::host()).unwrap();
    assert!(back.as_bytes().unwrap() == pattern(5000, 1));
    drop((stream, there, back));
    other.free(memory);
    other.destroy_stream(raw);
    rig.finish();
}
