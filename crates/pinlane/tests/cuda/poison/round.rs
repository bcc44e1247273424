//! One round: up behind a busy stream, sources changed as soon as they may be, and down again.

use std::{sync::Arc, time::Duration};

use pinlane::{
    DType, Device, HostMemory, Placement, Route, Tensor, Transfer, TransferOptions, Tree,
    driver::{Event, Stream, Timing},
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{
    bytes::{POISON, assert_holds, poison, unless_over_budget},
    sources::{Memory, Sent},
};
use crate::{
    rig,
    rig::{Rig, pattern},
};

/// What is on its way, and the bytes that must land.
type Flying = (Transfer<Vec<Tensor>>, Vec<Vec<u8>>);
/// What is there, and the bytes that it must have.
type Landed = (Vec<Tensor>, Vec<Vec<u8>>);

pub(super) struct Round<'a> {
    pub(super) device: &'a Device,
    /// Whether the device has a kernel for many pieces.
    gathers: bool,
    pub(super) random: Xoshiro256PlusPlus,
    stream: Stream,
}

impl<'a> Round<'a> {
    pub(super) fn new(rig: &'a Rig, number: u64) -> Self {
        let device = rig.device();
        Self {
            device,
            gathers: device.driver().unwrap().scatter_table().is_some(),
            random: Xoshiro256PlusPlus::seed_from_u64(number),
            stream: Stream::new(device.driver().unwrap()).unwrap(),
        }
    }

    pub(super) fn run(&mut self) {
        let mut there = self.up();
        self.change_sources_after_blocking_calls(&mut there);
        let back = self.down(there);
        for (tree, expected) in &back {
            assert_holds(tree, expected, "a result on the host, after a while");
        }
        // The stream ends with the round, and the busy device should not be late for the next.
        self.stream.synchronize().unwrap();
    }

    /// Sends trees of which only their transfers hold the sources, and drops some of the transfers.
    fn up(&mut self) -> Vec<Landed> {
        let stalled = self.stall();
        let mut flying = Vec::new();
        for _ in 0..self.random.random_range(1..=4) {
            let Sent {
                tree,
                expected,
                routes,
            } = self.tree();
            let options = self.options(&routes, &stalled);
            let transfer = if self.random.random_bool(0.2) {
                let there = poison(&expected).to(self.device).unwrap();
                tree.transfer_into(there, &options).unwrap()
            } else {
                tree.transfer_with(self.device, &options).unwrap()
            };
            drop(tree);
            self.poison_pinned_memory();
            if self.random.random_bool(0.25) {
                drop(transfer);
                self.poison_pinned_memory();
            } else {
                flying.push((transfer, expected));
            }
        }
        self.wait_in_any_order(flying)
    }

    /// Changes each source as soon as a blocking call has returned.
    fn change_sources_after_blocking_calls(&mut self, there: &mut Vec<Landed>) {
        let stalled = self.stall();
        for memory in [Memory::Pageable, Memory::Pinned] {
            let bytes = self.size();
            let expected = pattern(bytes, self.seed());
            let place = match memory {
                Memory::Pinned => HostMemory::Pinned(self.device),
                _ => HostMemory::Pageable,
            };
            let Some(mut source) = unless_over_budget(place.copy_of(&expected, &[bytes])) else {
                continue;
            };
            let landed = match self.random.random_range(0..3) {
                0 => source.to(self.device).unwrap(),
                1 => {
                    let options = self.options(&[None], &stalled);
                    source.to_with(self.device, &options).unwrap()
                }
                _ => {
                    let full = Tensor::full(DType::U8, &[bytes], POISON).unwrap();
                    let mut there = full.to(self.device).unwrap();
                    source.copy_into(&mut there).unwrap();
                    there
                }
            };
            source.as_mut_slice::<u8>().unwrap().fill(POISON);
            there.push((vec![landed], vec![expected]));
        }
    }

