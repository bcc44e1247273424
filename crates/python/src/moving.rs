//! From a tree that was taken apart to transfers of the engine: what moves, from where, and into which memory.
//!
//! 1. *Survey*: each leaf is looked at once. What is where it should be already is its own result; what torch has to do
//!    something to first (resolve a conjugate, cut off a graph, convert) is handed to the package, which gives back what to
//!    move instead, or the result.
//! 2. *Room*: leaves from one place share one run of memory: torch's own on a GPU, ours elsewhere.
//! 3. *Start*: the engine moves into that memory; no copy starts before what the caller's stream has enqueued so far.
//! 4. *Views*: tensors over the memory are made while the bytes move, and kept by the [`Flight`](crate::flight::Flight) until
//!    they have landed. Equal leaves next to each other are made in one call.

mod order;
mod rooms;
mod sending;
mod survey;
mod views;

use std::sync::Arc;

use pinlane::{Device, Error};
use pyo3::{prelude::*, types::PyType};

use crate::{
    devices, errors,
    flight::{Flight, Part, Source},
    form::Forms,
    process,
    tree::Tree,
};

/// What the caller asks for, beside the tree and the device.
#[derive(FromPyObject)]
struct Wishes<'py> {
    /// Torch's tensor type, where torch is there.
    tensor_type: Option<Bound<'py, PyType>>,
    /// Torch's type of parameters, which move like tensors.
    parameter_type: Option<Bound<'py, PyType>>,
    /// Torch's function that says whether a tensor's elements are to be negated when they are read.
    is_neg: Option<Bound<'py, PyAny>>,
    /// The device and the handle of the caller's stream, where torch's current ones are not meant.
    stream_device: Option<String>,
    stream: Option<u64>,
    /// All results in one allocation.
    slab: bool,
    /// Results on the host in pinned memory; unless told, while they have room there.
    pin: Option<bool>,
    /// Whether gradients are tracked.
    grads: bool,
    /// Whether every leaf has to be looked at by the package.
    convert: bool,
    /// Whether the caller goes on while the bytes move.
    watch: bool,
    /// Whether what is where it should be already is copied, and not its own result: its memory may be written soon.
    copies: bool,
}

/// Starts moving the leaves of `tree` to the device named `target`. `plan` says how (`Wishes`) and does what only torch can:
/// see `pinlane._plan`.
#[pyfunction]
pub(crate) fn start<'py>(
    py: Python<'py>,
    tree: &Bound<'py, Tree>,
    target: &str,
    plan: &Bound<'py, PyAny>,
) -> PyResult<Flight> {
    let wishes: Wishes<'py> = plan.extract()?;
    let target = devices::open(py, target)?;
    let mut start = Start {
        py,
        tree,
        target,
        plan,
        wishes,
        forms: Forms::default(),
        examples: Vec::new(),
        replacements: Vec::new(),
        results: tree.get().leaves().iter().map(|_| None).collect(),
        finishes: Vec::new(),
        sources: Vec::new(),
        groups: Vec::new(),
        last_gpu: None,
    };
    start.survey()?;
    start.start()
}

struct Start<'a, 'py> {
    py: Python<'py>,
    tree: &'a Bound<'py, Tree>,
    target: Device,
    plan: &'a Bound<'py, PyAny>,
    wishes: Wishes<'py>,
    forms: Forms,
    /// For each form, a leaf of it, and whether that is a numpy array.
    examples: Vec<(Bound<'py, PyAny>, bool)>,
    /// What is moved instead of leaves.
    replacements: Vec<Py<PyAny>>,
    /// For each leaf, its result, where there is one.
    results: Vec<Option<Py<PyAny>>>,
    /// What is to be done to the result of a leaf when it has landed.
    finishes: Vec<(usize, Py<PyAny>)>,
    /// Tensors that must not change while they are read, with the version they have.
    sources: Vec<Source>,
    groups: Vec<Group>,
    last_gpu: Option<(u32, Device)>,
}

/// Leaves that come from one place.
struct Group {
    from: Device,
    leaves: Vec<Leaf>,
}

/// A leaf that moves.
struct Leaf {
    /// Its number in the tree.
    number: usize,
    address: usize,
    form: usize,
}

impl<'py> Start<'_, 'py> {
    /// The exception for an error of the engine that is about a leaf.
    fn at(&self, number: usize, error: Error) -> PyErr {
        let path = crate::tree::named(&self.tree.get().path_of(self.py, number));
        let source = Box::new(error);
        errors::from_engine(self.py, &Error::Leaf { path, source })
    }

    fn start(mut self) -> PyResult<Flight> {
        self.check_stream()?;
        if !self.groups.is_empty() {
            process::check(self.py)?;
        }
        let sources = Arc::new(std::mem::take(&mut self.sources));
        let mut parts = Vec::with_capacity(self.groups.len());
        let mut made = Vec::with_capacity(self.groups.len());
        for group in std::mem::take(&mut self.groups) {
            let (rooms, places) = self.make_room(&group)?;
            parts.push(self.send(&group, &rooms, &places, &sources)?);
            made.push((group, rooms, places));
        }
        for (group, rooms, places) in made {
            self.make_views(&group, &rooms, &places)?;
        }
        if !self.wishes.watch {
            self.py.detach(|| parts.iter().for_each(Part::help));
        }
        Ok(Flight::new(
            self.tree.clone().unbind(),
            self.target,
            parts,
            self.results,
            self.finishes,
            sources,
        ))
    }
}
