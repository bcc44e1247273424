//! Checkpoints: the catalogue as Python sees it, and what starts its tensors on their way.
//!
//! The package says where each tensor goes: into one run of memory that it has made, one after the other, or into memory
//! that is there already. The tensors' bytes then move as [`spans`]; an [`Arrival`](arrival::Arrival) is those on their way.

pub(crate) mod arrival;
pub(crate) mod saving;
mod spans;

use std::{ops::Range, path::PathBuf, sync::Arc};

use pinlane::{
    DType, Error,
    checkpoint::{Entry, Shard},
};
use pyo3::{
    exceptions::{PyIndexError, PyValueError},
    prelude::*,
    types::{PyDict, PyList, PyTuple},
};

use self::{arrival::Arrival, spans::Destination};
use crate::{errors, kept::Kept, memory::Memory};

/// Where each tensor begins in memory that they share, in bytes.
const ALIGNMENT: usize = 256;

/// A checkpoint, or a part of one: see `pinlane.Checkpoint`.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct Checkpoint(Arc<pinlane::Checkpoint>);

/// A tensor's dtype as the format calls it, its shape, bytes, file, and where in the file it begins and ends.
type Described<'py> = (&'static str, Bound<'py, PyTuple>, u64, PathBuf, u64, u64);

/// A file as memory, runs of tensors over it, and the numbers of these.
type Mapped<'py> = (Py<Memory>, Bound<'py, PyList>, Vec<usize>);

impl Checkpoint {
    fn from(py: Python<'_>, opened: Result<pinlane::Checkpoint, Error>) -> PyResult<Self> {
        let opened = opened.map_err(|error| errors::from_engine(py, &error))?;
        Ok(Self(Arc::new(opened)))
    }

    fn entry(&self, py: Python<'_>, name: &str) -> PyResult<Entry<'_>> {
        self.0.get(name).ok_or_else(|| {
            let tensor = name.to_owned();
            errors::from_engine(py, &pinlane::CheckpointError::NoSuchTensor { tensor }.into())
        })
    }

    /// The tensors of these numbers, in order.
    fn part(&self, numbers: Range<usize>) -> PyResult<impl Iterator<Item = Entry<'_>>> {
        if numbers.start > numbers.end || numbers.end > self.0.len() {
            return Err(PyIndexError::new_err(format!(
                "tensors {numbers:?} of {}",
                self.0.len()
            )));
        }
        Ok(self.0.entries().skip(numbers.start).take(numbers.len()))
    }
}

#[pymethods]
impl Checkpoint {
    /// What is at a path, or with `files` all of these files.
    #[new]
    fn new(py: Python<'_>, path: Option<PathBuf>, files: Vec<PathBuf>) -> PyResult<Self> {
        let opened = py.detach(|| match path {
            Some(path) => pinlane::Checkpoint::open(path),
            None => pinlane::Checkpoint::open_files(files),
        });
        Self::from(py, opened)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __contains__(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    /// All names, in the order in which tensors are numbered.
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.0.entries().map(|entry| entry.name()))
    }

    /// The bytes of each tensor.
    fn sizes(&self) -> Vec<u64> {
        self.0.entries().map(|entry| entry.bytes()).collect()
    }

