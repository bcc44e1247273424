//! A thousand rounds of what must never go wrong: memory that is used again while a copy still reads or writes it.
//!
//! Each round sends trees to the device and back behind a stream that is busy for a while, so that copies are late for
//! sure. Meanwhile whatever could be used again is, and is filled with poison: sources whose tensors are dropped poison
//! themselves when they are freed, the pinned pool's free ranges and the device's freed blocks are taken and overwritten,
//! slots are too few for all chunks. Some transfers are dropped in flight. All that lands is compared byte for byte.
//!
//! A round is a function of its number; a failure names it.

use std::{any::Any, hint::black_box, ptr::NonNull, sync::Arc, thread, time::Duration};

use pinlane::{
    DType, Device, DeviceOptions, HostMemory, Layout, Placement, Profile, Route, Tensor, Transfer,
    TransferOptions, Tree,
    driver::{Event, Stream, Timing},
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{
    rig,
    rig::{Rig, is_over_budget, pattern},
};

const ROUNDS: u64 = 1000;
/// After so many rounds an engine gives way to one that is set up otherwise.
const ROUNDS_OF_AN_ENGINE: u64 = 50;
const POISON: u8 = 0xEE;

pub(crate) fn what_is_used_again_under_a_stalled_stream_never_shows_in_a_result() {
    for first in (0..ROUNDS).step_by(ROUNDS_OF_AN_ENGINE as usize) {
        let rig = engine(first);
        for number in first..first + ROUNDS_OF_AN_ENGINE {
            let named = NamedOnPanic(number);
            Round::new(&rig, number).run();
            drop(named);
        }
        rig.finish();
    }
}

/// Says in which round a panic happened, be it of an assertion or of the engine.
struct NamedOnPanic(u64);

impl Drop for NamedOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this was round {} of {ROUNDS}", self.0);
        }
    }
}

/// An engine for the rounds from `first` on: the first as the hardware suggests, the others with few, short slots.
fn engine(first: u64) -> Rig {
    if first == 0 {
        return rig(&DeviceOptions::default());
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(first);
    let probe = rig(&DeviceOptions::default());
    let mut profile = Profile::assumed(probe.device().driver().unwrap().properties());
    if random.random_bool(0.5) {
        // All that needs a slot goes through the lanes.
        profile.inline_bytes = 0;
    }
    let (lanes, slots_per_lane) = (random.random_range(1..=4), random.random_range(1..=3));
    let slot_bytes = [4 << 10, 16 << 10, 64 << 10][random.random_range(0..3)];
    rig(&DeviceOptions {
        pinned_budget: Some(2 * lanes * slots_per_lane * slot_bytes + random.random_range(0..2 << 20)),
        lanes: Some(lanes),
        slots_per_lane: Some(slots_per_lane),
        slot_bytes: Some(slot_bytes),
        profile: Some(profile),
    })
}

/// Where a source's bytes lie.
#[derive(Clone, Copy, PartialEq)]
enum Memory {
    Pageable,
    /// Every other byte of pageable memory; the others are poison.
    Strided,
    Pinned,
}

/// Tensors, the bytes that must land of each, and the routes that can carry them up.
struct Sent {
    tree: Vec<Tensor>,
    expected: Vec<Vec<u8>>,
    routes: Vec<Option<Route>>,
}

/// What is on its way, and the bytes that must land.
type Flying = (Transfer<Vec<Tensor>>, Vec<Vec<u8>>);
/// What is there, and the bytes that it must have.
type Landed = (Vec<Tensor>, Vec<Vec<u8>>);

struct Round<'a> {
    device: &'a Device,
    random: Xoshiro256PlusPlus,
    stream: Stream,
}

impl<'a> Round<'a> {
    fn new(rig: &'a Rig, number: u64) -> Self {
        let device = rig.device();
        Self {
            device,
            random: Xoshiro256PlusPlus::seed_from_u64(number),
            stream: Stream::new(device.driver().unwrap()).unwrap(),
        }
    }

