//! From a tree that was taken apart to transfers of the engine: what moves, from where, and into which memory.
//!
//! 1. *Survey*: each leaf is looked at once. What is where it should be already is its own result; what torch has to do
//!    something to first (resolve a conjugate, cut off a graph, convert) is handed to the package, which gives back what to
//!    move instead, or the result.
//! 2. *Room*: leaves from one place share one run of memory: torch's own on a GPU, ours elsewhere.
//! 3. *Start*: the engine moves into that memory; no copy starts before what the caller's stream has enqueued so far.
//! 4. *Views*: tensors over the memory are made while the bytes move, and kept by the [`Flight`](crate::flight::Flight) until
//!    they have landed. Equal leaves next to each other are made in one call.

mod survey;
mod views;

use std::{any::Any, ptr::NonNull, sync::Arc};

use pinlane::{
    Device, Error, ForeignMemory, Placement, Tensor, TransferOptions,
    driver::{Backend, DevicePtr, Event, RawStream, Stream, Timing},
};
use pyo3::{exceptions::PyValueError, intern, prelude::*, types::PyType};

use crate::{
    devices, errors, exchange,
    flight::{Flight, Leaves, Part, Source},
    form::Forms,
    kept::Kept,
    memory::Memory,
    simulated,
    tree::Tree,
};

/// Where each leaf begins in shared memory, in bytes.
const ALIGNMENT: usize = 256;
/// Smaller leaves are not asked whether they are pinned: copying them costs less than the question.
const ASK_WHETHER_PINNED: usize = 16 << 10;

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
    /// Results on the host in pinned memory.
    pin: bool,
    /// Whether gradients are tracked.
    grads: bool,
    /// Whether every leaf has to be looked at by the package.
    convert: bool,
    /// Whether the caller goes on while the bytes move.
    watch: bool,
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
    /// For each leaf, its result, where there is one.
    results: Vec<Option<Py<PyAny>>>,
    /// What is to be done to the result of a leaf when it has landed.
    finishes: Vec<(usize, Py<PyAny>)>,
    /// Tensors that must not change while they are read, with the version they have.
    sources: Vec<Source>,
    groups: Vec<Group<'py>>,
    last_gpu: Option<(u32, Device)>,
}

/// Leaves that come from one place.
struct Group<'py> {
    from: Device,
    leaves: Vec<Leaf<'py>>,
}

/// A leaf that moves.
struct Leaf<'py> {
    /// Its number in the tree.
    number: usize,
    object: Bound<'py, PyAny>,
    is_array: bool,
    address: usize,
    form: usize,
}

/// The number of a room, and where in it a result begins, in bytes.
type Place = (usize, usize);

/// Where results lie.
struct Room<'py> {
    /// Torch's memory as one run of bytes, or ours.
    object: Bound<'py, PyAny>,
    address: usize,
    bytes: usize,
    pinned: Option<Backend>,
    owner: Arc<dyn Any + Send + Sync>,
}

