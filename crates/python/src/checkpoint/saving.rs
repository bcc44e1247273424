//! Saving Python's tensors.

use std::{any::Any, path::PathBuf, ptr::NonNull, sync::Arc};

use pinlane::{
    DType, Device, Error, ForeignMemory, Layout, Tensor, Tree,
    checkpoint::{SaveOptions, save, save_file},
    driver::DevicePtr,
};
use pyo3::prelude::*;

use crate::{devices, errors, kept::Kept, process, simulated};

/// A tensor to be saved: its name, its dtype as the format calls it, its shape there, where it lies, and its device.
type Described = (String, String, Vec<usize>, usize, String);

/// The files of tensors, the index, where there is one, and the bytes of all tensors.
type Saved = (Vec<PathBuf>, Option<PathBuf>, u64);

/// Saves tensors without gaps, which `owners` keep, as one checkpoint; `alone` as one file that concerns no other. What their streams do with them is done already.
#[pyfunction]
#[pyo3(signature = (tensors, owners, path, max_shard_bytes=None, metadata=None, alone=false))]
pub(crate) fn save_checkpoint(
    py: Python<'_>,
    tensors: Vec<Described>,
    owners: Vec<Py<PyAny>>,
    path: PathBuf,
    max_shard_bytes: Option<u64>,
    metadata: Option<Vec<(String, String)>>,
    alone: bool,
) -> PyResult<Saved> {
    process::check(py)?;
    let owner: Arc<dyn Any + Send + Sync> = Arc::new(Kept::new(owners));
    let mut named = Named {
        names: Vec::with_capacity(tensors.len()),
        tensors: Vec::with_capacity(tensors.len()),
    };
    for (name, dtype, shape, address, device) in tensors {
        let device = devices::open(py, &device)?;
        let made = dtype
            .parse()
            .map_err(Error::from)
            .and_then(|dtype| tensor(&device, address, dtype, &shape, &owner));
        let made = made.map_err(|source| Error::Leaf {
            path: name.clone(),
            source: Box::new(source),
        });
        named
            .tensors
            .push(made.map_err(|error| errors::from_engine(py, &error))?);
        named.names.push(name);
    }
    drop(owner);
    let mut options = SaveOptions::new();
    if let Some(bytes) = max_shard_bytes {
        options = options.max_shard_bytes(bytes);
    }
    for (key, text) in metadata.into_iter().flatten() {
        options = options.metadata(key, text);
    }
    let saved = py.detach(|| {
        let saved = match alone {
            true => save_file(&named, path, &options),
            false => save(&named, path, &options),
        };
        drop(named);
        saved
    });
    let saved = saved.map_err(|error| errors::from_engine(py, &error))?;
    Ok((saved.files, saved.index, saved.bytes))
}

/// A tensor of the host, which may be a simulated device's, or of a GPU.
fn tensor(
    device: &Device,
    address: usize,
    dtype: DType,
    shape: &[usize],
    owner: &Arc<dyn Any + Send + Sync>,
) -> Result<Tensor, Error> {
    let layout = Layout::contiguous(shape)?;
    let bytes = dtype.bytes_for(layout.elements())?;
    if bytes == 0 {
        return Tensor::zeros(dtype, shape);
    }
    let device = match device.is_host() {
        true => simulated::device_of(address).unwrap_or_else(Device::host),
        false => device.clone(),
    };
    let owner = Arc::clone(owner);
    if !device.is_host() {
        // SAFETY: the bytes are a tensor's, which `owner` keeps; nobody writes them while the caller waits for the files,
        // unless from another thread, which is against the package's rule for sources.
        return unsafe {
            ForeignMemory::new(&device, DevicePtr(address as u64), bytes, owner)?.tensor(0, dtype, layout)
        };
    }
    let ptr =
        NonNull::new(std::ptr::with_exposed_provenance_mut(address)).ok_or_else(|| Error::Unsupported {
            doing: "saving a tensor",
            reason: "it has elements and no memory".to_owned(),
        })?;
    // SAFETY: as above.
    unsafe { Tensor::from_raw_parts(ptr, bytes, dtype, layout, None, owner) }
}

/// Tensors with a name each.
struct Named {
    names: Vec<String>,
    tensors: Vec<Tensor>,
}

impl Tree for Named {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        self.tensors.iter().for_each(visit);
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        Self {
            names: self.names.clone(),
            tensors: self.tensors.iter().map(|_| next()).collect(),
        }
    }

    fn has_names(&self) -> bool {
        true
    }

    fn path(&self, index: usize) -> String {
        self.names[index].clone()
    }
}
