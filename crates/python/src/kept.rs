//! Python objects that the engine keeps: tensors whose memory a device may still use.
//!
//! The engine lets go of them on a thread of its own, which is not attached to the interpreter. The references are then given
//! up when some thread attaches next; so that this does not wait for the program's next call, the interpreter is asked to run
//! one.

use std::ffi::{c_int, c_void};

use pyo3::{ffi, prelude::*};

/// Objects that are let go together, on any thread.
#[derive(Debug)]
pub(crate) struct Kept(Vec<Py<PyAny>>);

impl Kept {
    pub(crate) fn new(objects: Vec<Py<PyAny>>) -> Self {
        Self(objects)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.clear();
        // SAFETY: both may be called on any thread, attached or not. Where too many calls are pending already, one of those
        // does as well.
        unsafe {
            if ffi::Py_IsInitialized() != 0 {
                ffi::Py_AddPendingCall(Some(attach), std::ptr::null_mut());
            }
        }
    }
}

/// Attaches, which is when references are given up that were dropped while detached. An interpreter that is exiting still runs
/// pending calls and cannot be attached to any more: it has no use for them then.
extern "C" fn attach(_: *mut c_void) -> c_int {
    let _attached = Python::try_attach(|_| ());
    0
}