    fn describe<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Described<'py>> {
        let entry = self.entry(py, name)?;
        let (shape, range) = (PyTuple::new(py, entry.shape())?, entry.file_range());
        let file = entry.shard().path().to_owned();
        Ok((
            entry.dtype().name(),
            shape,
            entry.bytes(),
            file,
            range.start,
            range.end,
        ))
    }

    fn files(&self) -> Vec<PathBuf> {
        let shards = self.0.shards().iter();
        shards.map(|shard| shard.path().to_owned()).collect()
    }

    /// The metadata of all files; `None` where none has any.
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        if self.0.shards().iter().all(|shard| shard.metadata().is_none()) {
            return Ok(None);
        }
        let metadata = PyDict::new(py);
        for (key, text) in self.0.metadata() {
            metadata.set_item(key, text)?;
        }
        Ok(Some(metadata))
    }

    /// The tensors of these names, in the checkpoint's order.
    fn only(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Self> {
        let only = self.0.only(names);
        Self::from(py, only)
    }

    /// The tensors whose names match a pattern.
    fn matching(&self, py: Python<'_>, pattern: &str) -> PyResult<Self> {
        let matching = self.0.matching(pattern);
        Self::from(py, matching)
    }

    /// How tensors `first` to `end` lie in memory that they share: runs of equal neighbours, as `pinlane._torch.Run` says, and
    /// the bytes of it all. `examples` has something with torch's dtype for each that torch has, by the format's name.
    fn slab<'py>(
        &self,
        py: Python<'py>,
        first: usize,
        end: usize,
        examples: &Bound<'py, PyDict>,
    ) -> PyResult<(Bound<'py, PyList>, usize)> {
        let runs = PyList::empty(py);
        let mut entries = self.part(first..end)?.peekable();
        let mut offset = 0usize;
        while let Some(entry) = entries.next() {
            let is_equal = |next: &Entry<'_>| next.dtype() == entry.dtype() && next.shape() == entry.shape();
            let mut count = 1usize;
            while entries.next_if(is_equal).is_some() {
                count += 1;
            }
            let Some(example) = examples.get_item(entry.dtype().name())? else {
                return Err(no_dtype(py, &entry));
            };
            let shape = torch_shape(py, &entry)?;
            let strides = strides(&shape);
            let step = room(&entry)?;
            let (shape, strides) = (PyTuple::new(py, shape)?, PyTuple::new(py, strides)?);
            runs.append((example, shape, strides, offset, count, step))?;
            let bytes = step
                .checked_mul(count)
                .and_then(|bytes| bytes.checked_add(offset));
            offset = bytes.ok_or_else(too_large)?;
        }
        Ok((runs, offset))
    }

    /// The files as memory, and the tensors over each as runs of one, with their numbers; and the numbers of those that begin
    /// where torch can't have any of their dtype. Whoever calls this has been told what must not happen to the files.
    fn map<'py>(
        &self,
        py: Python<'py>,
        examples: &Bound<'py, PyDict>,
    ) -> PyResult<(Vec<Mapped<'py>>, Vec<usize>)> {
        let (mut files, mut others): (Vec<Mapped<'_>>, _) = (Vec::new(), Vec::new());
        let mut last: Option<&Shard> = None;
        for (number, entry) in self.0.entries().enumerate() {
            let Some(example) = examples.get_item(entry.dtype().name())? else {
                return Err(no_dtype(py, &entry));
            };
            let shape = torch_shape(py, &entry)?;
            let start = entry.file_range().start;
            // Half a byte counts as a whole one.
            if !start.is_multiple_of(entry.dtype().bits().div_ceil(8) as u64) {
                others.push(number);
                continue;
            }
            if !last.is_some_and(|shard| std::ptr::eq(shard, entry.shard())) {
                last = Some(entry.shard());
                // SAFETY: the package passes this promise on to its users.
                let whole =
                    unsafe { entry.shard().map() }.map_err(|error| errors::from_engine(py, &error))?;
                let memory = Memory::over(whole).map_err(|error| errors::from_engine(py, &error))?;
                files.push((Py::new(py, memory)?, PyList::empty(py), Vec::new()));
            }
            if let Some((_, runs, numbers)) = files.last_mut() {
                let strides = PyTuple::new(py, strides(&shape))?;
                runs.append((example, PyTuple::new(py, shape)?, strides, start, 1, 0))?;
                numbers.push(number);
            }
        }
        Ok((files, others))
    }

    /// Starts moving tensors `first` to `end` into memory of `target`, `bytes` bytes from `address` on, where they lie as
    /// [`slab`](Self::slab) says. `owner` keeps the memory; `stream` is the caller's stream on the target.
    #[expect(clippy::too_many_arguments, reason = "what memory is takes three")]
    fn start(
        &self,
        py: Python<'_>,
        first: usize,
        end: usize,
        target: &str,
        address: usize,
        owner: Py<PyAny>,
        stream: Option<u64>,
    ) -> PyResult<Arrival> {
        let mut destination = Destination::new(py, target, Arc::new(Kept::new(vec![owner])))?;
        let mut address = address;
        for entry in self.part(first..end)? {
            destination.take(&entry, address);
            address = address.checked_add(room(&entry)?).ok_or_else(too_large)?;
        }
        destination.start(py, &self.0, stream)
    }

    /// Starts moving tensors into memory of `target` that they exactly fill, at one address each. `owners` keep the memory.
    fn start_into(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        target: &str,
        addresses: Vec<usize>,
        owners: Vec<Py<PyAny>>,
        stream: Option<u64>,
    ) -> PyResult<Arrival> {
        if names.len() != addresses.len() {
            let counts = format!("{} tensors and {} addresses", names.len(), addresses.len());
            return Err(PyValueError::new_err(counts));
        }
        let mut destination = Destination::new(py, target, Arc::new(Kept::new(owners)))?;
        for (name, address) in names.iter().zip(addresses) {
            destination.take(&self.entry(py, name)?, address);
        }
        destination.start(py, &self.0, stream)
    }

    /// Starts moving a part of a tensor into memory of `target` at `address`. The part has, of each dimension as torch counts
    /// them, the indices from a first one on, so many of them, so far apart.
    #[expect(clippy::too_many_arguments, reason = "what memory is takes three")]
    fn start_part(
        &self,
        py: Python<'_>,
        name: &str,
        indices: Vec<(usize, usize, usize)>,
        target: &str,
        address: usize,
        owner: Py<PyAny>,
        stream: Option<u64>,
    ) -> PyResult<Arrival> {
        let entry = self.entry(py, name)?;
        let part = || {
            let mut part = match entry.dtype() {
                // Two of its elements are one of torch's, which is a byte.
                DType::F4 => entry.shard().range(entry.file_range())?,
                _ => entry.tensor()?,
            };
            let mut shape = entry.shape().to_vec();
            halve_last(entry.dtype(), &mut shape);
            part = part.reshape(&shape)?;
            for (dim, &(first, count, step)) in indices.iter().enumerate() {
                let end = first + count.saturating_sub(1) * step + usize::from(count > 0);
                part = part.slice(dim, first..end, step)?;
            }
            Ok(part)
        };
        let part = part().map_err(|error| errors::from_engine(py, &error))?;
        let destination = Destination::new(py, target, Arc::new(Kept::new(vec![owner])))?;
        destination.start_view(py, &self.0, (name, part), address, stream)
    }
}

