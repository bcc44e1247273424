//! One tensor that is a tree by itself.
//!
//! Up to about a mebibyte, and out of pinned memory always, nothing moves it faster than one call of the driver's, which is
//! what torch makes. It may be over in microseconds, so every call of Python's on the way shows: [`front`] makes the package's
//! `to` a function of C that asks the device's [`Way`] first, and hands all else to the function in Python.

use std::{
    ffi::{CString, c_char},
    ptr,
};

use pyo3::{
    Borrowed, ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyString, PyType},
};

use crate::{
    errors,
    exchange::{self, Space},
    simulated,
};

/// How a lone tensor gets to one device.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct Way(Kind);

enum Kind {
    /// To a GPU, by torch.
    Send {
        /// `torch.Tensor.to`.
        to: Py<PyAny>,
        device: Py<PyAny>,
        /// The longest tensor in pageable memory for which that is best, in bytes. Pinned memory is one copy, however long.
        longest: usize,
    },
    /// To the host, by torch.
    Read {
        /// `torch.Tensor.cpu`.
        cpu: Py<PyAny>,
        /// The longest tensor for which that is best, in bytes.
        longest: usize,
    },
    /// By the engine: torch does not know the device.
    Engine,
}

/// What became of a tensor.
enum Outcome {
    /// It is for the engine to move.
    Left,
    /// The moved tensor, or null with an exception set.
    Moved(*mut ffi::PyObject),
}

#[pymethods]
impl Way {
    /// Tensors of the host go to `device` by `to`, those of more than `longest` bytes if they are pinned.
    #[staticmethod]
    fn send(to: Py<PyAny>, device: Py<PyAny>, longest: usize) -> Self {
        Self(Kind::Send { to, device, longest })
    }

    /// Tensors of GPUs come to the host by `cpu`, those of up to `longest` bytes.
    #[staticmethod]
    fn read(cpu: Py<PyAny>, longest: usize) -> Self {
        Self(Kind::Read { cpu, longest })
    }

    /// The engine moves all.
    #[staticmethod]
    fn engine() -> Self {
        Self(Kind::Engine)
    }
}

impl Way {
    /// Moves `tensor`, which is of torch's own type, where that is best done by one call of torch's.
    fn moved(&self, tensor: &Bound<'_, PyAny>) -> PyResult<Outcome> {
        let (longest, goes) = match &self.0 {
            Kind::Engine => return Ok(Outcome::Left),
            Kind::Send { longest, .. } => (*longest, true),
            Kind::Read { longest, .. } => (*longest, false),
        };
        let Some((space, bytes)) = exchange::place_of(tensor)? else {
            // Sparse, quantised, meta.
            return Ok(Outcome::Left);
        };
        // SAFETY: what is called and its arguments are alive, and null ends the arguments. A new reference comes back, or null
        // with an exception.
        let moved = unsafe {
            match (&self.0, space) {
                (Kind::Send { to, device, .. }, Space::Host)
                    if bytes <= longest || (goes && is_pinned(tensor)?) =>
                {
                    let end = ptr::null_mut::<ffi::PyObject>();
                    ffi::PyObject_CallFunctionObjArgs(to.as_ptr(), tensor.as_ptr(), device.as_ptr(), end)
                }
                (Kind::Read { cpu, .. }, Space::Cuda(_)) if bytes <= longest => {
                    let end = ptr::null_mut::<ffi::PyObject>();
                    ffi::PyObject_CallFunctionObjArgs(cpu.as_ptr(), tensor.as_ptr(), end)
                }
                (Kind::Read { .. }, Space::Host) if !is_simulated(tensor)? => ffi::Py_NewRef(tensor.as_ptr()),
                _ => return Ok(Outcome::Left),
            }
        };
        Ok(Outcome::Moved(moved))
    }
}

fn is_pinned(tensor: &Bound<'_, PyAny>) -> PyResult<bool> {
    tensor
        .call_method0(intern!(tensor.py(), "is_pinned"))?
        .is_truthy()
}

/// Whether a tensor of the host lies in the memory of a simulated device.
fn is_simulated(tensor: &Bound<'_, PyAny>) -> PyResult<bool> {
    let address = exchange::with_tensor(tensor, |seen| seen.address)?;
    Ok(address.is_some_and(|address| simulated::device_of(address).is_some()))
}

/// What [`front`] was given.
struct Front {
    /// What moves all that is not one tensor.
    otherwise: Py<PyAny>,
    /// The ways that are known, by the device as callers have written it: a text, or torch's device.
    ways: Py<PyDict>,
}

static FRONT: PyOnceLock<Front> = PyOnceLock::new();
/// Torch's types of tensors and of devices, once there is a way that knows them.
static TYPES: PyOnceLock<(Py<PyType>, Py<PyType>)> = PyOnceLock::new();

/// The package's `to`: `otherwise` with what is known of `ways` before it. `doc` is its documentation, which begins with how it
/// is called, as Python wants that of functions in C. It is made once.
#[pyfunction]
pub(crate) fn front(
    py: Python<'_>,
    otherwise: Py<PyAny>,
    ways: Py<PyDict>,
    doc: String,
) -> PyResult<Bound<'_, PyAny>> {
    FRONT.get_or_init(py, || Front { otherwise, ways });
    // The function lives as long as the interpreter, and so does what describes it.
    let doc: *const c_char = CString::new(doc)?.into_raw();
    let method = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: c"to".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: to,
        },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc,
    }));
    let module = PyString::new(py, "pinlane");
    // SAFETY: the description is never freed, and says how `to` is called. A new reference comes back, or null with an
    // exception.
    unsafe {
        let made = ffi::PyCFunction_NewEx(method, ptr::null_mut(), module.as_ptr());
        Bound::from_owned_ptr_or_err(py, made)
    }
}