    /// Brings everything back, some of it changed on the device just before, and takes what the device frees meanwhile.
    fn down(&mut self, there: Vec<Landed>) -> Vec<Landed> {
        let mut back = Vec::new();
        let mut flying = Vec::new();
        for (tree, mut expected) in there {
            let overwritten = self.random.random_bool(0.5);
            let stalled = if overwritten {
                self.overwrite(&tree, &mut expected)
            } else {
                self.stall()
            };
            let pinned = self.random.random_bool(0.3);
            let mut routes = self.routes();
            routes.push(Some(if pinned { Route::Direct } else { Route::Plain }));
            // What changes on the device is read after that.
            let mut options = self.options(&routes, &stalled).after(stalled);
            if pinned {
                options = options.pinned_result();
            }
            let host = Device::host();
            let started = if self.random.random_bool(0.3) {
                let landed = if overwritten || pinned {
                    unless_over_budget(tree.to_with(&host, &options))
                } else {
                    Some(tree.to(&host).unwrap())
                };
                landed.map(|landed| {
                    assert_holds(&landed, &expected, "a result of a blocking call");
                    back.push((landed, expected.clone()));
                    None
                })
            } else if !pinned && self.random.random_bool(0.2) {
                Some(Some(tree.transfer_into(poison(&expected), &options).unwrap()))
            } else {
                unless_over_budget(tree.transfer_with(&host, &options)).map(Some)
            };
            let abandoned = self.random.random_bool(0.2);
            if overwritten && (abandoned || started.is_none()) {
                // Nothing but the test keeps the memory that its own stream writes.
                self.stream.synchronize().unwrap();
            }
            drop(tree);
            self.poison_device_memory(&expected);
            self.poison_pinned_memory();
            match started.flatten() {
                Some(transfer) if abandoned => drop(transfer),
                Some(transfer) => flying.push((transfer, expected)),
                None => {}
            }
        }
        back.extend(self.wait_in_any_order(flying));
        back
    }

    /// Waits for each in one of the ways there are, the last one started perhaps first.
    fn wait_in_any_order(&mut self, mut flying: Vec<Flying>) -> Vec<Landed> {
        let mut landed = Vec::new();
        while !flying.is_empty() {
            let (transfer, expected) = flying.swap_remove(self.random.random_range(0..flying.len()));
            match self.random.random_range(0..3) {
                0 => {
                    let behind = Stream::new(self.device.driver().unwrap()).unwrap();
                    transfer.fence(&behind).unwrap();
                    behind.synchronize().unwrap();
                    assert!(
                        transfer.is_done(),
                        "a stream passed the fence of a transfer in flight"
                    );
                }
                1 => rig::eventually("the transfer is done", || transfer.is_done()),
                _ => {}
            }
            let tree = transfer.wait().unwrap();
            if tree[0].device().is_host() {
                assert_holds(&tree, &expected, "a result that was just waited for");
            }
            landed.push((tree, expected));
        }
        landed
    }

    /// An event that fires only when the device has been busy for a while.
    fn stall(&mut self) -> Arc<Event> {
        let busy = Duration::from_micros(self.random.random_range(50..1500));
        let driver = self.stream.driver();
        driver.busy(busy, self.stream.raw()).unwrap();
        Arc::new(self.stream.record(Timing::Disabled).unwrap())
    }

    /// Writes over the tensors on the device, late; gives the event after which that is done.
    fn overwrite(&mut self, tree: &[Tensor], expected: &mut [Vec<u8>]) -> Arc<Event> {
        drop(self.stall());
        for (tensor, expected) in tree.iter().zip(expected) {
            let value = self.random.random();
            // SAFETY: the tensor's own memory: it has landed and is contiguous there. Whoever reads it waits for the event;
            // the caller, or a transfer behind that event, keeps the tensor until then.
            unsafe {
                let ptr = tensor.device_ptr().unwrap();
                let driver = self.stream.driver();
                driver
                    .memset(ptr, value, expected.len(), self.stream.raw())
                    .unwrap();
            }
            expected.fill(value);
        }
        Arc::new(self.stream.record(Timing::Disabled).unwrap())
    }

    fn options(&mut self, routes: &[Option<Route>], stalled: &Arc<Event>) -> TransferOptions {
        let mut options = TransferOptions::new();
        if let Some(route) = routes[self.random.random_range(0..routes.len())] {
            options = options.route(route);
        }
        if self.random.random_bool(0.3) {
            options = options.placement(Placement::Separate);
        }
        if self.random.random_bool(0.7) {
            options = options.after(Arc::clone(stalled));
        }
        options
    }

    /// The choices of a route that carry anything.
    pub(super) fn routes(&self) -> Vec<Option<Route>> {
        let mut routes = vec![None, Some(Route::Staged), Some(Route::Packed)];
        if self.gathers {
            routes.push(Some(Route::Gathered));
        }
        routes
    }
}
