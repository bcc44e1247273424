//! A [`SlabFile`] as Python uses it: workers fill slabs, and the process that reads them pins each once.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pinlane::{AdoptedPin, Device, Error};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::{
    devices, errors,
    memory::Memory,
    process,
    slab_file::{GRANULE, MOST_SLABS, Pages, SlabFile, Taken},
};

/// Slabs that processes share.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct Slabs {
    file: Arc<SlabFile>,
    /// The slabs that this process has mapped.
    mapped: Mutex<Vec<Option<Arc<Slab>>>>,
}

/// A slab that is mapped.
#[derive(Debug)]
struct Slab {
    pages: Arc<Pages>,
    pin: Mutex<Option<(Device, AdoptedPin)>>,
}

/// What a tensor over a slab keeps: fields drop in this order, so the slab is given back before it could be unpinned.
#[derive(Debug)]
struct InUse {
    _taken: Taken,
    _slab: Arc<Slab>,
}

impl Slab {
    fn pin(&self) -> MutexGuard<'_, Option<(Device, AdoptedPin)>> {
        self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins the first bytes, as far as the budget has room; says whether they are pinned. The caller has taken the slab.
    fn pinned(&self, device: &Device, bytes: usize) -> Result<bool, Error> {
        let mut pin = self.pin();
        if let Some((known, there)) = &*pin
            && known == device
            && there.bytes() >= bytes
        {
            return Ok(true);
        }
        // Who had the slab before has let go of it, and so have the transfers that read it.
        *pin = None;
        let bytes = bytes.next_multiple_of(GRANULE);
        let owner = Arc::clone(&self.pages);
        // SAFETY: the pages are mapped while their owner lives, and pinned here alone, under the lock; tensors over them
        // keep the slab, and are gone when it is taken again, which is when this pin may be dropped.
        match unsafe { AdoptedPin::new(device, self.pages.ptr(), bytes, owner) } {
            Ok(made) => *pin = Some((device.clone(), made)),
            Err(error) if errors::class_of(&error) == "PinnedBudgetError" => {}
            Err(error) => return Err(error),
        }
        Ok(pin.is_some())
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if !process::may_use_devices() {
            // A forked child: the pin is the parent's, and the device's locks may be held for ever.
            std::mem::forget(self.pin().take());
        }
    }
}

impl Slabs {
    fn over(file: SlabFile) -> Self {
        let mapped = Mutex::new(vec![None; file.slabs()]);
        Self {
            file: Arc::new(file),
            mapped,
        }
    }

    fn slab(&self, number: usize) -> io::Result<Arc<Slab>> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let place = mapped.get_mut(number).ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(slab) = place {
            return Ok(Arc::clone(slab));
        }
        let slab = Arc::new(Slab {
            pages: Arc::new(self.file.map(number)?),
            pin: Mutex::new(None),
        });
        Ok(Arc::clone(place.insert(slab)))
    }
}

#[pymethods]
impl Slabs {
    /// New slabs, or, in another process, those of an open file, which is duplicated.
    #[new]
    #[pyo3(signature = (slabs, slab_bytes, file=None))]
    fn new(slabs: usize, slab_bytes: usize, file: Option<i32>) -> PyResult<Self> {
        if slabs == 0 || slabs > MOST_SLABS {
            return Err(PyValueError::new_err(format!(
                "{slabs} slabs: there are between 1 and {MOST_SLABS}"
            )));
        }
        let rounded = slab_bytes
            .checked_next_multiple_of(GRANULE)
            .filter(|&bytes| bytes > 0);
        let slab_bytes = rounded
            .ok_or_else(|| PyValueError::new_err(format!("{slab_bytes} bytes are no size for a slab")))?;
        let Some(file) = file else {
            return Ok(Self::over(SlabFile::create(slabs, slab_bytes)?));
        };
        if file < 0 {
            return Err(PyValueError::new_err(format!("{file} is no open file")));
        }
        // SAFETY: a number that is no open file gives an error, and any other may be borrowed for as long as this call.
        let file = unsafe { BorrowedFd::borrow_raw(file) }.try_clone_to_owned()?;
        Ok(Self::over(SlabFile::open(file, slabs, slab_bytes)?))
    }

    /// The file's number in this process.
    fn fileno(&self) -> i32 {
        self.file.file().as_raw_fd()
    }

    /// The bytes of one slab.
    #[getter]
    fn slab_bytes(&self) -> usize {
        self.file.slab_bytes()
    }

    /// For a worker: a slab to fill, and the word to send with it. `None` when none is free.
    fn claim(&self) -> PyResult<Option<(usize, u64)>> {
        Ok(self.file.claim()?)
    }

    /// For a worker: sends no word for a slab that it has claimed.
    fn give_up(&self, slab: usize, word: u64) {
        self.file.give_up(slab, word);
    }

    /// For a worker: all of a slab that it has claimed. To be written only while it has.
    fn memory(&self, slab: usize) -> PyResult<Memory> {
        let slab = self.slab(slab)?;
        let (ptr, bytes) = (slab.pages.ptr(), slab.pages.bytes());
        Ok(Memory::of(ptr, bytes, None, slab))
    }

    /// For the reader that got a word: the slab's first bytes, pinned for `device` as far as its budget has room. The slab is
    /// free again when nothing uses the memory any more. `None` for a word that is worth nothing any more.
    fn take(
        &self,
        py: Python<'_>,
        slab: usize,
        word: u64,
        bytes: usize,
        device: Option<&str>,
    ) -> PyResult<Option<Memory>> {
        let device = device.map(|name| devices::open(py, name)).transpose()?;
        let Some(taken) = Taken::new(&self.file, slab, word) else {
            return Ok(None);
        };
        let slab = self.slab(slab)?;
        if bytes > slab.pages.bytes() {
            return Err(PyValueError::new_err(format!(
                "{bytes} bytes of a slab of {}",
                slab.pages.bytes()
            )));
        }
        let mut backend = None;
        if let Some(device) = &device {
            let pinned = py.detach(|| slab.pinned(device, bytes));
            if pinned.map_err(|error| errors::from_engine(py, &error))? {
                backend = device.id().map(|id| id.backend);
            }
        }
        let ptr = slab.pages.ptr();
        let owner = Arc::new(InUse {
            _taken: taken,
            _slab: slab,
        });
        Ok(Some(Memory::of(ptr, bytes, backend, owner)))
    }
}
