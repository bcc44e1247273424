//! Transfers on their way, and the tensors that show what they bring.
//!
//! The tensors are there from the start and given to nobody before the bytes are: [`Flight::result`] gives them once, after
//! [`Flight::land`] has returned, or [`Flight::fence`] for the stream that they are used on.
//!
//! The lock is taken only while the thread is detached from the interpreter, and nobody attaches to wait for it: whoever
//! holds it may wait for the device, and for the interpreter. Event loops don't wait for it: they are [`Waiting`].

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    task::{Context, Poll, Waker},
};

use pinlane::{
    Device, Error, Transfer,
    driver::{RawStream, Stream},
};
use pyo3::{exceptions::PyValueError, intern, prelude::*};

use crate::{
    devices, errors, exchange, process,
    tree::{self, Tree},
    waiting::Waiting,
};

/// A tree's transfers.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct Flight {
    tree: Py<Tree>,
    target: Device,
    parts: Mutex<Vec<Part>>,
    /// Event loops that wait for the parts.
    waiting: Arc<Waiting>,
    /// Whether nothing had to move.
    is_empty: bool,
    results: Mutex<Option<Vec<Option<Py<PyAny>>>>>,
    finishes: Vec<(usize, Py<PyAny>)>,
    sources: Arc<Vec<Source>>,
}

/// What comes from one place.
pub(crate) struct Part {
    state: State,
    target: Device,
    /// Whether some source is read where it lies, and not through a slot: it is free when the bytes have landed, not sooner.
    reads_in_place: bool,
}

enum State {
    Flying(Transfer<()>),
    Landed,
    Failed(Error),
}

/// A tensor that must not change while it is read.
pub(crate) struct Source {
    /// Its number in the tree.
    number: usize,
    tensor: Py<PyAny>,
    /// The memory that is read. It is kept for itself: a tensor may be given other memory at any time (`tensor.data = ...`,
    /// `module.half()`), and torch counts that as no write.
    storage: Py<PyAny>,
    /// Where it was read from.
    address: usize,
    /// How often it had been written at the start; `None` where torch counts no writes, as in inference mode.
    version: Option<u64>,
}

impl Part {
    pub(crate) fn new(transfer: Transfer<()>, target: &Device, reads_in_place: bool) -> Self {
        Self {
            state: State::Flying(transfer),
            target: target.clone(),
            reads_in_place,
        }
    }

    /// Has this thread, which is about to wait, do what no other has begun.
    pub(crate) fn help(&self) {
        if let State::Flying(transfer) = &self.state {
            transfer.help();
        }
    }

    fn is_done(&self) -> bool {
        match &self.state {
            State::Flying(transfer) => transfer.is_done(),
            State::Landed | State::Failed(_) => true,
        }
    }

    fn land(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Landed) {
            State::Flying(transfer) => transfer.wait().map_or_else(State::Failed, |()| State::Landed),
            // What has failed stays so, whoever asks again.
            landed => landed,
        };
    }

    /// Waits until the sources are free to change.
    fn settle(&mut self) {
        let is_free = match &self.state {
            State::Flying(transfer) => !self.reads_in_place && transfer.wait_staged(),
            State::Landed | State::Failed(_) => true,
        };
        if !is_free {
            self.land();
        }
    }

    /// Makes `stream`, a stream of the target, wait for the bytes.
    fn fence(&mut self, stream: u64) {
        if let State::Flying(transfer) = &self.state
            && let Some(driver) = self.target.driver()
        {
            // SAFETY: `Flight::fence` has seen that it is a stream of the target; the caller holds it during this call.
            let stream = unsafe { Stream::adopt(driver, RawStream::from_raw(stream)) };
            if let Err(error) = transfer.fence(&stream) {
                self.state = State::Failed(error);
            }
        }
    }
}

impl Flight {
    pub(crate) fn new(
        tree: Py<Tree>,
        target: Device,
        parts: Vec<Part>,
        results: Vec<Option<Py<PyAny>>>,
        finishes: Vec<(usize, Py<PyAny>)>,
        sources: Arc<Vec<Source>>,
    ) -> Self {
        Self {
            tree,
            target,
            is_empty: parts.is_empty(),
            parts: Mutex::new(parts),
            waiting: Arc::default(),
            results: Mutex::new(Some(results)),
            finishes,
            sources,
        }
    }

    fn results(&self) -> MutexGuard<'_, Option<Vec<Option<Py<PyAny>>>>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree of what has landed, finished.
    fn made_of(&self, py: Python<'_>, landed: &[Option<Py<PyAny>>]) -> PyResult<Py<PyAny>> {
        let tree = self.tree.get();
        let mut results: Vec<Bound<'_, PyAny>> = landed
            .iter()
            .map(|result| {
                result
                    .as_ref()
                    .map_or_else(|| py.None(), |result| result.clone_ref(py))
            })
            .map(|result| result.into_bound(py))
            .collect();
        for (number, finish) in &self.finishes {
            let finished = finish.bind(py).call1((&results[*number],));
            results[*number] =
                finished.map_err(|error| errors::of_leaf(py, error, || tree.path_of(py, *number)))?;
        }
        Ok(tree.with(py, &results)?.unbind())
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts, unless somebody has them, perhaps to wait for the device.
    fn parts_if_free(&self) -> Option<MutexGuard<'_, Vec<Part>>> {
        match self.parts.try_lock() {
            Ok(parts) => Some(parts),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Has the engine wake who waits, unless all bytes are there already; says whether they are.
    fn poll(&self, parts: &mut [Part]) -> bool {
        let waker = Waker::from(Arc::clone(&self.waiting));
        for part in parts {
            let State::Flying(transfer) = &mut part.state else {
                continue;
            };
            match Pin::new(transfer).poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => part.state = State::Landed,
                Poll::Ready(Err(error)) => part.state = State::Failed(error),
            }
        }
        true
    }

    /// Does something to each part, detached, and raises the first error there is.
    fn bring_in(&self, py: Python<'_>, each: impl Fn(&mut Part) + Send + Sync) -> PyResult<()> {
        if self.is_empty {
            return Ok(());
        }
        process::check(py)?;
        let failed = py.detach(|| {
            let mut parts = self.parts();
            parts.iter_mut().for_each(each);
            parts.iter().find_map(|part| match &part.state {
                State::Failed(error) => Some(Failure::of(error)),
                _ => None,
            })
        });
        self.waiting.everybody();
        failed.map_or(Ok(()), |failure| Err(failure.raised(py)))
    }
}

#[pymethods]
impl Flight {
    /// Whether [`land`](Self::land) would return at once.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        process::check(py)?;
        let is_done = py.detach(|| {
            let parts = self.parts_if_free()?;
            Some(parts.iter().all(Part::is_done))
        });
        if is_done.is_some() {
            self.waiting.next_turn();
        }
        // Where somebody has them, he is waiting for it.
        Ok(is_done.unwrap_or(false))
    }

