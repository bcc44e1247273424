//! What a tensor or array is: where it lies, its shape and strides.
//!
//! Torch (2.10 and later) offers a table of C functions for this, the DLPack exchange table, which tells in some 50 ns what
//! attributes tell in a microsecond. Older torch is asked by attributes, and numpy by its array interface.

use std::{
    ffi::{CStr, c_int, c_void},
    ptr, slice,
};

use pyo3::{
    exceptions::PyBufferError,
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyCapsule, PyDict, PyString, PyType},
};

/// Memory that tensors lie in, as far as a tensor tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Host,
    Cuda(u32),
}

/// What a tensor or array is.
#[derive(Debug)]
pub(crate) struct Description<'a> {
    pub(crate) space: Space,
    /// The first element's address.
    pub(crate) address: usize,
    /// Tells element types apart; of one library, and while a tensor of the type is alive.
    pub(crate) dtype: u64,
    /// Bytes of an element.
    pub(crate) item: usize,
    /// Whether the elements are complex numbers, or that is not known.
    pub(crate) may_be_complex: bool,
    pub(crate) shape: &'a [i64],
    /// In elements.
    pub(crate) strides: &'a [i64],
}

/// Calls `then` with what a torch tensor is; `None` for one that is not strided memory of the host or a CUDA device.
pub(crate) fn with_tensor<T>(
    tensor: &Bound<'_, PyAny>,
    then: impl FnOnce(Description<'_>) -> T,
) -> PyResult<Option<T>> {
    match Exchange::of_torch(tensor)? {
        Some(exchange) => exchange.describe(tensor, then),
        None => by_attributes(tensor, then),
    }
}

/// Where a torch tensor lies, and the bytes of its elements: as [`with_tensor`], and sooner where torch has no table.
pub(crate) fn place_of(tensor: &Bound<'_, PyAny>) -> PyResult<Option<(Space, usize)>> {
    let py = tensor.py();
    if let Some(exchange) = Exchange::of_torch(tensor)? {
        return exchange.describe(tensor, |seen| {
            let elements: i64 = seen.shape.iter().product();
            (seen.space, elements as usize * seen.item)
        });
    }
    let is = |what: &Bound<'_, PyString>| tensor.getattr(what)?.is_truthy();
    let space = if is(intern!(py, "is_cpu"))? {
        Space::Host
    } else if is(intern!(py, "is_cuda"))? {
        Space::Cuda(tensor.call_method0(intern!(py, "get_device"))?.extract()?)
    } else {
        return Ok(None);
    };
    let strided =
        STRIDED.get_or_try_init(py, || py.import("torch")?.getattr("strided").map(Bound::unbind))?;
    if !tensor.getattr(intern!(py, "layout"))?.is(strided) || is(intern!(py, "is_quantized"))? {
        return Ok(None);
    }
    Ok(Some((space, tensor.getattr(intern!(py, "nbytes"))?.extract()?)))
}

/// What one of torch's functions says of a tensor. Calling it so makes no tuple and no bound method: it is for what every leaf is
/// asked.
pub(crate) fn ask<'py>(
    function: &Bound<'py, PyAny>,
    tensor: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the function and its one argument are alive, and null ends the arguments. A new reference comes back, or null
    // with an exception.
    unsafe {
        let end = ptr::null_mut::<ffi::PyObject>();
        let told = ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), tensor.as_ptr(), end);
        Bound::from_owned_ptr_or_err(tensor.py(), told)
    }
}

/// What keeps a tensor's memory, whatever becomes of the tensor.
pub(crate) fn storage_of<'py>(tensor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static UNTYPED_STORAGE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = tensor.py();
    let find = || {
        py.import("torch")?
            .getattr("Tensor")?
            .getattr("untyped_storage")
            .map(Bound::unbind)
    };
    ask(UNTYPED_STORAGE.get_or_try_init(py, find)?.bind(py), tensor)
}

