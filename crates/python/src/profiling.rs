//! What the engine does, for a profile: a session of the engine's own tracing.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use pinlane::trace::{self, Session, Trace, TraceFile};
use pyo3::{exceptions::PyOSError, prelude::*};

use crate::errors;

/// A profile: while it is taken, and then what came of it.
#[pyclass]
pub(crate) struct Profile(Mutex<State>);

enum State {
    /// It goes to a file.
    ToFile(TraceFile),
    /// It is only to be looked at.
    Open(Session),
    Taken(Trace),
    Failed,
}

/// A line of the table of operations: name, self seconds, total seconds, calls.
type Line = (String, f64, f64, u64);
/// A device: its name, whether it simulates, for how many seconds it copied, how many copies, their bytes.
type Device = (String, bool, f64, u64, u64);

/// Python's error for a trace that can't be written, of the kind and with the path that `open` would give.
fn no_trace(error: &io::Error, path: PathBuf) -> PyErr {
    let text = format!("making a trace: {error}");
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, text, path)),
        None => PyOSError::new_err(format!("{text}: {}", path.display())),
    }
}

#[pymethods]
impl Profile {
    /// Begins to take one, for a file where one is named.
    #[new]
    fn new(path: Option<PathBuf>) -> PyResult<Self> {
        let state = match path {
            Some(path) => State::ToFile(TraceFile::create(&path).map_err(|error| no_trace(&error, path))?),
            None => State::Open(trace::start()),
        };
        Ok(Self(Mutex::new(state)))
    }

    /// Ends it, and writes the file. Threads without a name get that which stands for their number in `names`.
    fn finish(&self, py: Python<'_>, names: BTreeMap<u32, String>) -> PyResult<()> {
        let name = |trace: &mut Trace| {
            names
                .iter()
                .for_each(|(&number, name)| trace.name_thread(number, name))
        };
        let finished = py.detach(|| {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let finished = match std::mem::replace(&mut *state, State::Failed) {
                State::ToFile(file) => file.finish_with(name),
                State::Open(session) => {
                    let mut trace = session.finish();
                    name(&mut trace);
                    Ok(trace)
                }
                State::Taken(trace) => Ok(trace),
                State::Failed => return Ok(()),
            };
            finished.map(|trace| *state = State::Taken(trace))
        });
        finished.map_err(PyErr::from)
    }

    #[getter]
    fn operations(&self, py: Python<'_>) -> PyResult<Vec<Line>> {
        self.look(py, |trace| {
            let operations = trace.operations().operations;
            let line = |operation: trace::Operation| {
                (
                    operation.name,
                    operation.self_seconds,
                    operation.total_seconds,
                    operation.calls,
                )
            };
            operations.into_iter().map(line).collect()
        })
    }

    #[getter]
    fn devices(&self, py: Python<'_>) -> PyResult<Vec<Device>> {
        self.look(py, |trace| {
            let device = |device: &trace::TracedDevice| {
                (
                    device.properties.id.to_string(),
                    device.properties.simulated,
                    device.busy_time().as_secs_f64(),
                    // Those that follow each other closely are one span.
                    device.spans.iter().map(|span| u64::from(span.copies)).sum(),
                    device.spans.iter().map(|span| span.bytes).sum(),
                )
            };
            trace.devices().iter().map(device).collect()
        })
    }

    #[getter]
    fn spans(&self, py: Python<'_>) -> PyResult<usize> {
        self.look(py, Trace::len)
    }

    fn __str__(&self, py: Python<'_>) -> PyResult<String> {
        self.look(py, |trace| trace.summary().to_string())
    }
}

impl Profile {
    fn look<T>(&self, py: Python<'_>, look: impl FnOnce(&Trace) -> T) -> PyResult<T> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Taken(trace) = &*state {
            return Ok(look(trace));
        }
        // Raising runs Python code.
        drop(state);
        Err(errors::raise(
            py,
            "Error",
            "looking at a profile: it is still being taken, or could not be written; look at it behind its block",
        ))
    }
}

/// Writes the trace that `PINLANE_TRACE` asks for. Called at the interpreter's exit: where that is by an interrupt, the process
/// ends by the signal, and the library's own handler is not run.
#[pyfunction]
pub(crate) fn finish_process(py: Python<'_>) {
    py.detach(pinlane::trace::finish_process);
}
