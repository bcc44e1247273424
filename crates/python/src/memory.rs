//! Memory for results that is not torch's: the host's, and a simulated device's, which is host memory too.
//!
//! Torch and numpy look at it as one run of bytes, by DLPack and by the array interface, and make tensors and arrays over
//! parts of it. It lives as long as any of them.

use std::{any::Any, ffi::CStr, ptr::NonNull, sync::Arc, time::Duration};

use pinlane::{DType, Device, Error, HostMemory, Tensor, driver::Backend};
use pyo3::{ffi, prelude::*, types::PyDict};

use crate::{devices, errors, exchange, simulated::SimulatedMemory};

/// Memory of the host, pinned for a device where one is named, or of a simulated device, whose content does not matter; and
/// its address.
#[pyfunction]
#[pyo3(signature = (target, bytes, pinned=None))]
pub(crate) fn make_memory(
    py: Python<'_>,
    target: &str,
    bytes: usize,
    pinned: Option<&str>,
) -> PyResult<(Memory, usize)> {
    let target = devices::open(py, target)?;
    let pinned = pinned.map(|name| devices::open(py, name)).transpose()?;
    let on_host = pinned.as_ref().map_or(HostMemory::Pageable, HostMemory::Pinned);
    let device = pinned.as_ref().unwrap_or(&target);
    let made = made_or_drained(py, device, || match target.is_host() {
        true => Memory::on_host(bytes, on_host),
        false => Memory::on_simulated(&target, bytes),
    });
    let memory = made.map_err(|error| errors::from_engine(py, &error))?;
    let address = memory.ptr.addr().get();
    Ok((memory, address))
}

/// Makes memory, detached. Where there is no room, once more when nothing that was dropped is on its way on `device`: what such
/// transfers read and write is let go then. Also where nothing is: the last may have landed since.
pub(crate) fn made_or_drained(
    py: Python<'_>,
    device: &Device,
    make: impl Fn() -> Result<Memory, Error> + Send + Sync,
) -> Result<Memory, Error> {
    match py.detach(&make) {
        Err(error) if errors::is_of_room(&error) => {
            wait_for_dropped(py, device);
            py.detach(&make)
        }
        made => made,
    }
}

/// Waits for what was dropped and is on its way on `device`, for a while. Being attached again lets go of the objects that
/// were kept for it.
fn wait_for_dropped(py: Python<'_>, device: &Device) {
    py.detach(|| device.drain(PATIENCE));
}

/// How long to wait for room. A dropped transfer may be behind work that takes any time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for who makes memory otherwise: by torch.
#[pyfunction]
pub(crate) fn drain(py: Python<'_>, device: &str) -> PyResult<()> {
    wait_for_dropped(py, &devices::open(py, device)?);
    Ok(())
}

/// A run of bytes that Python looks at.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct Memory {
    ptr: NonNull<u8>,
    bytes: usize,
    /// The family of drivers that has pinned it.
    pinned: Option<Backend>,
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: a run of bytes has no thread; who reads and writes them is up to Python, as with any tensor.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Host memory whose content does not matter.
    pub(crate) fn on_host(bytes: usize, memory: HostMemory<'_>) -> Result<Self, Error> {
        let device = match memory {
            HostMemory::Pageable => None,
            HostMemory::Pinned(device) | HostMemory::PinnedIfRoom(device) => device.id(),
        };
        let mut tensor = memory.empty(DType::U8, &[bytes.max(1)])?;
        let ptr = NonNull::from(tensor.as_mut_slice::<u8>()?).cast();
        Ok(Self {
            ptr,
            bytes,
            pinned: device.filter(|_| tensor.is_pinned()).map(|id| id.backend),
            owner: Arc::new(tensor),
        })
    }

    /// Memory of a simulated device.
    pub(crate) fn on_simulated(device: &Device, bytes: usize) -> Result<Self, Error> {
        let memory = SimulatedMemory::new(device, bytes)?;
        Ok(Self {
            ptr: memory.ptr(),
            bytes,
            pinned: None,
            owner: memory,
        })
    }

    /// The memory of a tensor of bytes on the host.
    pub(crate) fn over(tensor: Tensor) -> Result<Self, Error> {
        let bytes = tensor.as_bytes()?;
        Ok(Self {
            ptr: NonNull::from(bytes).cast(),
            bytes: bytes.len(),
            pinned: None,
            owner: Arc::new(tensor),
        })
    }

    /// Memory of the host that `owner` keeps: `bytes` bytes from `ptr` on, pinned by the drivers of one family or not.
    pub(crate) fn of(
        ptr: NonNull<u8>,
        bytes: usize,
        pinned: Option<Backend>,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            ptr,
            bytes,
            pinned,
            owner,
        }
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    pub(crate) fn pinned(&self) -> Option<Backend> {
        self.pinned
    }

    pub(crate) fn owner(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.owner
    }
}