    /// Blocks until the bytes are there.
    fn land(&self, py: Python<'_>) -> PyResult<()> {
        self.bring_in(py, Part::land)
    }

    /// Blocks until the sources are free to change.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        self.bring_in(py, Part::settle)
    }

    /// Makes `stream`, a stream of the target, which is the device of that name, wait for the bytes. Blocks while slots are
    /// filled.
    fn fence(&self, py: Python<'_>, device: &str, stream: u64) -> PyResult<()> {
        if devices::open(py, device)? != self.target {
            return Err(PyValueError::new_err(format!(
                "waiting for a transfer to {} on a stream of {device}: it takes a stream of {}",
                self.target, self.target
            )));
        }
        self.bring_in(py, |part| part.fence(stream))
    }

    /// Calls `callback`, once and on any thread, when more of the bytes may be there; says whether all are already. Never waits
    /// for the device, nor for another thread that does.
    fn notify(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<bool> {
        process::check(py)?;
        let have_landed = py.detach(|| {
            let mut free = self.parts_if_free();
            if free.is_some() {
                self.waiting.for_bytes(callback);
            } else {
                self.waiting.for_turn(callback);
                free = self.parts_if_free();
            }
            free.map(|mut parts| self.poll(&mut parts))
        });
        match have_landed {
            Some(true) => self.waiting.everybody(),
            Some(false) => self.waiting.next_turn(),
            // Whoever has them calls.
            None => {}
        }
        Ok(have_landed.unwrap_or(false))
    }

    /// Where a source that has changed since the start is in the tree.
    fn changed_source(&self, py: Python<'_>) -> PyResult<Option<String>> {
        for source in self.sources.iter() {
            if source.has_changed(py)? {
                return Ok(Some(tree::named(&self.tree.get().path_of(py, source.number))));
            }
        }
        Ok(None)
    }

    /// The tree of results in a tuple of one, once; `None` when it was given already. To be asked after the bytes are there, or
    /// on a stream that waits for them. Where making the tree fails, it can be asked again.
    fn result(&self, py: Python<'_>) -> PyResult<Option<(Py<PyAny>,)>> {
        let Some(landed) = self.results().take() else {
            return Ok(None);
        };
        let made = self.made_of(py, &landed);
        if made.is_err() {
            *self.results() = Some(landed);
        }
        Ok(Some((made?,)))
    }
}

impl Drop for Flight {
    /// In a forked child nothing is given back: the engine's locks may be held for ever there.
    fn drop(&mut self) {
        if !process::may_use_devices() {
            let parts = self.parts.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(std::mem::take(parts));
        }
    }
}

/// An error of the engine, to be raised when the thread is attached again.
struct Failure {
    class: &'static str,
    message: String,
}

impl Failure {
    fn of(error: &Error) -> Self {
        Self {
            class: errors::class_of(error),
            message: error.to_string(),
        }
    }

    fn raised(self, py: Python<'_>) -> PyErr {
        errors::raise(py, self.class, self.message)
    }
}

impl Source {
    /// Leaf number `number`, which is read from `address`, as it is now.
    pub(crate) fn of(number: usize, tensor: &Bound<'_, PyAny>, address: usize) -> PyResult<Self> {
        Ok(Self {
            number,
            version: Self::version(tensor)?,
            tensor: tensor.clone().unbind(),
            storage: exchange::storage_of(tensor)?.unbind(),
            address,
        })
    }

    fn version(tensor: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let py = tensor.py();
        match tensor.getattr(intern!(py, "_version")) {
            Ok(version) => version.extract().map(Some),
            Err(_) if tensor.call_method0(intern!(py, "is_inference"))?.is_truthy()? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it was written since the start, or its memory was freed or replaced by other memory (`storage.resize_`). That
    /// it was given other memory, and what it was read from is as it was, is no change.
    fn has_changed(&self, py: Python<'_>) -> PyResult<bool> {
        let tensor = self.tensor.bind(py);
        if Self::version(tensor)? != self.version {
            return Ok(true);
        }
        if exchange::with_tensor(tensor, |seen| seen.address)? == Some(self.address) {
            return Ok(false);
        }
        let storage = self.storage.bind(py);
        let start: usize = storage.call_method0(intern!(py, "data_ptr"))?.extract()?;
        let bytes: usize = storage.call_method0(intern!(py, "nbytes"))?.extract()?;
        // An empty tensor may begin at the end of its memory, or nowhere.
        Ok(bytes == 0 || !(start..=start + bytes).contains(&self.address))
    }
}
