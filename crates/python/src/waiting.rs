//! Who is called when a flight may have come further: event loops, which nothing may block.
//!
//! A callback stands in one of two lines until it is called, once; who still waits then comes again.
//!
//! - *For bytes*: the engine calls when more may be there, and whoever has had the flight's parts to bring them in.
//! - *For a turn*: somebody else had the parts just then, and may be waiting for the device. He calls when he has let go of them.
//!
//! The lock is held for moments, never to attach to the interpreter or to call.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Wake,
};

use pyo3::prelude::*;

#[derive(Default)]
pub(crate) struct Waiting(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    for_bytes: Vec<Py<PyAny>>,
    for_turn: Vec<Py<PyAny>>,
}

impl Waiting {
    /// To be called before the engine is asked to wake.
    pub(crate) fn for_bytes(&self, callback: Py<PyAny>) {
        self.lines().for_bytes.push(callback);
    }

    /// Whoever does this has to try for the parts once more: they may have been let go of just before.
    pub(crate) fn for_turn(&self, callback: Py<PyAny>) {
        self.lines().for_turn.push(callback);
    }

    /// Calls those who could not have the parts. To be called whenever they were let go of.
    pub(crate) fn next_turn(&self) {
        let called = mem::take(&mut self.lines().for_turn);
        call(&called);
    }

    /// Calls everybody.
    pub(crate) fn everybody(&self) {
        let Lines { for_bytes, for_turn } = mem::take(&mut *self.lines());
        call(&for_bytes);
        call(&for_turn);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.everybody();
    }
}

fn call(callbacks: &[Py<PyAny>]) {
    if callbacks.is_empty() {
        return;
    }
    // A process that is exiting has nobody to tell.
    let _told = Python::try_attach(|py| {
        for callback in callbacks {
            if let Err(error) = callback.call0(py) {
                error.write_unraisable(py, None);
            }
        }
    });
}
