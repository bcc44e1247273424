//! Handles, sources and devices that are dropped while bytes move.

use std::{ptr::NonNull, sync::Arc, thread, time::Duration};

use pinlane::{
    DType, Device, DeviceOptions, Layout, Route, Tensor, TransferOptions, Tree, driver::sim::Step,
};

use crate::{
    SLOT, bytes_of, foreign,
    rig::{Rig, block_on, eventually, pattern, small_engine},
    tensor,
};

pub(crate) fn a_transfer_that_is_dropped_in_flight_keeps_its_memory_until_the_device_is_done() {
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

pub(crate) fn who_drains_a_device_waits_for_what_was_dropped_and_no_longer_than_told() {
    let rig = Rig::new(1, &small_engine(1, 2, SLOT));
    assert!(!rig.device().drain(Duration::from_secs(30)), "there is nothing");
    let pinned = tensor(1000, 1).pin_memory(rig.device()).unwrap();
    let direct = TransferOptions::new().route(Route::Direct);
    let stall = rig.sim().stall();
    drop(pinned.transfer_with(rig.device(), &direct).unwrap());
    drop(pinned);
    assert!(rig.device().drain(Duration::from_millis(1)));
    assert_eq!(rig.sim().alive().device_allocations, 1, "the device is stalled");
    let draining = thread::spawn({
        let device = rig.device().clone();
        move || device.drain(Duration::from_secs(30))
    });
    drop(stall);
    draining.join().unwrap();
    assert_eq!(rig.sim().alive().device_allocations, 0);
    assert_eq!(rig.device().stats().unwrap().pinned.leased, 0);
    rig.finish();
}

pub(crate) fn a_staged_transfer_that_is_dropped_in_flight_lets_go_of_its_source_and_its_slots_only_then() {
    let rig = Rig::new(1, &small_engine(2, 1, SLOT));
    let (source, kept) = foreign(20 * SLOT);
    let staged = TransferOptions::new().route(Route::Staged);
    let stall = rig.sim().stall();
    let copies = rig.sim().calls(Step::Copy);
    let transfer = source.transfer_with(rig.device(), &staged);
    // More chunks than slots: inline, this call would wait for the stalled device.
    let transfer = transfer.unwrap();
    assert!(!transfer.is_done());
    // What no lane has claimed is abandoned at once.
    eventually("a copy is in flight", || rig.sim().calls(Step::Copy) > copies);
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

pub(crate) fn a_download_that_is_dropped_in_flight_keeps_its_memory_until_the_device_is_done() {
    let rig = Rig::new(1, &small_engine(2, 2, SLOT));
    let there = tensor(20 * SLOT, 3).to(rig.device()).unwrap();
    let stall = rig.sim().stall();
    let copies = rig.sim().calls(Step::Copy);
    let transfer = there.transfer(&Device::host()).unwrap();
    drop(there);
    assert!(!transfer.is_done());
    eventually("a copy is in flight", || rig.sim().calls(Step::Copy) > copies);
    drop(transfer);
    assert_eq!(rig.sim().alive().device_allocations, 1);
    drop(stall);
    eventually("the source is let go", || {
        rig.sim().alive().device_allocations == 0
    });
    rig.finish();
}

pub(crate) fn a_result_lands_although_the_source_was_dropped_meanwhile() {
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

pub(crate) fn a_device_handle_can_be_dropped_while_its_transfers_are_in_flight() {
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

pub(crate) fn the_last_transfer_of_a_device_ends_its_engine_when_it_is_dropped_in_flight() {
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

pub(crate) fn an_owner_that_panics_when_it_is_dropped_does_not_stop_the_others() {
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
