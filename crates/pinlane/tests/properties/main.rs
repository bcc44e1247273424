//! The engine against a plain copy: whatever the tree, the dtypes, the strides, the sizes, the routes and the
//! devices, what lands is what a naive loop over the elements would have copied, and the sources stay as they were.

#[path = "../harness/mod.rs"]
mod harness;
mod hops;
mod in_place;
mod leaves;
#[path = "../rig/mod.rs"]
mod rig;

use std::{cell::RefCell, process::ExitCode};

use harness::{Test, tests};
use hops::hop;
use in_place::{copy, full, lands_contiguous, pinned};
use leaves::{Leaf, Made, leaf, naive_copy, views};
use pinlane::{DType, Device, DeviceOptions, Plan, Profile, Tensor, TensorMap, TransferOptions, Tree};
use proptest::{collection::vec, prelude::*, sample::select};
use rig::{Rig, pattern};
use tempfile::TempDir;

const TESTS: &[Test] = tests![
    Device: {
        what_lands_is_what_a_plain_copy_would_have_copied,
        views_taken_on_a_device_land_as_they_are_with_what_they_span,
        what_lands_in_tensors_that_exist_is_what_a_plain_copy_would_have_copied,
        a_dense_view_of_a_file_lands_on_the_host_with_its_strides,
    }
];

fn main() -> ExitCode {
    harness::run(TESTS)
}

#[derive(Clone, Debug)]
struct Machine {
    lanes: usize,
    slots_per_lane: usize,
    slot_bytes: usize,
    budget: usize,
    inline: bool,
}

impl Machine {
    fn rig(&self) -> Rig {
        let probe = Rig::open(1, &DeviceOptions::default());
        let mut profile = Profile::assumed(probe.device().driver().unwrap().properties());
        if !self.inline {
            profile.inline_bytes = 0;
        }
        Rig::open(
            2,
            &DeviceOptions {
                pinned_budget: Some(self.budget.max(self.slot_bytes)),
                lanes: Some(self.lanes),
                slots_per_lane: Some(self.slots_per_lane),
                slot_bytes: Some(self.slot_bytes),
                profile: Some(profile),
            },
        )
    }
}

fn machine() -> impl Strategy<Value = Machine> {
    let slot_bytes = select(&[4096usize, 8192][..]);
    (1..4usize, 1..4usize, slot_bytes, 0..200_000usize, any::<bool>()).prop_map(
        |(lanes, slots_per_lane, slot_bytes, budget, inline)| Machine {
            lanes,
            slots_per_lane,
            slot_bytes,
            budget,
            inline,
        },
    )
}

/// A list of tensors beside maps in maps.
type Batch = (Vec<Tensor>, TensorMap);

fn batch<'a>(leaves: impl IntoIterator<Item = &'a Leaf>, made: &[Made]) -> Batch {
    let mut list = Vec::new();
    let mut maps: [TensorMap; 3] = Default::default();
    for (index, (leaf, made)) in leaves.into_iter().zip(made).enumerate() {
        match leaf.home {
            0 => list.push(made.tensor.clone()),
            home => maps[home - 1]
                .insert(format!("leaf.{index}"), made.tensor.clone())
                .unwrap(),
        }
    }
    let [mut root, mut middle, inner] = maps;
    middle.insert("inner", inner).unwrap();
    root.insert("middle", middle).unwrap();
    (list, root)
}

fn tensors(tree: &impl Tree) -> Vec<Tensor> {
    let found = RefCell::new(Vec::new());
    tree.visit(&mut |tensor| found.borrow_mut().push(tensor.clone()));
    found.into_inner()
}

/// The landed tensor has the dtype, the shape and the elements of `made`. It has its strides too, and spans no more,
/// where that was dense or on a device; else it is contiguous.
fn assert_landed(landed: &Tensor, made: &Made) {
    assert_eq!(landed.dtype(), made.tensor.dtype());
    assert_eq!(landed.shape(), made.tensor.shape());
    let keeps_strides = made.tensor.layout().is_dense() || !made.tensor.device().is_host();
    if keeps_strides && !made.tensor.layout().is_empty() {
        let steps = |tensor: &Tensor| {
            let dims = tensor.shape().iter().zip(tensor.layout().strides());
            let steps = dims.filter(|(size, _)| **size > 1).map(|(_, stride)| *stride);
            steps.collect::<Vec<_>>()
        };
        assert_eq!(steps(landed), steps(&made.tensor));
        assert_eq!(landed.layout().span(), 0..made.tensor.layout().span().len());
    } else {
        assert!(landed.layout().is_contiguous());
    }
    if landed.device().is_host() {
        let packed = landed.contiguous().unwrap();
        assert!(packed.as_bytes().unwrap() == made.expected, "other bytes landed");
    }
}

/// So many cases, and a fifth of them where a device was named: each makes engines, which takes hardware a while.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: if rig::named_device().is_some() {
            cases / 5
        } else {
            cases
        },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The numbers of the leaves in the order of their tree: the list's, then the maps'.
fn order<'a>(leaves: impl IntoIterator<Item = &'a Leaf>) -> Vec<usize> {
    let homes: Vec<_> = leaves.into_iter().map(|leaf| leaf.home).collect();
    let mut order: Vec<_> = (0..homes.len()).collect();
    order.sort_by_key(|&index| homes[index]);
    order
}

/// How many bytes move when the tree goes to the host.
fn planned_bytes(tree: &Batch) -> u64 {
    let plans = tree.plan(&Device::host(), &TransferOptions::new()).unwrap();
    plans.iter().map(Plan::bytes).sum()
}