/// `torch.strided`.
static STRIDED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Calls `then` with what a numpy array is, whose strides are whole elements and not negative.
pub(crate) fn with_array<T>(
    array: &Bound<'_, PyAny>,
    then: impl FnOnce(Description<'_>) -> T,
) -> PyResult<T> {
    let py = array.py();
    let interface = array
        .getattr(intern!(py, "__array_interface__"))?
        .cast_into::<PyDict>()?;
    let data = interface
        .get_item(intern!(py, "data"))?
        .ok_or_else(|| PyBufferError::new_err("an array without data"))?;
    let dtype = array.getattr(intern!(py, "dtype"))?;
    let item: usize = dtype.getattr(intern!(py, "itemsize"))?.extract()?;
    let shape: Vec<i64> = array.getattr(intern!(py, "shape"))?.extract()?;
    let mut strides: Vec<i64> = array.getattr(intern!(py, "strides"))?.extract()?;
    for stride in &mut strides {
        *stride /= item.max(1) as i64;
    }
    Ok(then(Description {
        space: Space::Host,
        address: data.get_item(0)?.extract()?,
        dtype: dtype.as_ptr() as u64,
        item,
        may_be_complex: false,
        shape: &shape,
        strides: &strides,
    }))
}

fn by_attributes<T>(
    tensor: &Bound<'_, PyAny>,
    then: impl FnOnce(Description<'_>) -> T,
) -> PyResult<Option<T>> {
    let py = tensor.py();
    let layout = tensor.getattr(intern!(py, "layout"))?.str()?;
    let is = |what: &Bound<'_, PyString>| tensor.getattr(what)?.is_truthy();
    let is_plain = !is(intern!(py, "is_quantized"))? && !is(intern!(py, "is_nested"))?;
    if layout.to_cow()? != "torch.strided" || !is_plain {
        return Ok(None);
    }
    let device = tensor.getattr(intern!(py, "device"))?;
    let kind: String = device.getattr(intern!(py, "type"))?.extract()?;
    let space = match kind.as_str() {
        "cpu" => Space::Host,
        "cuda" => Space::Cuda(device.getattr(intern!(py, "index"))?.extract()?),
        _ => return Ok(None),
    };
    let Ok(address) = tensor.call_method0(intern!(py, "data_ptr")) else {
        // Wrapped by a transform of torch's: the memory is another tensor's.
        return Ok(None);
    };
    let shape: Vec<i64> = tensor.getattr(intern!(py, "shape"))?.extract()?;
    let strides: Vec<i64> = tensor.call_method0(intern!(py, "stride"))?.extract()?;
    Ok(Some(then(Description {
        space,
        address: address.extract()?,
        dtype: tensor.getattr(intern!(py, "dtype"))?.as_ptr() as u64,
        item: tensor.call_method0(intern!(py, "element_size"))?.extract()?,
        may_be_complex: true,
        shape: &shape,
        strides: &strides,
    })))
}

/// The stream that torch enqueues work of the calling thread on, as the driver's handle; `None` where torch has no table to ask.
pub(crate) fn current_stream(tensor_type: &Bound<'_, PyType>, device: u32) -> PyResult<Option<u64>> {
    let Some(exchange) = Exchange::of_type(tensor_type)? else {
        return Ok(None);
    };
    let mut stream = ptr::null_mut();
    // SAFETY: the table is torch's, of a version that is known here; the place for the answer is valid.
    let status = unsafe { (exchange.0.current_work_stream)(CUDA, device as i32, &raw mut stream) };
    match status {
        0 => Ok(Some(stream as u64)),
        _ => Err(PyErr::fetch(tensor_type.py())),
    }
}

/// Torch's table.
#[derive(Clone, Copy)]
struct Exchange(&'static Table);

const NAME: &CStr = c"dlpack_exchange_api";
/// The version of the table that is known here.
const MAJOR: u32 = 1;

impl Exchange {
    fn of_torch(tensor: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        match TABLE.get(tensor.py()) {
            Some(known) => Ok(*known),
            None => Self::of_type(&tensor.get_type()),
        }
    }

    fn of_type(tensor_type: &Bound<'_, PyType>) -> PyResult<Option<Self>> {
        let py = tensor_type.py();
        let find = || -> PyResult<Option<Self>> {
            let Some(capsule) = tensor_type.getattr_opt(intern!(py, "__dlpack_c_exchange_api__"))? else {
                return Ok(None);
            };
            let capsule = capsule.cast_into::<PyCapsule>()?;
            let mut table = capsule
                .pointer_checked(Some(NAME))?
                .as_ptr()
                .cast_const()
                .cast::<Header>();
            // SAFETY: the capsule of this name holds a table that lives as long as torch, which is never unloaded; every
            // version begins with this header, and the chain of older ones ends with null.
            while let Some(header) = unsafe { table.as_ref() } {
                if header.version.major == MAJOR {
                    // SAFETY: a header of this major version begins such a table.
                    let table: &'static Table = unsafe { &*table.cast::<Table>() };
                    return Ok(table.describe.is_some().then_some(Self(table)));
                }
                table = header.older;
            }
            Ok(None)
        };
        TABLE.get_or_try_init(py, find).copied()
    }

    fn describe<T>(
        self,
        tensor: &Bound<'_, PyAny>,
        then: impl FnOnce(Description<'_>) -> T,
    ) -> PyResult<Option<T>> {
        let describe = self.0.describe.expect("tables without it are not taken");
        let mut seen = Tensor::default();
        // SAFETY: the object is an instance of torch's tensor type, alive and not shared with other threads while the
        // interpreter is attached; the place for the answer is valid.
        if unsafe { describe(tensor.as_ptr().cast(), &raw mut seen) } != 0 {
            // Sparse, quantised, meta: what the protocol can't say.
            drop(PyErr::take(tensor.py()));
            return Ok(None);
        }
        let space = match seen.device {
            CPU | CUDA_HOST => Space::Host,
            CUDA => Space::Cuda(seen.ordinal as u32),
            _ => return Ok(None),
        };
        let bits = usize::from(seen.bits) * usize::from(seen.lanes);
        if !bits.is_multiple_of(8) {
            return Ok(None);
        }
        let rank = seen.rank as usize;
        let numbers = |first: *const i64| match rank {
            0 => &[][..],
            // SAFETY: torch gives as many numbers as there are dimensions, valid until it is called again.
            _ => unsafe { slice::from_raw_parts(first, rank) },
        };
        Ok(Some(then(Description {
            space,
            address: seen.data as usize + seen.offset as usize,
            dtype: u64::from(seen.code) | u64::from(seen.bits) << 8 | u64::from(seen.lanes) << 16,
            item: bits / 8,
            may_be_complex: seen.code == COMPLEX,
            shape: numbers(seen.shape),
            strides: numbers(seen.strides),
        })))
    }
}

/// Torch's, once asked for.
static TABLE: PyOnceLock<Option<Exchange>> = PyOnceLock::new();

const CPU: i32 = 1;
const CUDA: i32 = 2;
const CUDA_HOST: i32 = 3;
/// `kDLComplex`.
const COMPLEX: u8 = 5;

/// `DLPackVersion`.
#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
}

/// `DLPackExchangeAPIHeader`.
#[repr(C)]
struct Header {
    version: Version,
    older: *const Header,
}

/// `DLPackExchangeAPI`. What is not called here is not spelled out.
#[repr(C)]
struct Table {
    header: Header,
    allocate: *const c_void,
    export: *const c_void,
    import: *const c_void,
    describe: Option<unsafe extern "C" fn(*mut ffi::PyObject, *mut Tensor) -> c_int>,
    current_work_stream: unsafe extern "C" fn(i32, i32, *mut *mut c_void) -> c_int,
}

// SAFETY: a table is never written, and its functions may be called by any thread that is attached to the interpreter.
unsafe impl Sync for Table {}

/// `DLTensor`.
#[repr(C)]
pub(crate) struct Tensor {
    pub(crate) data: *mut c_void,
    pub(crate) device: i32,
    pub(crate) ordinal: i32,
    pub(crate) rank: i32,
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
    pub(crate) shape: *const i64,
    pub(crate) strides: *const i64,
    pub(crate) offset: u64,
}

impl Default for Tensor {
    fn default() -> Self {
        Self {
            data: ptr::null_mut(),
            device: CPU,
            ordinal: 0,
            rank: 0,
            code: 0,
            bits: 0,
            lanes: 0,
            shape: ptr::null(),
            strides: ptr::null(),
            offset: 0,
        }
    }
}