#[pymethods]
impl Memory {
    /// The bytes as numpy asks for them.
    #[getter]
    fn __array_interface__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let memory = slf.get();
        let interface = PyDict::new(slf.py());
        interface.set_item("version", 3)?;
        interface.set_item("shape", (memory.bytes,))?;
        interface.set_item("typestr", "|u1")?;
        interface.set_item("data", (memory.ptr.addr().get(), false))?;
        Ok(interface)
    }

    /// The bytes as torch asks for them.
    #[pyo3(signature = (**_options))]
    fn __dlpack__<'py>(
        slf: &Bound<'py, Self>,
        _options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let memory = slf.get();
        let managed = Managed::over(memory.ptr, memory.bytes, Arc::clone(&memory.owner));
        // SAFETY: the name is static, and the destructor takes the tensor back where nobody has taken it.
        let capsule = unsafe { ffi::PyCapsule_New(managed.as_ptr().cast(), UNTAKEN.as_ptr(), Some(give_up)) };
        if capsule.is_null() {
            // SAFETY: nobody else knows the tensor.
            unsafe { Managed::delete(managed.as_ptr()) };
        }
        // SAFETY: a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(slf.py(), capsule) }
    }

    /// The host, as DLPack numbers it.
    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }

    /// How many bytes there are.
    fn __len__(&self) -> usize {
        self.bytes
    }
}

const UNTAKEN: &CStr = c"dltensor";

/// `DLManagedTensor`, and what it manages.
#[repr(C)]
struct Managed {
    tensor: exchange::Tensor,
    context: *mut std::ffi::c_void,
    deleter: unsafe extern "C" fn(*mut Managed),
    shape: [i64; 1],
    strides: [i64; 1],
    _owner: Arc<dyn Any + Send + Sync>,
}

impl Managed {
    fn over(ptr: NonNull<u8>, bytes: usize, owner: Arc<dyn Any + Send + Sync>) -> NonNull<Self> {
        let mut managed = Box::new(Self {
            tensor: exchange::Tensor {
                data: ptr.as_ptr().cast(),
                rank: 1,
                code: 1,
                bits: 8,
                lanes: 1,
                ..exchange::Tensor::default()
            },
            context: std::ptr::null_mut(),
            deleter: Self::delete,
            shape: [bytes as i64],
            strides: [1],
            _owner: owner,
        });
        managed.tensor.shape = managed.shape.as_ptr();
        managed.tensor.strides = managed.strides.as_ptr();
        NonNull::from(Box::leak(managed))
    }

    /// # Safety
    ///
    /// `managed` comes from [`over`](Self::over), and nobody uses it afterwards.
    unsafe extern "C" fn delete(managed: *mut Self) {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(managed) });
    }
}

/// The destructor of a capsule: deletes the tensor unless somebody has taken it, and renamed the capsule.
///
/// # Safety
///
/// Called by Python alone, with a capsule that `__dlpack__` made.
unsafe extern "C" fn give_up(capsule: *mut ffi::PyObject) {
    // SAFETY: a live capsule; the name decides whether the tensor is still ours to delete.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, UNTAKEN.as_ptr()) != 0 {
            Managed::delete(ffi::PyCapsule_GetPointer(capsule, UNTAKEN.as_ptr()).cast());
        }
    }
}