proptest! {
    #![proptest_config(config(600))]

    /// Host to one device, on to another, and back to the host, with any choice on each hop.
    fn what_lands_is_what_a_plain_copy_would_have_copied(
        machine in machine(),
        leaves in vec(leaf(), 0..12),
        up in hop(),
        across in proptest::option::of(hop()),
        down in hop(),
    ) {
        let rig = machine.rig();
        let folder = TempDir::new().unwrap();
        let made: Vec<_> = leaves
            .iter()
            .enumerate()
            .map(|(number, leaf)| leaf.make(number, rig.device(), &folder))
            .collect();
        let tree = batch(&leaves, &made);
        let order = order(&leaves);

        let mut there = up.run(&tree, rig.device());
        if let Some(across) = across {
            there = across.run(&there, &rig.devices[1]);
        }
        let back = down.run(&there, &Device::host());
        for (there, &index) in tensors(&there).iter().zip(&order) {
            prop_assert!(!there.device().is_host());
            assert_landed(there, &made[index]);
        }
        for (landed, &index) in tensors(&back).iter().zip(&order) {
            prop_assert!(landed.device().is_host());
            assert_landed(landed, &made[index]);
        }
        for made in made {
            if made.base.as_bytes().is_ok() {
                prop_assert!(made.base.as_bytes().unwrap() == made.bytes, "a source was changed");
            }
        }
        drop((tree, there, back));
        rig.finish();
    }
}

proptest! {
    #![proptest_config(config(400))]

    /// Host to a device; views there, to the host, and to another device and from there to the host.
    fn views_taken_on_a_device_land_as_they_are_with_what_they_span(
        machine in machine(),
        seen in vec((leaf(), views()), 0..10),
        up in hop(),
        across in hop(),
        down in hop(),
    ) {
        let rig = machine.rig();
        let folder = TempDir::new().unwrap();
        let leaves = || seen.iter().map(|(leaf, _)| leaf);
        let made: Vec<_> = leaves()
            .enumerate()
            .map(|(number, leaf)| leaf.make(number, rig.device(), &folder))
            .collect();
        let tree = batch(leaves(), &made);
        let there = up.run(&tree, rig.device());
        let order = order(leaves());

        let mut views: Vec<_> = tensors(&there)
            .iter()
            .zip(&order)
            .map(|(there, &index)| (index, made[index].seen_through(&seen[index].1, there)))
            .collect();
        views.sort_by_key(|&(index, _)| index);
        let views: Vec<_> = views.into_iter().map(|(_, view)| view).collect();
        let viewed = batch(leaves(), &views);
        let spans = views.iter().map(|view| {
            let span = view.tensor.layout().span().len();
            view.tensor.dtype().bytes_for(span).unwrap() as u64
        });
        prop_assert_eq!(planned_bytes(&viewed), spans.sum::<u64>());

        let next = across.run(&viewed, &rig.devices[1]);
        for landed in [down.run(&viewed, &Device::host()), next.clone(), down.run(&next, &Device::host())] {
            for (landed, &index) in tensors(&landed).iter().zip(&order) {
                assert_landed(landed, &views[index]);
            }
        }
        for (landed, &index) in tensors(&down.run(&there, &Device::host())).iter().zip(&order) {
            assert_landed(landed, &made[index]);
        }
        drop((made, tree, there, views, viewed, next));
        rig.finish();
    }
}

proptest! {
    #![proptest_config(config(400))]

    /// Host to tensors of a device, on to those of another, and back to some of the host. What was there before is never part of it.
    fn what_lands_in_tensors_that_exist_is_what_a_plain_copy_would_have_copied(
        machine in machine(),
        leaves in vec(leaf(), 0..10),
        alone in any::<[bool; 3]>(),
        in_pinned_memory in any::<bool>(),
    ) {
        let rig = machine.rig();
        let folder = TempDir::new().unwrap();
        let made: Vec<_> = leaves
            .iter()
            .enumerate()
            .map(|(number, leaf)| leaf.make(number, rig.device(), &folder))
            .filter(|made| lands_contiguous(&made.tensor))
            .collect();
        let sources: Vec<_> = made.iter().map(|made| made.tensor.clone()).collect();

        let mut there = full(&made).to(rig.device()).unwrap();
        copy(&sources, &mut there, alone[0]);
        let mut across = full(&made).to(&rig.devices[1]).unwrap();
        copy(&there, &mut across, alone[1]);
        let mut back = full(&made);
        if in_pinned_memory {
            back = pinned(back, rig.device());
        }
        copy(&across, &mut back, alone[2]);
        for (back, made) in back.iter().zip(&made) {
            prop_assert!(back.as_bytes().unwrap() == made.expected, "other bytes landed");
        }
        drop((made, sources, there, across, back));
        rig.finish();
    }
}

fn a_dense_view_of_a_file_lands_on_the_host_with_its_strides() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tensor");
    std::fs::write(&path, pattern(4000, 1)).unwrap();
    let tensor = Tensor::from_file(&path, 400, DType::U16, &[30, 60]).unwrap();
    let transposed = tensor.transpose(0, 1).unwrap();
    let read = transposed.to(&Device::host()).unwrap();
    assert_eq!(read.layout().strides(), [1, 60]);
    assert_eq!(
        read.contiguous().unwrap().as_bytes().unwrap(),
        naive_copy(&pattern(4000, 1)[400..], transposed.layout(), DType::U16)
    );
}
