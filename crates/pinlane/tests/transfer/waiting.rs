//! Waiting, awaiting and fencing: what is woken or starts, and when.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use pinlane::{
    Device, DeviceOptions, Error, Route, Transfer, TransferOptions, Tree,
    driver::{
        ErrorKind, Stream, Timing,
        sim::{Fault, FaultPlan, Step},
    },
};

use crate::{
    SLOT, bytes_of,
    rig::{Rig, block_on, eventually, pattern, small_engine},
    tensor,
};

fn poll_once<T: Tree>(transfer: &mut Transfer<T>, waker: &Waker) -> Poll<Result<T, Error>> {
    Pin::new(transfer).poll(&mut Context::from_waker(waker))
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn a_transfer_can_be_sent_to_another_thread_and_waited_for_there() {
    fn is_send<T: Send>(_: &T) {}
    let rig = Rig::open(1, &small_engine(2, 2, SLOT));
    let transfer = vec![tensor(3 * SLOT, 1), tensor(10, 2)]
        .transfer(rig.device())
        .unwrap();
    is_send(&transfer);
    let there = thread::spawn(move || transfer.wait()).join().unwrap().unwrap();
    assert!(bytes_of(&there[1]) == pattern(10, 2));
    drop(there);
    rig.finish();
}

pub(crate) fn a_task_that_awaits_is_woken_when_the_transfer_lands_and_not_before() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let stall = rig.sim().stall();
    let mut transfer = tensor(100_000, 1).transfer(rig.device()).unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(poll_once(&mut transfer, &waker).is_pending());
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    drop(stall);
    eventually("the task is woken", || count.0.load(Ordering::SeqCst) == 1);
    let Poll::Ready(there) = poll_once(&mut transfer, &waker) else {
        panic!("woken, but not ready");
    };
    assert!(bytes_of(&there.unwrap()) == pattern(100_000, 1));
    drop(transfer);
    rig.finish();
}

pub(crate) fn the_task_that_polled_last_is_the_one_that_is_woken() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let stall = rig.sim().stall();
    let mut transfer = tensor(1000, 1).transfer(rig.device()).unwrap();
    let [first, second] = [Arc::new(Count::default()), Arc::new(Count::default())];
    assert!(poll_once(&mut transfer, &Arc::clone(&first).into()).is_pending());
    assert!(poll_once(&mut transfer, &Arc::clone(&second).into()).is_pending());
    drop(stall);
    eventually("the second task is woken", || {
        second.0.load(Ordering::SeqCst) == 1
    });
    assert_eq!(first.0.load(Ordering::SeqCst), 0);
    drop(transfer);
    rig.finish();
}

pub(crate) fn two_tasks_await_their_own_transfers() {
    let rig = Rig::new(1, &small_engine(2, 2, SLOT));
    let stall = rig.sim().stall();
    let tasks: Vec<_> = (0..2)
        .map(|seed| {
            let device = rig.device().clone();
            thread::spawn(move || {
                let transfer = tensor(9 * SLOT, seed).transfer(&device)?;
                block_on(async { transfer.await?.transfer(&Device::host())?.await })
            })
        })
        .collect();
    drop(stall);
    for (seed, task) in tasks.into_iter().enumerate() {
        let back = task.join().unwrap().unwrap();
        assert!(back.as_bytes().unwrap() == pattern(9 * SLOT, seed));
    }
    rig.finish();
}

pub(crate) fn a_task_that_was_woken_by_mistake_is_woken_again() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let stall = rig.sim().stall();
    let mut transfer = tensor(1000, 1).transfer(rig.device()).unwrap();
    // The first query is this poll's, the second is the reactor's, which takes a refusal for the end.
    rig.sim()
        .set_faults(FaultPlan::new().at(Step::Query, 1, Fault::Refused));
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(poll_once(&mut transfer, &waker).is_pending());
    eventually("the task is woken", || count.0.load(Ordering::SeqCst) == 1);
    assert!(poll_once(&mut transfer, &waker).is_pending());
    drop(stall);
    eventually("the task is woken again", || count.0.load(Ordering::SeqCst) == 2);
    drop(transfer);
    rig.finish();
}