    fn run(&mut self) {
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
            let transfer = tree.transfer_with(self.device, &options).unwrap();
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
            let options = self.options(&[None], &stalled);
            let landed = source.to_with(self.device, &options).unwrap();
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
            let mut routes = vec![None, Some(Route::Staged), Some(Route::Packed), Some(Route::Plain)];
            if pinned {
                routes.push(Some(Route::Direct));
            }
            // What changes on the device is read after that.
            let mut options = self.options(&routes, &stalled).after(stalled);
            if pinned {
                options = options.pinned_result();
            }
            let started = if self.random.random_bool(0.3) {
                let landed = unless_over_budget(tree.to_with(&Device::host(), &options));
                landed.map(|landed| {
                    assert_holds(&landed, &expected, "a result of a blocking call");
                    back.push((landed, expected.clone()));
                    None
                })
            } else {
                unless_over_budget(tree.transfer_with(&Device::host(), &options)).map(Some)
            };
            let abandoned = self.random.random_bool(0.2);
            if overwritten && (abandoned || started.is_none()) {
                // Nothing but the test keeps the memory that its own stream writes.
                self.stream.synchronize().unwrap();
            }
            drop(tree);
            let sizes: Vec<_> = expected.iter().map(Vec::len).collect();
            self.poison_device_memory(&sizes);
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

    fn tree(&mut self) -> Sent {
        let only = match self.random.random_range(0..4) {
            0 => Some(Memory::Pageable),
            1 => Some(Memory::Strided),
            2 => Some(Memory::Pinned),
            _ => None,
        };
        let (mut tree, mut expected) = (Vec::new(), Vec::new());
        let mut routes = vec![None, Some(Route::Staged), Some(Route::Packed)];
        let (mut all_dense, mut all_pinned) = (true, true);
        for _ in 0..self.random.random_range(1..=10) {
            let memory = only.unwrap_or_else(|| {
                [Memory::Pageable, Memory::Strided, Memory::Pinned][self.random.random_range(0..3)]
            });
            let bytes = pattern(self.size(), self.seed());
            let (tensor, memory) = self.source(&bytes, memory);
            all_dense &= memory != Memory::Strided;
            all_pinned &= memory == Memory::Pinned;
            tree.push(tensor);
            expected.push(bytes);
        }
        if all_dense {
            routes.push(Some(Route::Plain));
        }
        if all_pinned {
            routes.push(Some(Route::Direct));
        }
        Sent {
            tree,
            expected,
            routes,
        }
    }

    /// A tensor of these bytes, pinned as far as the budget goes.
    fn source(&self, bytes: &[u8], memory: Memory) -> (Tensor, Memory) {
        match memory {
            Memory::Pinned => {
                let pinned = HostMemory::Pinned(self.device).copy_of(bytes, &[bytes.len()]);
                match unless_over_budget(pinned) {
                    Some(pinned) => (pinned, Memory::Pinned),
                    None => self.source(bytes, Memory::Pageable),
                }
            }
            Memory::Pageable => (poisoned_when_freed(bytes.to_vec()), Memory::Pageable),
            Memory::Strided => {
                let spread = bytes.iter().flat_map(|&byte| [byte, POISON]).collect();
                let every_other = poisoned_when_freed(spread).slice(0, 0..2 * bytes.len(), 2);
                let memory = if bytes.len() > 1 {
                    Memory::Strided
                } else {
                    Memory::Pageable
                };
                (every_other.unwrap(), memory)
            }
        }
    }

    fn seed(&mut self) -> usize {
        self.random.random_range(0..usize::MAX)
    }

    /// Mostly small, sometimes several slots, seldom what many lanes share.
    fn size(&mut self) -> usize {
        match self.random.random_range(0..100) {
            0..60 => self.random.random_range(1..2000),
            60..90 => self.random.random_range(2000..100_000),
            90..99 => self.random.random_range(100_000..400_000),
            _ => self.random.random_range(1 << 20..5 << 20),
        }
    }

    /// Takes what is free of the pinned pool, fills it and gives it back.
    fn poison_pinned_memory(&mut self) {
        for _ in 0..3 {
            let bytes = self.size();
            let taken = HostMemory::Pinned(self.device).full(DType::U8, &[bytes], POISON);
            drop(unless_over_budget(taken));
        }
    }

    /// Takes what was just freed on the device, fills it and gives it back.
    fn poison_device_memory(&mut self, sizes: &[usize]) {
        let poison = sizes
            .iter()
            .map(|&bytes| Tensor::full(DType::U8, &[bytes], POISON).unwrap());
        let poison: Vec<_> = poison.collect();
        // Both ways in which the tree that was dropped may have been laid out.
        for placement in [Placement::Slab, Placement::Separate] {
            let options = TransferOptions::new().placement(placement);
            drop(poison.to_with(self.device, &options).unwrap());
        }
    }
}

/// A tensor over these bytes, which turn to poison when nobody may read them any more.
fn poisoned_when_freed(bytes: Vec<u8>) -> Tensor {
    struct Poisoned(Vec<u8>);

    impl Drop for Poisoned {
        fn drop(&mut self) {
            self.0.fill(POISON);
            // Writes to memory that is freed next are not left out.
            black_box(&mut self.0);
        }
    }

    let len = bytes.len();
    let owner = Arc::new(Poisoned(bytes));
    let ptr = NonNull::new(owner.0.as_ptr().cast_mut()).unwrap();
    let layout = Layout::contiguous(&[len]).unwrap();
    let owner: Arc<dyn Any + Send + Sync> = owner;
    // SAFETY: the vector is as long and lives in the owner, and nobody writes it before the owner is dropped.
    unsafe { Tensor::from_raw_parts(ptr, len, DType::U8, layout, None, owner) }.unwrap()
}

/// What was asked for, or nothing where the pinned budget has no room for it.
fn unless_over_budget<T>(asked: pinlane::Result<T>) -> Option<T> {
    match asked {
        Err(error) if is_over_budget(&error) => None,
        given => Some(given.unwrap()),
    }
}

fn assert_holds(tree: &[Tensor], expected: &[Vec<u8>], what: &str) {
    assert_eq!(tree.len(), expected.len());
    for (leaf, (tensor, expected)) in tree.iter().zip(expected).enumerate() {
        let found = tensor.as_bytes().unwrap();
        assert_eq!(found.len(), expected.len(), "{what}");
        if let Some(first) = found.iter().zip(expected).position(|(a, b)| a != b) {
            panic!(
                "{what}: leaf {leaf} of {} bytes has {:#04x} for {:#04x} from byte {first} on",
                found.len(),
                found[first],
                expected[first]
            );
        }
    }
}