impl<'py> Start<'_, 'py> {
    /// The exception for an error of the engine that is about a leaf.
    fn at(&self, number: usize, error: Error) -> PyErr {
        let path = crate::tree::named(&self.tree.get().path_of(self.py, number));
        let source = Box::new(error);
        errors::from_engine(self.py, &Error::Leaf { path, source })
    }

    fn start(mut self) -> PyResult<Flight> {
        let mut parts = Vec::with_capacity(self.groups.len());
        let mut made = Vec::with_capacity(self.groups.len());
        for group in std::mem::take(&mut self.groups) {
            let (rooms, places) = self.make_room(&group)?;
            parts.push(self.send(&group, &rooms, &places)?);
            made.push((group, rooms, places));
        }
        for (group, rooms, places) in made {
            self.make_views(&group, &rooms, &places)?;
        }
        Ok(Flight::new(
            self.tree.clone().unbind(),
            parts,
            self.results,
            self.finishes,
            self.sources,
        ))
    }

    /// Takes memory for a group's results; says in which room and where in it each lies.
    fn make_room(&self, group: &Group<'py>) -> PyResult<(Vec<Room<'py>>, Vec<Place>)> {
        let mut places = Vec::with_capacity(group.leaves.len());
        if !self.wishes.slab {
            let mut rooms = Vec::with_capacity(group.leaves.len());
            for (index, leaf) in group.leaves.iter().enumerate() {
                rooms.push(self.room(&group.from, self.forms.get(leaf.form).bytes)?);
                places.push((index, 0));
            }
            return Ok((rooms, places));
        }
        let mut end = 0usize;
        for leaf in &group.leaves {
            places.push((0, end));
            let bytes = self.forms.get(leaf.form).bytes;
            end = end
                .checked_add(bytes)
                .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
                .ok_or_else(|| {
                    PyValueError::new_err("these tensors are larger together than memory can be")
                })?;
        }
        Ok((vec![self.room(&group.from, end)?], places))
    }

    /// Memory on the target, for what comes from `from`.
    fn room(&self, from: &Device, bytes: usize) -> PyResult<Room<'py>> {
        let py = self.py;
        let is_simulated = |device: &Device| {
            device
                .driver()
                .is_some_and(|driver| driver.properties().simulated)
        };
        if !self.target.is_host() && !is_simulated(&self.target) {
            let (object, address): (Bound<'py, PyAny>, usize) =
                self.plan.call_method1(intern!(py, "room"), (bytes,))?.extract()?;
            return Ok(Room {
                owner: Arc::new(Kept::new(vec![object.clone().unbind()])),
                object,
                address,
                bytes,
                pinned: None,
            });
        }
        let (target, pinned) = (&self.target, self.wishes.pin.then_some(from));
        let made = py.detach(|| match target.is_host() {
            true => Memory::on_host(bytes, pinned),
            false => Memory::on_simulated(target, bytes),
        });
        let memory = made.map_err(|error| errors::from_engine(py, &error))?;
        Ok(Room {
            address: memory.ptr().addr().get(),
            bytes,
            pinned: memory.pinned(),
            owner: Arc::clone(memory.owner()),
            object: Bound::new(py, memory)?.into_any(),
        })
    }

    /// Has the engine move a group into its rooms.
    fn send(&self, group: &Group<'py>, rooms: &[Room<'py>], places: &[Place]) -> PyResult<Part> {
        let py = self.py;
        let failed = |error: Error| errors::from_engine(py, &error);
        let after = self.what_to_wait_for(group)?;
        let kept: Vec<Py<PyAny>> = group
            .leaves
            .iter()
            .map(|leaf| leaf.object.clone().unbind())
            .collect();
        let kept: Arc<dyn Any + Send + Sync> = Arc::new(Kept::new(kept));
        let names = Arc::new(Names {
            tree: self.tree.clone().unbind(),
            numbers: group.leaves.iter().map(|leaf| leaf.number).collect(),
        });
        let mut sources = Vec::with_capacity(group.leaves.len());
        let mut into = Vec::with_capacity(group.leaves.len());
        let mut numbers = Vec::with_capacity(group.leaves.len());
        let mut reads_in_place = !group.from.is_host();
        let spaces = self.spaces(rooms)?;
        for (leaf, &(room, offset)) in group.leaves.iter().zip(places) {
            let form = self.forms.get(leaf.form);
            if form.bytes == 0 {
                continue;
            }
            let pinned = self.pinned(group, leaf);
            reads_in_place |= pinned.is_some();
            sources.push(self.source(group, leaf, pinned, &kept).map_err(failed)?);
            let (dtype, layout) = form.place.clone();
            let place = match spaces.get(room) {
                // SAFETY: the room is the results' alone, and nobody gets them before they have landed, or on a stream that
                // comes after; leaves do not overlap in it.
                Some(space) => unsafe { space.tensor(offset, dtype, layout) },
                None => {
                    let room = &rooms[room];
                    let ptr = NonNull::new(std::ptr::with_exposed_provenance_mut(room.address + offset))
                        .ok_or_else(|| PyValueError::new_err("memory at address 0"))?;
                    // SAFETY: as above, and the bytes are the room's, which `owner` keeps.
                    unsafe {
                        Tensor::from_raw_parts_mut(
                            ptr,
                            form.bytes,
                            dtype,
                            layout,
                            room.pinned,
                            Arc::clone(&room.owner),
                        )
                    }
                }
            };
            into.push(place.map_err(failed)?);
            numbers.push(leaf.number);
        }
        let options = match after {
            Some(event) => TransferOptions::new().after(Arc::new(event)),
            None => TransferOptions::new(),
        };
        let placement = if self.wishes.slab {
            Placement::Slab
        } else {
            Placement::Separate
        };
        let options = options.placement(placement);
        let sources = Leaves::new(sources, &names);
        let into = Leaves::new(into, &names);
        let transfer = py.detach(|| pinlane::Tree::transfer_into(&sources, into, &options));
        // What only this call kept goes with the interpreter attached.
        drop(sources);
        Ok(Part::new(transfer.map_err(failed)?, &self.target, reads_in_place))
    }

    /// A leaf as the engine reads it.
    fn source(
        &self,
        group: &Group<'py>,
        leaf: &Leaf<'py>,
        pinned: Option<Backend>,
        kept: &Arc<dyn Any + Send + Sync>,
    ) -> Result<Tensor, Error> {
        let form = self.forms.get(leaf.form);
        let (dtype, layout) = form.source.clone();
        if !group.from.is_host() {
            let ptr = DevicePtr(leaf.address as u64);
            // SAFETY: the bytes are the leaf's, which is kept; the copies come after what its stream has enqueued so far, and
            // who writes it meanwhile breaks the package's rule for sources.
            return unsafe {
                ForeignMemory::new(&group.from, ptr, form.span, Arc::clone(kept))?.tensor(0, dtype, layout)
            };
        }
        let ptr = NonNull::new(std::ptr::with_exposed_provenance_mut(leaf.address)).ok_or_else(|| {
            Error::Unsupported {
                doing: "reading a tensor",
                reason: "it has elements and no memory".to_owned(),
            }
        })?;
        // SAFETY: the bytes are the leaf's, which is kept. Who writes them meanwhile, from another thread or while the
        // transfer is in flight, breaks the package's rule for sources: the copy then has some of both, and is refused
        // where torch's version counter tells.
        unsafe { Tensor::from_raw_parts(ptr, form.span, dtype, layout, pinned, Arc::clone(kept)) }
    }

    /// The family of drivers that knows a leaf on the host as pinned.
    fn pinned(&self, group: &Group<'py>, leaf: &Leaf<'py>) -> Option<Backend> {
        let form = self.forms.get(leaf.form);
        if !group.from.is_host() || form.span < ASK_WHETHER_PINNED || !form.is_dense {
            return None;
        }
        let driver = self.target.driver()?;
        driver
            .is_pinned(std::ptr::with_exposed_provenance(leaf.address), form.span)
            .then(|| driver.properties().id.backend)
    }

    /// The rooms as the engine's, where they are on a device.
    fn spaces(&self, rooms: &[Room<'py>]) -> PyResult<Vec<ForeignMemory>> {
        if self.target.is_host() {
            return Ok(Vec::new());
        }
        let space = |room: &Room<'py>| {
            let ptr = DevicePtr(room.address as u64);
            let owner = Arc::clone(&room.owner);
            // SAFETY: the memory is the room's, which `owner` keeps; the leaves are laid out inside it, and what its stream
            // still does with it is waited for.
            unsafe { ForeignMemory::new(&self.target, ptr, room.bytes, owner) }
        };
        let spaces: Result<Vec<_>, Error> = rooms.iter().map(space).collect();
        spaces.map_err(|error| errors::from_engine(self.py, &error))
    }

    /// An event behind what the caller's streams have enqueued so far: on the memory of the results, and on the sources.
    fn what_to_wait_for(&self, group: &Group<'py>) -> PyResult<Option<Event>> {
        let source = self.recorded(&group.from)?;
        if self.target.is_host() {
            return Ok(source);
        }
        if let Some(event) = source {
            let Some(stream) = self.stream_of(&self.target)? else {
                return Ok(Some(event));
            };
            stream
                .wait(&event)
                .map_err(|error| simulated::driver_error(self.py, "ordering two devices' streams", error))?;
        }
        self.recorded(&self.target)
    }

    fn recorded(&self, device: &Device) -> PyResult<Option<Event>> {
        let Some(stream) = self.stream_of(device)? else {
            return Ok(None);
        };
        let event = stream.record(Timing::Disabled);
        event.map(Some).map_err(|error| {
            simulated::driver_error(self.py, "recording an event on the caller's stream", error)
        })
    }

    /// The caller's stream on a device.
    fn stream_of(&self, device: &Device) -> PyResult<Option<Stream>> {
        let (Some(driver), Some(id)) = (device.driver(), device.id()) else {
            return Ok(None);
        };
        let given = match &self.wishes.stream_device {
            Some(name) if devices::open(self.py, name)? == *device => self.wishes.stream,
            _ => None,
        };
        let handle = match given {
            Some(handle) => Some(handle),
            None if driver.properties().simulated => None,
            None => Some(self.current_stream(id.ordinal)?),
        };
        // SAFETY: a handle of torch's for this device, or of a simulated stream that the caller holds; streams of torch's
        // pools are never destroyed.
        let adopt = |handle| unsafe { Stream::adopt(driver, RawStream::from_raw(handle)) };
        Ok(handle.map(adopt))
    }

    /// Torch's current stream on a GPU.
    fn current_stream(&self, ordinal: u32) -> PyResult<u64> {
        if let Some(tensor_type) = &self.wishes.tensor_type
            && let Some(handle) = exchange::current_stream(tensor_type, ordinal)?
        {
            return Ok(handle);
        }
        self.plan
            .call_method1(intern!(self.py, "stream_of"), (ordinal,))?
            .extract()
    }
}

/// What a tree calls the leaves of a group, in errors.
#[derive(Debug)]
pub(crate) struct Names {
    tree: Py<Tree>,
    numbers: Vec<usize>,
}

impl Names {
    pub(crate) fn name(&self, index: usize) -> String {
        let number = self.numbers.get(index).copied().unwrap_or(index);
        let path = Python::try_attach(|py| self.tree.get().path_of(py, number));
        crate::tree::named(&path.unwrap_or_default())
    }
}