pub(crate) fn no_copy_starts_before_the_event_that_it_is_to_come_after() {
    let rig = Rig::new(1, &small_engine(2, 2, SLOT));
    let driver = rig.device().driver().unwrap();
    for bytes in [100, 10 * SLOT] {
        let there = tensor(bytes, 1).to(rig.device()).unwrap();
        let stream = Stream::new(driver).unwrap();
        let stall = rig.sim().stall_stream(stream.raw()).unwrap();
        // SAFETY: the tensor's own memory, which is kept until the transfer has landed behind the event.
        unsafe {
            driver
                .memset(there.device_ptr().unwrap(), 9, bytes, stream.raw())
                .unwrap();
        }
        let event = Arc::new(stream.record(Timing::Disabled).unwrap());
        let after = TransferOptions::new().after(event);
        let transfer = there.transfer_with(&Device::host(), &after).unwrap();
        assert!(!transfer.is_done());
        drop(stall);
        let back = transfer.wait().unwrap();
        assert!(back.as_bytes().unwrap() == vec![9; bytes]);
    }
    rig.finish();
}

pub(crate) fn work_behind_a_fence_starts_only_when_the_tree_has_landed() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let driver = rig.device().driver().unwrap();
    let [before, behind] = [Stream::new(driver).unwrap(), Stream::new(driver).unwrap()];
    let stall = rig.sim().stall_stream(before.raw()).unwrap();
    // Without work on it, the stalled stream's event would have fired.
    driver.busy(Duration::from_micros(1), before.raw()).unwrap();
    let after = TransferOptions::new().after(Arc::new(before.record(Timing::Disabled).unwrap()));
    let transfer = tensor(5000, 1).transfer_with(rig.device(), &after).unwrap();
    transfer.fence(&behind).unwrap();
    let passed = behind.record(Timing::Disabled).unwrap();
    assert!(!passed.query().unwrap());
    drop(stall);
    passed.synchronize().unwrap();
    assert!(transfer.is_done());
    drop((transfer, before, behind, passed, after));
    rig.finish();
}

pub(crate) fn transfers_behind_an_event_that_does_not_fire_hold_up_no_others() {
    let options = DeviceOptions {
        pinned_budget: Some(4 << 20),
        ..small_engine(2, 2, SLOT)
    };
    let rig = Rig::new(1, &options);
    let driver = rig.device().driver().unwrap();
    let stream = Stream::new(driver).unwrap();
    let stall = rig.sims[0].stall_stream(stream.raw()).unwrap();
    driver.busy(Duration::ZERO, stream.raw()).unwrap();
    let event = Arc::new(stream.record(Timing::Disabled).unwrap());
    let after = TransferOptions::new().after(event);
    let sizes = [100, SLOT, 20 * SLOT];
    let held_back: Vec<_> = sizes
        .iter()
        .map(|&bytes| {
            let pinned = tensor(bytes, 2).pin_memory(rig.device()).unwrap();
            let both = vec![tensor(bytes, 1), pinned];
            both.transfer_with(rig.device(), &after).unwrap()
        })
        .collect();
    for bytes in sizes {
        let there = tensor(bytes, 3).to(rig.device()).unwrap();
        assert!(bytes_of(&there) == pattern(bytes, 3));
    }
    assert!(held_back.iter().all(|transfer| !transfer.is_done()));
    drop(stall);
    for (transfer, bytes) in held_back.into_iter().zip(sizes) {
        let there = transfer.wait().unwrap();
        assert!(bytes_of(&there[0]) == pattern(bytes, 1));
        assert!(bytes_of(&there[1]) == pattern(bytes, 2));
    }
    drop((stream, after));
    rig.finish();
}

