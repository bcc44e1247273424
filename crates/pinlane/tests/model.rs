//! A real checkpoint there and back: whatever the memory it comes from, the route and the placement, every byte that
//! lands is the file's.
//!
//! `PINLANE_MODEL` names the `.safetensors` file. Without it there is nothing to move, and the tests say so; where
//! `PINLANE_REQUIRE_MODEL` is set, as by `cargo xtask test`, they fail.

#![cfg(not(shuttle))]

mod rig;

use std::{env, fs, ops::Range, path::PathBuf};

use pinlane::{DType, Device, DeviceOptions, Placement, Route, Tensor, TensorMap, TransferOptions, Tree};
use rig::Rig;
use safetensors::SafeTensors;

const MODEL: &str = "PINLANE_MODEL";
const REQUIRED: &str = "PINLANE_REQUIRE_MODEL";
const ROUTES: [Route; 5] = [
    Route::Direct,
    Route::Staged,
    Route::Packed,
    Route::Gathered,
    Route::Plain,
];
const PLACEMENTS: [Placement; 2] = [Placement::Slab, Placement::Separate];

/// The whole file, and where in it each tensor lies.
struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    tensors: Vec<Entry>,
}

struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    place: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Pageable,
    Pinned,
    File,
}

impl Source {
    /// The choices of a route that can carry it, the planner's own among them.
    fn routes(self) -> impl Iterator<Item = Option<Route>> {
        let carries = move |route: &Route| match route {
            Route::Direct => self == Self::Pinned,
            Route::Plain => self != Self::File,
            _ => true,
        };
        [None]
            .into_iter()
            .chain(ROUTES.into_iter().filter(carries).map(Some))
    }
}

impl Checkpoint {
    /// The checkpoint to test with; `None`, told to who reads the output, where nobody named one.
    fn open() -> Option<Self> {
        let Some(path) = env::var_os(MODEL) else {
            assert!(
                env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set and {MODEL} is not: `cargo xtask model` fetches a checkpoint"
            );
            println!("skipped: {MODEL} names no checkpoint to move (`cargo xtask model` fetches one)");
            return None;
        };
        let path = PathBuf::from(path);
        let bytes = fs::read(&path).unwrap();
        let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
        let data = bytes.as_ptr().addr();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let tensors: Vec<_> = parsed
            .iter()
            .map(|(name, view)| {
                let start = view.data().as_ptr().addr() - data;
                assert!(start >= 8 + header, "a tensor of the file lies behind its header");
                Entry {
                    name: name.to_owned(),
                    dtype: view.dtype().to_string().parse().unwrap(),
                    shape: view.shape().to_vec(),
                    place: start..start + view.data().len(),
                }
            })
            .collect();
        assert!(!tensors.is_empty(), "{} holds no tensor", path.display());
        Some(Self { path, bytes, tensors })
    }

    /// Its tensors by name, in memory of that kind.
    fn load(&self, source: Source, device: &Device) -> TensorMap {
        let mut map = TensorMap::new();
        for entry in &self.tensors {
            let tensor = match source {
                Source::Pageable | Source::Pinned => {
                    let bytes = self.bytes[entry.place.clone()].to_vec();
                    Tensor::from_bytes(bytes, entry.dtype, &entry.shape)
                }
                Source::File => {
                    Tensor::from_file(&self.path, entry.place.start as u64, entry.dtype, &entry.shape)
                }
            };
            map.insert(&entry.name, tensor.unwrap()).unwrap();
        }
        match source {
            Source::Pinned => map.pin_memory(device).unwrap(),
            Source::Pageable | Source::File => map,
        }
    }

    /// `found` is on the host and is the file, name for name and byte for byte.
    fn assert_same(&self, found: &TensorMap, case: &str) {
        assert_eq!(found.flatten().count(), self.tensors.len(), "{case}");
        for ((name, tensor), entry) in found.flatten().zip(&self.tensors) {
            assert_eq!(name, entry.name, "{case}");
            assert_eq!(tensor.dtype(), entry.dtype, "{name}, {case}");
            assert_eq!(tensor.shape(), entry.shape, "{name}, {case}");
            assert!(
                tensor.as_bytes().unwrap() == &self.bytes[entry.place.clone()],
                "{name} arrived with other bytes than the file's, {case}"
            );
        }
    }