/// The bytes that a tensor takes in memory that tensors share.
fn room(entry: &Entry<'_>) -> PyResult<usize> {
    let bytes = usize::try_from(entry.bytes()).ok();
    bytes
        .and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT))
        .ok_or_else(too_large)
}

fn too_large() -> PyErr {
    PyValueError::new_err("these tensors are larger together than memory can be")
}

/// The shape that torch gives a tensor.
fn torch_shape(py: Python<'_>, entry: &Entry<'_>) -> PyResult<Vec<usize>> {
    let mut shape = entry.shape().to_vec();
    match halve_last(entry.dtype(), &mut shape) {
        true => Ok(shape),
        false => Err(no_dtype(py, entry)),
    }
}

/// Of elements of four bits torch has two in one; says whether that goes.
fn halve_last(dtype: DType, shape: &mut [usize]) -> bool {
    if dtype != DType::F4 {
        return true;
    }
    match shape.last_mut() {
        Some(last) if last.is_multiple_of(2) => {
            *last /= 2;
            true
        }
        _ => false,
    }
}

/// The strides of elements one after the other.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim] * shape[dim].max(1);
    }
    strides
}

/// The exception for a tensor that torch can't have.
fn no_dtype(py: Python<'_>, entry: &Entry<'_>) -> PyErr {
    let message = format!(
        "loading tensor {:?} of {}: torch, of this version, has no tensors of dtype {} and shape {:?}; leave it out with `select`",
        entry.name(),
        entry.shard().path().display(),
        entry.dtype(),
        entry.shape()
    );
    errors::raise(py, "UnsupportedLeafError", message)
}
