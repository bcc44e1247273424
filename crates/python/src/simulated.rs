//! The simulated devices: whose memory a CPU tensor lies in, and devices made to order for tests.
//!
//! A simulated device's memory is host memory, so what moves there is a CPU tensor, or a numpy array, over it. Which these
//! are is known by their addresses: every allocation made for Python is listed here as long as it lives.

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pinlane::{
    Device, DeviceOptions, Error,
    driver::{
        DeviceMemory, Driver, ErrorKind, Stream, Timing,
        sim::{DeviceConfig, Fault, FaultPlan, Machine, SimDriver, Stall, Step},
    },
};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyTuple};

use crate::{devices, errors, process};

/// What Python has of simulated devices' memory: by first address, the number of bytes and the device.
static LIVE: Mutex<BTreeMap<usize, (usize, Device)>> = Mutex::new(BTreeMap::new());

/// How many there are: none, where there is a GPU, and then nobody looks further.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn live() -> std::sync::MutexGuard<'static, BTreeMap<usize, (usize, Device)>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The simulated device whose memory holds an address.
pub(crate) fn device_of(address: usize) -> Option<Device> {
    // Whoever has memory of a simulated device to ask about has seen it counted.
    if COUNT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let live = live();
    let (first, (bytes, device)) = live.range(..=address).next_back()?;
    (address - first < *bytes).then(|| device.clone())
}

/// An allocation on a simulated device.
pub(crate) struct SimulatedMemory {
    /// Taken on drop.
    memory: Option<DeviceMemory>,
    ptr: NonNull<u8>,
}

// SAFETY: the pointer is an address; who reads and writes there is up to Python, as with any tensor.
unsafe impl Send for SimulatedMemory {}
// SAFETY: as above.
unsafe impl Sync for SimulatedMemory {}

impl SimulatedMemory {
    pub(crate) fn new(device: &Device, bytes: usize) -> Result<Arc<Self>, Error> {
        let driver = device.driver().ok_or_else(|| Error::Unsupported {
            doing: "making room on a simulated device",
            reason: "the host is none".to_owned(),
        })?;
        let memory = DeviceMemory::new(driver, bytes.max(1)).map_err(|source| Error::Driver {
            doing: "making room for tensors on the device".to_owned(),
            source,
        })?;
        let address = memory.ptr().0 as usize;
        let ptr = NonNull::new(std::ptr::with_exposed_provenance_mut(address))
            .expect("the simulator allocates no block at address 0");
        live().insert(address, (bytes.max(1), device.clone()));
        COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Self {
            memory: Some(memory),
            ptr,
        }))
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }
}

impl Drop for SimulatedMemory {
    fn drop(&mut self) {
        if process::may_use_devices() {
            live().remove(&self.ptr.addr().get());
            COUNT.fetch_sub(1, Ordering::Relaxed);
        } else {
            // A forked child: the device's locks may be held for ever, and its memory is the parent's.
            std::mem::forget(self.memory.take());
        }
    }
}

/// What is asked of a simulated device: `pinlane.testing.simulate` says what each means.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Wishes {
    #[pyo3(default)]
    memory_bytes: Option<u64>,
    #[pyo3(default)]
    bytes_per_second: Option<f64>,
    copy_latency: f64,
    #[pyo3(default)]
    pinned_budget: Option<usize>,
    #[pyo3(default)]
    lanes: Option<usize>,
    #[pyo3(default)]
    slot_bytes: Option<usize>,
}

/// Opens a simulated device of its own under `name`, with a link and a memory as they are said to be.
#[pyfunction]
pub(crate) fn simulate(py: Python<'_>, name: &str, wishes: Wishes) -> PyResult<()> {
    process::check(py)?;
    let default = DeviceConfig::default();
    let config = DeviceConfig {
        memory_bytes: wishes.memory_bytes.unwrap_or(default.memory_bytes),
        bytes_per_second: wishes.bytes_per_second,
        copy_latency: seconds(wishes.copy_latency)?,
        ..default
    };
    let options = DeviceOptions {
        pinned_budget: wishes.pinned_budget,
        lanes: wishes.lanes,
        slot_bytes: wishes.slot_bytes,
        ..DeviceOptions::default()
    };
    let open = || {
        let driver = Machine::new(config).sim(0).map_err(|source| Error::Driver {
            doing: "making a simulated device".to_owned(),
            source,
        })?;
        Ok((Device::with_options(Arc::clone(&driver) as _, &options)?, driver))
    };
    let (device, driver) = open().map_err(|error| errors::from_engine(py, &error))?;
    devices::add(name, device)?;
    made().insert(name.to_owned(), driver);
    Ok(())
}

