//! The engine against a plain copy: whatever the tree, the dtypes, the strides, the sizes, the routes and the
//! devices, what lands is what a naive loop over the elements would have copied, and the sources stay as they were.

mod rig;

use std::{cell::RefCell, io::Write};

use pinlane::{
    DType, Device, DeviceOptions, Error, Layout, Placement, Profile, Route, Tensor, TensorMap, Transfer,
    TransferOptions, Tree, driver::Stream,
};
use proptest::{collection::vec, prelude::*, sample::select};
use rig::{Rig, block_on, pattern};
use tempfile::TempDir;

/// One tensor, as numbers.
#[derive(Clone, Debug)]
struct Leaf {
    dtype: DType,
    shape: Vec<usize>,
    views: Vec<View>,
    memory: Memory,
    /// Which map of the tree it is in; 0 is the list beside the map.
    home: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Memory {
    Pageable,
    Pinned,
    File,
}

/// A view of a tensor. Numbers are taken modulo what the tensor at hand has.
#[derive(Clone, Copy, Debug)]
enum View {
    Transpose(usize, usize),
    Slice {
        dim: usize,
        start: usize,
        length: usize,
        step: usize,
    },
    Expand(usize),
}

/// How a caller gets its result.
#[derive(Clone, Copy, Debug)]
enum Finish {
    Wait,
    AskThenWait,
    Await,
    Fence,
    /// Drops one transfer, which is then on its way or abandoned, and starts another.
    DropAndStartAgain,
}

/// One move of the whole tree.
#[derive(Clone, Copy, Debug)]
struct Hop {
    route: Option<Route>,
    placement: Placement,
    pinned: bool,
    finish: Finish,
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
        let probe = Rig::new(1, &DeviceOptions::default());
        let mut profile = Profile::assumed(probe.device().driver().unwrap().properties());
        if !self.inline {
            profile.inline_bytes = 0;
        }
        Rig::new(
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

fn leaf() -> impl Strategy<Value = Leaf> {
    let size = prop_oneof![6 => 1..6usize, 1 => Just(0), 1 => Just(1)];
    let small = vec(size, 0..5);
    // Long enough for several slots, and not a multiple of anything.
    let long = (1..9000usize).prop_map(|length| vec![length]);
    let plane = (1..90usize, 1..90usize).prop_map(|(rows, columns)| vec![rows, columns]);
    let view = prop_oneof![
        (0..8usize, 0..8usize).prop_map(|(a, b)| View::Transpose(a, b)),
        (0..8usize, 0..100usize, 0..100usize, 1..4usize).prop_map(|(dim, start, length, step)| View::Slice {
            dim,
            start,
            length,
            step
        }),
        (1..4usize).prop_map(View::Expand),
    ];
    (
        select(&DType::ALL[..]),
        prop_oneof![3 => small, 1 => long, 1 => plane],
        prop_oneof![vec(view.clone(), 0..1), vec(view, 1..4)],
        prop_oneof![3 => Just(Memory::Pageable), 2 => Just(Memory::Pinned), 1 => Just(Memory::File)],
        0..4usize,
    )
        .prop_map(|(dtype, mut shape, views, memory, home)| {
            if dtype.is_sub_byte() {
                // Four elements are whole bytes in every dtype.
                shape.push(4);
            }
            Leaf {
                dtype,
                shape,
                views,
                memory,
                home,
            }
        })
}

fn hop() -> impl Strategy<Value = Hop> {
    let route = prop_oneof![
        4 => Just(None),
        1 => select(&[Route::Direct, Route::Staged, Route::Packed, Route::Plain][..]).prop_map(Some),
    ];
    let placement = select(&[Placement::Slab, Placement::Separate][..]);
    let finish = select(
        &[
            Finish::Wait,
            Finish::AskThenWait,
            Finish::Await,
            Finish::Fence,
            Finish::DropAndStartAgain,
        ][..],
    );
    (route, placement, any::<bool>(), finish).prop_map(|(route, placement, pinned, finish)| Hop {
        route,
        placement,
        pinned,
        finish,
    })
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

/// A tensor of the tree, and what a plain copy of its elements is.
struct Made {
    tensor: Tensor,
    expected: Vec<u8>,
    /// The tensor that it is a view of, and that tensor's bytes.
    base: Tensor,
    bytes: Vec<u8>,
}

impl Leaf {
    fn make(&self, number: usize, device: &Device, folder: &TempDir) -> Made {
        let elements = self.shape.iter().product();
        let bytes = pattern(self.dtype.bytes_for(elements).unwrap(), number);
        let pageable = Tensor::from_bytes(bytes.clone(), self.dtype, &self.shape).unwrap();
        let base = match self.memory {
            Memory::Pageable => pageable,
            Memory::Pinned => match pageable.pin_memory(device) {
                Ok(pinned) => pinned,
                Err(error) => {
                    assert_over_budget(&error);
                    pageable
                }
            },
            Memory::File => {
                let path = folder.path().join(number.to_string());
                let mut file = std::fs::File::create(&path).unwrap();
                let before = number % 7;
                file.write_all(&vec![0xEE; before]).unwrap();
                file.write_all(&bytes).unwrap();
                Tensor::from_file(&path, before as u64, self.dtype, &self.shape).unwrap()
            }
        };
        let mut tensor = base.clone();
        for view in &self.views {
            if let Some(seen) = self.view(&tensor, *view) {
                tensor = seen;
            }
        }
        let expected = naive_copy(&bytes, tensor.layout(), self.dtype);
        Made {
            tensor,
            expected,
            base,
            bytes,
        }
    }

    /// The view, where the tensor has one like it.
    fn view(&self, tensor: &Tensor, view: View) -> Option<Tensor> {
        let rank = tensor.shape().len();
        if rank == 0 && !matches!(view, View::Expand(_)) {
            return None;
        }
        let seen = match view {
            View::Transpose(a, b) => tensor.transpose(a % rank, b % rank),
            View::Slice {
                dim,
                start,
                length,
                step,
            } => {
                let dim = dim % rank;
                let size = tensor.shape()[dim];
                let start = start % (size + 1);
                let end = start + length % (size - start + 1);
                tensor.slice(dim, start..end, step)
            }
            View::Expand(times) => tensor.expand(&[&[times], tensor.shape()].concat()),
        }
        .unwrap();
        // Elements that share bytes, and files, move in one piece or not at all; `bad_input` has the refusals.
        let whole = match self.memory {
            _ if self.dtype.is_sub_byte() => seen.layout().is_contiguous() && starts_on_a_byte(&seen),
            Memory::File => seen.layout().is_dense(),
            _ => true,
        };
        whole.then_some(seen)
    }
}

fn starts_on_a_byte(tensor: &Tensor) -> bool {
    let bits = tensor.dtype().bits();
    (tensor.layout().offset() * bits).is_multiple_of(8) && (tensor.elements() * bits).is_multiple_of(8)
}

/// The elements in logical order, one at a time.
fn naive_copy(storage: &[u8], layout: &Layout, dtype: DType) -> Vec<u8> {
    let Some(width) = dtype.element_bytes() else {
        let start = dtype.bytes_for(layout.offset()).unwrap();
        return storage[start..][..dtype.bytes_for(layout.elements()).unwrap()].to_vec();
    };
    let mut copy = Vec::with_capacity(layout.elements() * width);
    for index in 0..layout.elements() {
        let mut rest = index;
        let mut place = layout.offset();
        for (&size, &stride) in layout.shape().iter().zip(layout.strides()).rev() {
            place += rest % size * stride;
            rest /= size;
        }
        copy.extend_from_slice(&storage[place * width..][..width]);
    }
    copy
}

/// A list of tensors beside maps in maps.
type Batch = (Vec<Tensor>, TensorMap);

fn batch(leaves: &[Leaf], made: &[Made]) -> Batch {
    let mut list = Vec::new();
    let mut maps: [TensorMap; 3] = Default::default();
    for (index, (leaf, made)) in leaves.iter().zip(made).enumerate() {
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

impl Hop {
    fn options(self) -> TransferOptions {
        let mut options = TransferOptions::new().placement(self.placement);
        if let Some(route) = self.route {
            options = options.route(route);
        }
        if self.pinned {
            options = options.pinned_result();
        }
        options
    }

    /// Moves the tree. What can't be, by the rules of routes and budgets, is refused and then done another way.
    fn run(mut self, tree: &Batch, to: &Device) -> Batch {
        let mut refused = self.start(tree, to);
        if let Some(route) = self.route {
            let carried = tensors(tree)
                .iter()
                .all(|tensor| carries(route, tensor, to, self.pinned));
            let over_budget = refused.as_ref().is_err_and(is_over_budget);
            assert!(over_budget || refused.is_ok() == carried, "{route}: {refused:?}");
            if !carried && !over_budget {
                assert_names_a_leaf(refused.as_ref().unwrap_err());
                self.route = None;
                refused = self.start(tree, to);
            }
        }
        let transfer = refused.or_else(|error| {
            assert!(self.pinned, "{error}");
            assert_over_budget(&error);
            self.pinned = false;
            if self.route == Some(Route::Direct) {
                self.route = None;
            }
            self.start(tree, to)
        });
        let transfer = transfer.unwrap();
        match self.finish {
            Finish::Wait => transfer.wait().unwrap(),
            Finish::AskThenWait => {
                rig::eventually("the transfer is done", || transfer.is_done());
                transfer.wait().unwrap()
            }
            Finish::Await => block_on(transfer).unwrap(),
            Finish::Fence => {
                let driver = tensors(tree)
                    .iter()
                    .map(Tensor::device)
                    .chain([to.clone()])
                    .find_map(|device| device.driver().cloned());
                if let Some(driver) = driver {
                    let stream = Stream::new(&driver).unwrap();
                    transfer.fence(&stream).unwrap();
                    stream.synchronize().unwrap();
                    assert!(
                        transfer.is_done(),
                        "a stream passed the fence of a transfer in flight"
                    );
                }
                transfer.wait().unwrap()
            }
            Finish::DropAndStartAgain => {
                drop(transfer);
                let again = Self {
                    finish: Finish::Wait,
                    // The dropped transfer may still hold its share of the budget.
                    pinned: false,
                    route: None,
                    ..self
                };
                again.run(tree, to)
            }
        }
    }

    fn start(self, tree: &Batch, to: &Device) -> Result<Transfer<Batch>, Error> {
        tree.transfer_with(to, &self.options())
    }
}

/// Whether a route can carry a tensor: the rules of the documentation of [`Route`].
fn carries(route: Route, tensor: &Tensor, to: &Device, pinned_result: bool) -> bool {
    let from = tensor.device();
    if from == *to {
        return true;
    }
    let in_file = from.is_host() && matches!(tensor.as_bytes(), Err(Error::NotOnHost { .. }));
    match (from.is_host(), to.is_host()) {
        (false, false) => route == Route::Direct,
        (false, true) => route != Route::Direct || pinned_result,
        _ => {
            let whole = tensor.layout().is_dense();
            match route {
                Route::Direct => whole && tensor.is_pinned(),
                Route::Plain => whole && !in_file,
                _ => true,
            }
        }
    }
}

fn assert_names_a_leaf(error: &Error) {
    let Error::Leaf { path, source } = error else {
        panic!("no leaf is named: {error}");
    };
    assert!(!path.is_empty());
    assert!(matches!(**source, Error::Route { .. }), "{source}");
}

fn is_over_budget(error: &Error) -> bool {
    match error {
        Error::Leaf { source, .. } => is_over_budget(source),
        error => matches!(error, Error::PinnedBudget { .. }),
    }
}

fn assert_over_budget(error: &Error) {
    assert!(is_over_budget(error), "{error}");
}

/// The landed tensor has the dtype, the shape and the elements of `made`, and its strides where it was dense.
fn assert_landed(landed: &Tensor, made: &Made) {
    assert_eq!(landed.dtype(), made.tensor.dtype());
    assert_eq!(landed.shape(), made.tensor.shape());
    if made.tensor.layout().is_dense() && !made.tensor.layout().is_empty() {
        let steps = |tensor: &Tensor| {
            let dims = tensor.shape().iter().zip(tensor.layout().strides());
            let steps = dims.filter(|(size, _)| **size > 1).map(|(_, stride)| *stride);
            steps.collect::<Vec<_>>()
        };
        assert_eq!(steps(landed), steps(&made.tensor));
    } else {
        assert!(landed.layout().is_contiguous());
    }
    if landed.device().is_host() {
        let packed = landed.contiguous().unwrap();
        assert!(packed.as_bytes().unwrap() == made.expected, "other bytes landed");
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(600))]

    /// Host to one device, on to another, and back to the host, with any choice on each hop.
    #[test]
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
        // The tree's order is the list's, then the maps'.
        let mut order: Vec<_> = (0..made.len()).collect();
        order.sort_by_key(|&index| leaves[index].home);

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

#[test]
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