pub(crate) fn who_does_not_wait_is_not_held_up_by_what_the_driver_stages_behind_an_event() {
    // The simulator stages 8 KiB at once: a copy of this much would wait for the event.
    const BYTES: usize = 300 << 10;
    let plainly = Rig::new(1, &DeviceOptions::default());
    let mut profile = plainly.device().profile().unwrap().clone();
    plainly.finish();
    profile.plain_bytes = 1 << 20;
    let options = DeviceOptions {
        profile: Some(profile),
        ..DeviceOptions::default()
    };
    let rig = Rig::new(1, &options);
    let driver = rig.device().driver().unwrap();
    let [before, behind] = [Stream::new(driver).unwrap(), Stream::new(driver).unwrap()];
    let sent = tensor(BYTES, 1);
    let at_once = sent.transfer(rig.device()).unwrap();
    assert!(at_once.plans().all(|plan| plan.chunks_by(Route::Plain) == 1));
    drop(at_once.wait().unwrap());
    let stall = rig.sim().stall_stream(before.raw()).unwrap();
    driver.busy(Duration::ZERO, before.raw()).unwrap();
    let after = TransferOptions::new().after(Arc::new(before.record(Timing::Disabled).unwrap()));
    let plain = after.clone().route(Route::Plain);
    // Neither waits: this thread is the one that lets the event fire.
    let flying = [&after, &plain].map(|options| sent.transfer_with(rig.device(), options).unwrap());
    assert!(flying.iter().all(|transfer| !transfer.is_done()));
    // What the planner chooses is read ahead, so that a fence does not wait either.
    flying[0].fence(&behind).unwrap();
    drop(stall);
    for transfer in flying {
        assert!(bytes_of(&transfer.wait().unwrap()) == pattern(BYTES, 1));
    }
    drop((before, behind, after, plain));
    rig.finish();
}

pub(crate) fn what_fits_half_of_the_slots_is_read_ahead_of_its_event() {
    // Too long for the caller's own thread.
    const BYTES: usize = 2 << 20;
    let rig = Rig::new(1, &small_engine(4, 20, 64 << 10));
    let driver = rig.device().driver().unwrap();
    let [before, behind] = [Stream::new(driver).unwrap(), Stream::new(driver).unwrap()];
    let stall = rig.sim().stall_stream(before.raw()).unwrap();
    driver.busy(Duration::ZERO, before.raw()).unwrap();
    let after = TransferOptions::new().after(Arc::new(before.record(Timing::Disabled).unwrap()));
    let ahead = tensor(BYTES, 1).transfer_with(rig.device(), &after).unwrap();
    assert!(ahead.plans().all(|plan| !plan.is_inline() && plan.chunks() > 1));
    // Of more the slots would be all that there are.
    let parked = [3, 4].map(|seed| tensor(BYTES, seed).transfer_with(rig.device(), &after).unwrap());
    // Neither blocks, although the event has not fired.
    assert!(ahead.wait_staged());
    ahead.fence(&behind).unwrap();
    let passed = behind.record(Timing::Disabled).unwrap();
    assert!(!ahead.is_done() && !passed.query().unwrap());
    let other = tensor(BYTES, 2).to(rig.device()).unwrap();
    assert!(bytes_of(&other) == pattern(BYTES, 2));
    assert!(!ahead.is_done() && parked.iter().all(|parked| !parked.is_done()));
    drop(stall);
    passed.synchronize().unwrap();
    assert!(ahead.is_done());
    assert!(bytes_of(&ahead.wait().unwrap()) == pattern(BYTES, 1));
    for (parked, seed) in parked.into_iter().zip([3, 4]) {
        assert!(bytes_of(&parked.wait().unwrap()) == pattern(BYTES, seed));
    }
    drop((other, before, behind, passed, after));
    rig.finish();
}

pub(crate) fn a_stream_of_another_machine_can_not_be_fenced() {
    let (rig, other) = (
        Rig::new(1, &DeviceOptions::default()),
        Rig::new(1, &DeviceOptions::default()),
    );
    let foreign = Stream::new(other.device().driver().unwrap()).unwrap();
    let transfer = tensor(100, 1).transfer(rig.device()).unwrap();
    let refused = transfer.fence(&foreign).unwrap_err();
    assert_eq!(refused.driver_kind(), Some(ErrorKind::InvalidHandle), "{refused}");
    drop(transfer.wait().unwrap());
    drop(foreign);
    other.finish();
    rig.finish();
}