/// The devices that `simulate` has made.
static MADE: Mutex<BTreeMap<String, Arc<SimDriver>>> = Mutex::new(BTreeMap::new());

fn made() -> std::sync::MutexGuard<'static, BTreeMap<String, Arc<SimDriver>>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device that `simulate` has made under a name.
fn made_as(name: &str) -> PyResult<Arc<SimDriver>> {
    let driver = made().get(name).cloned();
    driver.ok_or_else(|| PyValueError::new_err(format!("{name:?} is no device that simulate made")))
}

/// Loses a device that `simulate` has made: what is on its way is abandoned, and every call fails from now on.
#[pyfunction]
pub(crate) fn lose(py: Python<'_>, name: &str) -> PyResult<()> {
    process::check(py)?;
    let driver = made_as(name)?;
    let never = |plan: FaultPlan, step| plan.repeated(step, 0, u64::MAX, Fault::DeviceLost);
    driver.set_faults(Step::ALL.into_iter().fold(FaultPlan::new(), never));
    // A device is lost at the next call: this one, whose error says so.
    match py.detach(|| driver.memory_info()) {
        Err(error) if error.kind() == ErrorKind::DeviceLost => Ok(()),
        told => told
            .map(drop)
            .map_err(|source| driver_error(py, "losing a device", source)),
    }
}

/// A stream of a simulated device, for tests of order: what torch's streams are on a GPU.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct SimulatedStream {
    device: String,
    stream: Stream,
}

#[pymethods]
impl SimulatedStream {
    #[new]
    fn new(py: Python<'_>, name: String) -> PyResult<Self> {
        let device = devices::open(py, &name)?;
        let driver = device
            .driver()
            .filter(|driver| driver.properties().simulated)
            .ok_or_else(|| PyValueError::new_err(format!("{device} is no simulated device")))?;
        let stream = Stream::new(driver).map_err(|source| driver_error(py, "making a stream", source))?;
        Ok(Self { device: name, stream })
    }

    /// The name of the device.
    #[getter]
    fn device(&self) -> &str {
        &self.device
    }

    /// The driver's handle.
    #[getter]
    fn handle(&self) -> u64 {
        self.stream.raw().as_raw()
    }

    /// Keeps the stream busy for so many seconds.
    fn busy(&self, py: Python<'_>, duration: f64) -> PyResult<()> {
        let enqueued = self.stream.driver().busy(seconds(duration)?, self.stream.raw());
        enqueued.map_err(|source| driver_error(py, "keeping a stream busy", source))
    }

    /// Keeps the stream from starting anything, until what this gives is ended.
    fn stall(&self, py: Python<'_>) -> PyResult<Stalled> {
        process::check(py)?;
        let stall = made_as(&self.device)?.stall_stream(self.stream.raw());
        let stall = stall.map_err(|source| driver_error(py, "stalling a stream", source))?;
        Ok(Stalled(Mutex::new(Some(stall))))
    }

    /// Whether everything enqueued so far is done.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        let event = self.stream.record(Timing::Disabled);
        event
            .and_then(|event| event.query())
            .map_err(|source| driver_error(py, "asking whether a stream is done", source))
    }

    /// Blocks until everything enqueued so far is done.
    fn synchronize(&self, py: Python<'_>) -> PyResult<()> {
        let done = py.detach(|| self.stream.synchronize());
        done.map_err(|source| driver_error(py, "waiting for a stream", source))
    }
}

/// Keeps a stream from starting anything until it is ended, or dropped.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct Stalled(Mutex<Option<Stall>>);

#[pymethods]
impl Stalled {
    /// Lets the stream go on. Ending it again does nothing.
    fn end(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {
        self.end();
    }
}

/// The exception for an error of a driver.
pub(crate) fn driver_error(py: Python<'_>, doing: &str, source: pinlane::driver::Error) -> PyErr {
    let doing = doing.to_owned();
    errors::from_engine(py, &Error::Driver { doing, source })
}

fn seconds(number: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(number)
        .map_err(|_| PyValueError::new_err(format!("{number} is no number of seconds to wait")))
}
