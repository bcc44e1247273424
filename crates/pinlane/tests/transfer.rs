//! What a transfer promises, whatever the moment at which it is waited for, awaited, fenced or dropped.

mod rig;

use std::{
    any::Any,
    pin::Pin,
    ptr::NonNull,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use pinlane::{
    DType, Device, DeviceOptions, Error, HostMemory, Layout, Placement, Route, Tensor, TensorMap, Transfer,
    TransferOptions, Tree,
    driver::{
        ErrorKind, Stream, Timing,
        sim::{Fault, FaultPlan, Step},
    },
};
use rig::{Rig, block_on, eventually, pattern, small_engine};

const SLOT: usize = 4096;

fn tensor(bytes: usize, seed: usize) -> Tensor {
    Tensor::from_bytes(pattern(bytes, seed), DType::U8, &[bytes]).unwrap()
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let host = tensor.to(&Device::host()).unwrap();
    host.as_bytes().unwrap().to_vec()
}

/// A tensor over foreign memory, and a way to see whether that memory is still kept.
fn foreign(bytes: usize) -> (Tensor, Weak<Vec<u8>>) {
    let owner = Arc::new(pattern(bytes, 5));
    let kept = Arc::downgrade(&owner);
    let ptr = NonNull::new(owner.as_ptr().cast_mut()).unwrap();
    let layout = Layout::contiguous(&[bytes]).unwrap();
    let owner: Arc<dyn Any + Send + Sync> = owner;
    // SAFETY: the vector is as long, lives in the owner, and nobody writes it.
    let tensor = unsafe { Tensor::from_raw_parts(ptr, bytes, DType::U8, layout, None, owner) };
    (tensor.unwrap(), kept)
}

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

#[test]
fn a_transfer_that_is_dropped_in_flight_keeps_its_memory_until_the_device_is_done() {
    let rig = Rig::new(1, &small_engine(1, 2, SLOT));
    let pinned = tensor(1000, 1).pin_memory(rig.device()).unwrap();
    let leased = rig.device().stats().unwrap().pinned.leased;

    let stall = rig.sim().stall();
    let direct = TransferOptions::new().route(Route::Direct);
    let transfer = pinned.transfer_with(rig.device(), &direct).unwrap();
    drop(pinned);
    drop(transfer);
    assert_eq!(
        rig.sim().alive().device_allocations,
        1,
        "the copy still writes its result"
    );
    assert_eq!(
        rig.device().stats().unwrap().pinned.leased,
        leased,
        "the copy still reads its source"
    );

    drop(stall);
    eventually("the memory is let go", || {
        rig.sim().alive().device_allocations == 0 && rig.device().stats().unwrap().pinned.leased == 0
    });
    rig.finish();
}

#[test]
fn a_staged_transfer_that_is_dropped_in_flight_lets_go_of_its_source_and_its_slots_only_then() {
    let rig = Rig::new(1, &small_engine(2, 1, SLOT));
    let (source, kept) = foreign(20 * SLOT);
    let staged = TransferOptions::new().route(Route::Staged);
    let stall = rig.sim().stall();
    let transfer = source.transfer_with(rig.device(), &staged);
    // More chunks than slots: inline, this call would wait for the stalled device.
    let transfer = transfer.unwrap();
    assert!(!transfer.is_done());
    drop((source, transfer));
    assert!(kept.upgrade().is_some());
    drop(stall);
    eventually("the source is let go", || kept.upgrade().is_none());
    // The slots work for the next one.
    let next = tensor(20 * SLOT, 2);
    assert!(bytes_of(&next.to(rig.device()).unwrap()) == pattern(20 * SLOT, 2));
    drop(next);
    rig.finish();
}

#[test]
fn a_download_that_is_dropped_in_flight_keeps_its_memory_until_the_device_is_done() {
    let rig = Rig::new(1, &small_engine(2, 2, SLOT));
    let there = tensor(20 * SLOT, 3).to(rig.device()).unwrap();
    let stall = rig.sim().stall();
    let transfer = there.transfer(&Device::host()).unwrap();
    drop(there);
    assert!(!transfer.is_done());
    drop(transfer);
    assert_eq!(rig.sim().alive().device_allocations, 1);
    drop(stall);
    eventually("the source is let go", || {
        rig.sim().alive().device_allocations == 0
    });
    rig.finish();
}

#[test]
fn a_result_lands_although_the_source_was_dropped_meanwhile() {
    let rig = Rig::new(1, &small_engine(1, 2, SLOT));
    let (source, kept) = foreign(5 * SLOT);
    let stall = rig.sim().stall();
    let device = rig.device().clone();
    let transfer = thread::spawn(move || source.transfer(&device));
    drop(stall);
    let there = transfer.join().unwrap().unwrap().wait().unwrap();
    assert!(bytes_of(&there) == pattern(5 * SLOT, 5));
    assert!(kept.upgrade().is_none(), "a landed transfer keeps nothing");
    drop(there);
    rig.finish();
}

#[test]
fn a_transfer_can_be_sent_to_another_thread_and_waited_for_there() {
    fn is_send<T: Send>(_: &T) {}
    let rig = Rig::new(1, &small_engine(2, 2, SLOT));
    let transfer = vec![tensor(3 * SLOT, 1), tensor(10, 2)]
        .transfer(rig.device())
        .unwrap();
    is_send(&transfer);
    let there = thread::spawn(move || transfer.wait()).join().unwrap().unwrap();
    assert!(bytes_of(&there[1]) == pattern(10, 2));
    drop(there);
    rig.finish();
}

#[test]
fn a_task_that_awaits_is_woken_when_the_transfer_lands_and_not_before() {
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

#[test]
fn the_task_that_polled_last_is_the_one_that_is_woken() {
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

#[test]
fn two_tasks_await_their_own_transfers() {
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

#[test]
fn a_task_that_was_woken_by_mistake_is_woken_again() {
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

#[test]
fn a_device_handle_can_be_dropped_while_its_transfers_are_in_flight() {
    let Rig { sims, devices } = Rig::new(1, &small_engine(2, 2, SLOT));
    let stall = sims[0].stall();
    let dropped = tensor(100, 1).transfer(&devices[0]).unwrap();
    let waited = tensor(100, 2).transfer(&devices[0]).unwrap();
    let large = thread::spawn({
        let device = devices[0].clone();
        move || tensor(30 * SLOT, 3).transfer(&device)
    });
    drop(devices);
    drop(dropped);
    drop(stall);
    let there = waited.wait().unwrap();
    let large = large.join().unwrap().unwrap().wait().unwrap();
    assert!(bytes_of(&there) == pattern(100, 2));
    assert!(bytes_of(&large) == pattern(30 * SLOT, 3));
    drop((there, large));
    Rig {
        sims,
        devices: Vec::new(),
    }
    .finish();
}

#[test]
fn the_last_transfer_of_a_device_ends_its_engine_when_it_is_dropped_in_flight() {
    let Rig { sims, devices } = Rig::new(1, &small_engine(1, 1, SLOT));
    let stall = sims[0].stall();
    let transfer = tensor(100, 1).transfer(&devices[0]).unwrap();
    drop(devices);
    drop(transfer);
    assert_eq!(sims[0].alive().device_allocations, 1);
    drop(stall);
    Rig {
        sims,
        devices: Vec::new(),
    }
    .finish();
}

#[test]
fn results_of_one_slab_are_written_separately() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let sources = vec![tensor(100, 1), tensor(100, 2), tensor(100, 3)];
    let there = sources.to(rig.device()).unwrap();
    for options in [TransferOptions::new(), TransferOptions::new().pinned_result()] {
        let mut back = there.to_with(&Device::host(), &options).unwrap();
        back[1].as_mut_slice::<u8>().unwrap().fill(7);
        assert!(back[0].as_bytes().unwrap() == pattern(100, 1));
        assert!(back[1].as_bytes().unwrap() == [7; 100]);
        assert!(back[2].as_bytes().unwrap() == pattern(100, 3));
    }
    drop(there);
    rig.finish();
}

#[test]
fn a_source_can_be_written_again_once_its_transfer_has_landed() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let mut sources = vec![
        tensor(100, 1),
        tensor(200_000, 1).pin_memory(rig.device()).unwrap(),
    ];
    for step in 0..10 {
        for source in &mut sources {
            source.as_mut_slice::<u8>().unwrap().fill(step);
        }
        let there = sources.transfer(rig.device()).unwrap().wait().unwrap();
        assert!(bytes_of(&there[1]) == vec![step; 200_000]);
    }
    drop(sources);
    rig.finish();
}

#[test]
fn no_copy_starts_before_the_event_that_it_is_to_come_after() {
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

#[test]
fn work_behind_a_fence_starts_only_when_the_tree_has_landed() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let driver = rig.device().driver().unwrap();
    let [before, behind] = [Stream::new(driver).unwrap(), Stream::new(driver).unwrap()];
    let stall = rig.sim().stall_stream(before.raw()).unwrap();
    // Without work on it, the stalled stream's event would have fired.
    driver
        .busy(std::time::Duration::from_micros(1), before.raw())
        .unwrap();
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

#[test]
fn what_is_there_already_is_shared_and_not_copied() {
    let rig = Rig::new(2, &DeviceOptions::default());
    let host = tensor(1000, 1);
    let there = host.to(rig.device()).unwrap();
    let same = there.to(rig.device()).unwrap();
    assert_eq!(same.device_ptr(), there.device_ptr());
    let still = host.to(&Device::host()).unwrap();
    assert_eq!(
        still.as_bytes().unwrap().as_ptr(),
        host.as_bytes().unwrap().as_ptr()
    );
    assert_eq!(rig.sim().alive().device_allocations, 1);
    assert!(there.transfer(rig.device()).unwrap().is_done());
    drop((there, same));
    rig.finish();
}

#[test]
fn a_tree_from_the_host_and_two_devices_moves_as_one_transfer() {
    let rig = Rig::new(2, &small_engine(2, 2, SLOT));
    let mut tree = TensorMap::new();
    let homes = [Device::host(), rig.devices[0].clone(), rig.devices[1].clone()];
    for seed in 0..9 {
        let there = tensor(1000 * seed + 1, seed).to(&homes[seed % 3]).unwrap();
        tree.insert(format!("t{seed}"), there).unwrap();
    }
    for to in &homes {
        let landed = tree.transfer(to).unwrap().wait().unwrap();
        for seed in 0..9 {
            let (was, is) = (
                tree.get(&format!("t{seed}")).unwrap(),
                landed.get(&format!("t{seed}")).unwrap(),
            );
            assert_eq!(is.device(), *to);
            assert!(bytes_of(is) == pattern(1000 * seed + 1, seed));
            assert!(was.device() != *to || was.device_ptr() == is.device_ptr());
        }
    }
    drop((tree, homes));
    rig.finish();
}

#[test]
fn a_copy_that_fails_is_told_although_later_chunks_succeed() {
    let rig = Rig::new(1, &small_engine(1, 1, SLOT));
    let staged = TransferOptions::new().route(Route::Staged);
    let source = tensor(8 * SLOT, 1);
    for failing in 0..8 {
        rig.sim()
            .set_faults(FaultPlan::new().at(Step::Copy, failing, Fault::CopyFailed));
        let error = source.to_with(rig.device(), &staged).unwrap_err();
        assert_eq!(error.driver_kind(), Some(ErrorKind::CopyFailed), "{error}");
        let again = source.to_with(rig.device(), &staged).unwrap();
        assert!(bytes_of(&again) == pattern(8 * SLOT, 1));
    }
    drop(source);
    rig.finish();
}

#[test]
fn a_tree_that_is_refused_in_part_leaves_nothing_behind() {
    let rig = Rig::new(2, &DeviceOptions::default());
    let there = tensor(1000, 1).to(&rig.devices[1]).unwrap();
    let tree = (tensor(1000, 2), there);
    // The part from the host gets its memory, the part from the other device does not.
    rig.sim()
        .set_faults(FaultPlan::new().at(Step::Allocate, 1, Fault::OutOfMemory));
    let error = tree.to(rig.device()).unwrap_err();
    assert_eq!(error.driver_kind(), Some(ErrorKind::OutOfMemory), "{error}");
    assert_eq!(rig.sim().alive().device_allocations, 0);
    assert_eq!(rig.device().stats().unwrap().leaked_bytes, 0);
    drop(tree);
    rig.finish();
}

#[test]
fn every_tensor_has_an_allocation_of_its_own_where_asked() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let tree = vec![tensor(100, 1), tensor(100, 2), tensor(100, 3)];
    let slab = tree.to(rig.device()).unwrap();
    assert_eq!(rig.sim().alive().device_allocations, 1);
    let separate = TransferOptions::new().placement(Placement::Separate);
    let apart = tree.to_with(rig.device(), &separate).unwrap();
    assert_eq!(rig.sim().alive().device_allocations, 4);
    drop(apart);
    assert_eq!(rig.sim().alive().device_allocations, 1);
    drop(slab);
    rig.finish();
}

#[test]
fn a_pinned_result_comes_out_of_the_budget_and_goes_back_to_it() {
    let rig = Rig::new(1, &DeviceOptions::default());
    let there = tensor(10_000, 1).to(rig.device()).unwrap();
    let before = rig.device().stats().unwrap().pinned.leased;
    let pinned = TransferOptions::new().pinned_result();
    let back = there.to_with(&Device::host(), &pinned).unwrap();
    assert!(back.is_pinned());
    assert!(rig.device().stats().unwrap().pinned.leased >= before + 10_000);
    assert!(back.as_bytes().unwrap() == pattern(10_000, 1));
    drop(back);
    assert_eq!(rig.device().stats().unwrap().pinned.leased, before);
    let zeros = HostMemory::Pinned(rig.device())
        .zeros(DType::U8, &[10_000])
        .unwrap();
    assert!(
        zeros.as_bytes().unwrap().iter().all(|byte| *byte == 0),
        "a lease is used again"
    );
    drop((there, zeros));
    rig.finish();
}

#[test]
fn an_owner_that_panics_when_it_is_dropped_does_not_stop_the_others() {
    struct Panics;

    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("on purpose: the owner of foreign memory panics");
        }
    }

    let rig = Rig::new(1, &DeviceOptions::default());
    let bytes: &'static [u8] = Box::leak(vec![7; 100].into_boxed_slice());
    let layout = Layout::contiguous(&[100]).unwrap();
    // SAFETY: the bytes are never freed nor written.
    let foreign = unsafe {
        Tensor::from_raw_parts(
            NonNull::from(bytes).cast(),
            bytes.len(),
            DType::U8,
            layout,
            None,
            Arc::new(Panics),
        )
    };
    let stall = rig.sims[0].stall();
    drop(foreign.unwrap().transfer(rig.device()).unwrap());
    let later = tensor(100, 1).transfer(rig.device()).unwrap();
    drop(stall);
    assert_eq!(block_on(later).unwrap().device(), *rig.device());
    rig.finish();
}