/// Tells which types torch's tensors and devices are of.
#[pyfunction]
pub(crate) fn know_torch(py: Python<'_>, tensor: Py<PyType>, device: Py<PyType>) {
    TYPES.get_or_init(py, || (tensor, device));
}

/// `pinlane.to`.
///
/// # Safety
///
/// Called by Python alone, as a function that takes an array of arguments and names of the last of them.
unsafe extern "C" fn to(
    _module: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: Python calls with the thread attached.
    let py = unsafe { Python::assume_attached() };
    let Some(front) = FRONT.get(py) else {
        return ptr::null_mut();
    };
    if count == 2 && names.is_null() {
        // SAFETY: there are two arguments, alive during the call.
        let (tree, device) = unsafe { (*arguments, *arguments.add(1)) };
        // SAFETY: as above.
        match unsafe { front.alone(py, tree, device) } {
            Ok(Outcome::Left) => {}
            Ok(Outcome::Moved(moved)) if !moved.is_null() => return moved,
            Ok(Outcome::Moved(_)) => return refused(None),
            Err(error) => return refused(Some(error)),
        }
    }
    // SAFETY: the arguments are as Python has given them.
    unsafe { front.otherwise(arguments, count, names) }
}

/// Raises what torch has raised, or what went wrong on the way to it: that a device has no room is ours too.
#[cold]
fn refused(error: Option<PyErr>) -> *mut ffi::PyObject {
    Python::attach(|py| {
        let error = error.unwrap_or_else(|| PyErr::fetch(py));
        errors::of_leaf(py, error, String::new).restore(py);
    });
    ptr::null_mut()
}

impl Front {
    /// Moves a tree that is one tensor, where a way to the device is known.
    ///
    /// # Safety
    ///
    /// Both are alive objects.
    unsafe fn alone(
        &self,
        py: Python<'_>,
        tree: *mut ffi::PyObject,
        device: *mut ffi::PyObject,
    ) -> PyResult<Outcome> {
        let Some((tensor_type, device_type)) = TYPES.get(py) else {
            return Ok(Outcome::Left);
        };
        // SAFETY: the caller's promise; types are compared by their addresses. Only of a text, or of torch's devices, is it
        // asked whether it is in the dict: numbers are equal to truths.
        let way = unsafe {
            if ffi::Py_TYPE(tree).cast() != tensor_type.as_ptr() {
                return Ok(Outcome::Left);
            }
            let kind = ffi::Py_TYPE(device);
            if kind != &raw mut ffi::PyUnicode_Type && kind.cast() != device_type.as_ptr() {
                return Ok(Outcome::Left);
            }
            ffi::PyDict_GetItemWithError(self.ways.as_ptr(), device)
        };
        if way.is_null() {
            // SAFETY: the thread is attached. What hashing the device raised is raised again by who looks for a way.
            unsafe { ffi::PyErr_Clear() };
            return Ok(Outcome::Left);
        }
        // SAFETY: both are alive: the dict holds the way, and ways are never taken out of it. It holds nothing else.
        unsafe {
            let tree = Borrowed::from_ptr(py, tree);
            let way = Borrowed::from_ptr(py, way).cast_unchecked::<Way>();
            way.get().moved(&tree)
        }
    }

    /// Calls the function in Python.
    ///
    /// # Safety
    ///
    /// The array has `count` arguments, and after them one for each of the `names`, a tuple or null; all are alive.
    unsafe fn otherwise(
        &self,
        arguments: *const *mut ffi::PyObject,
        count: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject {
        // SAFETY: the caller's promise. New references are given to the tuple, which takes them, or given back.
        unsafe {
            let positional = ffi::PyTuple_New(count);
            if positional.is_null() {
                return ptr::null_mut();
            }
            for index in 0..count {
                ffi::PyTuple_SetItem(positional, index, ffi::Py_NewRef(*arguments.offset(index)));
            }
            let named = if names.is_null() {
                ptr::null_mut()
            } else {
                ffi::PyDict_New()
            };
            let mut given = ptr::null_mut();
            if names.is_null() || (!named.is_null() && name_all(named, arguments.offset(count), names)) {
                given = ffi::PyObject_Call(self.otherwise.as_ptr(), positional, named);
            }
            ffi::Py_DECREF(positional);
            ffi::Py_XDECREF(named);
            given
        }
    }
}

/// Puts arguments into a dict by their names; says whether that went well.
///
/// # Safety
///
/// The array has an argument for each of the names, a tuple of texts; all are alive.
unsafe fn name_all(
    named: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    names: *mut ffi::PyObject,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        (0..ffi::PyTuple_Size(names)).all(|index| {
            ffi::PyDict_SetItem(
                named,
                ffi::PyTuple_GetItem(names, index),
                *arguments.offset(index),
            ) == 0
        })
    }
}