    /// Two devices that hold it, with a budget that lets it be pinned.
    fn rig(&self) -> Rig {
        let pinned_budget = Some((2 * self.bytes.len()).next_multiple_of(64 << 20) + (64 << 20));
        let options = DeviceOptions {
            pinned_budget,
            slot_bytes: Some(1 << 20),
            ..DeviceOptions::default()
        };
        Rig::open(2, &options)
    }
}

/// Moves the tree, and checks that every byte was planned to move, and by the route that was asked for.
fn moved(tree: &TensorMap, to: &Device, options: &TransferOptions, route: Option<Route>) -> TensorMap {
    let transfer = tree.transfer_with(to, options).unwrap();
    for plan in transfer.plans() {
        assert!(
            route.is_none_or(|route| plan.chunks_by(route) > 0),
            "{route:?}: {plan}"
        );
    }
    let planned: u64 = transfer.plans().map(|plan| plan.bytes()).sum();
    let bytes: usize = tree.flatten().map(|(_, tensor)| tensor.bytes().unwrap()).sum();
    assert_eq!(planned, bytes as u64);
    transfer.wait().unwrap()
}

fn options(route: Option<Route>, placement: Placement) -> TransferOptions {
    let options = TransferOptions::new().placement(placement);
    match route {
        Some(route) => options.route(route),
        None => options,
    }
}

/// To the first device by every route, on to the second, and back.
fn every_byte_lands_from(source: Source) {
    let Some(checkpoint) = Checkpoint::open() else {
        return;
    };
    let rig = checkpoint.rig();
    let [first, second] = rig.devices.as_slice() else {
        unreachable!("the rig has two devices")
    };
    let tree = checkpoint.load(source, first);
    assert_eq!(tree.is_pinned(), source == Source::Pinned);
    for placement in PLACEMENTS {
        for route in source.routes() {
            let case = format!("{source:?} by {route:?} into {placement:?}");
            let there = moved(&tree, first, &options(route, placement), route);
            let next = moved(&there, second, &options(None, placement), Some(Route::Direct));
            let back = moved(&there, &Device::host(), &options(None, placement), None);
            checkpoint.assert_same(&back, &case);
            drop((there, back));
            let back = moved(&next, &Device::host(), &options(None, placement), None);
            checkpoint.assert_same(&back, &format!("{case}, over the second device"));
        }
    }
    drop(tree);
    rig.finish();
}

#[test]
fn a_checkpoint_in_pageable_memory_lands_byte_for_byte_by_every_route() {
    every_byte_lands_from(Source::Pageable);
}

#[test]
fn a_checkpoint_in_pinned_memory_lands_byte_for_byte_by_every_route() {
    every_byte_lands_from(Source::Pinned);
}

#[test]
fn a_checkpoint_in_its_file_lands_byte_for_byte_by_every_route() {
    every_byte_lands_from(Source::File);
}

#[test]
fn a_checkpoint_on_a_device_comes_back_byte_for_byte_by_every_route() {
    let Some(checkpoint) = Checkpoint::open() else {
        return;
    };
    let rig = checkpoint.rig();
    let there = checkpoint
        .load(Source::Pageable, rig.device())
        .to(rig.device())
        .unwrap();
    for placement in PLACEMENTS {
        for (pinned, sink) in [(false, Source::Pageable), (true, Source::Pinned)] {
            for route in sink.routes() {
                let mut options = options(route, placement);
                if pinned {
                    options = options.pinned_result();
                }
                let back = moved(&there, &Device::host(), &options, route);
                assert_eq!(back.is_pinned(), pinned);
                checkpoint.assert_same(&back, &format!("by {route:?} into {sink:?} {placement:?}"));
            }
        }
    }
    drop(there);
    rig.finish();
}
