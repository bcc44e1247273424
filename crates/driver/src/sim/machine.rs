//! The machine: its threads, from the first to the last handle.

use std::mem;

use super::{
    MachineConfig, SimDriver,
    engine::Engine,
    state::{Core, device_id, error},
};
use crate::{
    Driver, ErrorKind, Link, Properties, Result, fork,
    sync::{self, Arc, Mutex, thread},
};

/// A host with its simulated devices. Cheap to clone; all clones and all its drivers are handles of one machine.
///
/// Dropping the last handle lets work that is still enqueued run to its end, then stops the engines' threads.
///
/// ```
/// use pinlane_driver::{DeviceMemory, MemCopy, PinnedRange, Stream, sim::{DeviceConfig, Machine}};
/// use std::ptr::NonNull;
///
/// let device = Machine::new(DeviceConfig::default()).device(0)?;
/// let memory = DeviceMemory::new(&device, 5)?;
/// let stream = Stream::new(&device)?;
/// let mut there = *b"hello";
/// let mut back = [0_u8; 5];
/// // SAFETY: both arrays outlive the pin and the copies, which are done when the stream is synchronised.
/// unsafe {
///     let _pinned = PinnedRange::new(&device, NonNull::from(&mut there).cast(), 5)?;
///     stream.copy(MemCopy::to_device(memory.ptr(), there.as_ptr(), 5))?;
///     stream.copy(MemCopy::to_host(back.as_mut_ptr(), memory.ptr(), 5))?;
///     stream.synchronize()?;
/// }
/// assert_eq!(&back, b"hello");
/// # Ok::<(), pinlane_driver::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Machine(pub(super) Arc<Owner>);

impl Machine {
    /// Makes a machine and starts its engines.
    ///
    /// # Panics
    ///
    /// When the operating system can't start a thread.
    #[must_use]
    pub fn new(config: impl Into<MachineConfig>) -> Self {
        fork::watch();
        let config = config.into();
        let core = Arc::new(Core::new(&config));
        let mut threads = Vec::new();
        for (device, device_config) in config.devices.iter().enumerate() {
            for number in 0..=device_config.copy_engines.count() as usize {
                let engine = Engine::new(device, number, device_config);
                let core = Arc::clone(&core);
                let builder = thread::Builder::new().name(format!("sim{device}-engine{number}"));
                let started = builder.spawn(move || engine.run(&core));
                threads.push(started.expect("the operating system starts the simulator's threads"));
            }
        }
        let properties = config
            .devices
            .iter()
            .enumerate()
            .map(|(ordinal, device)| Properties {
                id: device_id(ordinal),
                // Whoever holds a driver of the machine keeps its core, so no other gets this address meanwhile.
                group: Arc::as_ptr(&core) as u64,
                name: "simulated device".to_owned(),
                memory_bytes: device.memory_bytes,
                copy_engines: device.copy_engines.count(),
                link: Link::new("simulated", device.rate()),
                numa_node: None,
                pci_address: None,
                library: None,
                simulated: true,
            });
        let properties = properties.collect();
        Self(Arc::new(Owner {
            core,
            config,
            properties,
            threads: Mutex::new(threads),
        }))
    }

    /// How many devices the machine has.
    #[must_use]
    pub fn device_count(&self) -> usize {
        self.0.config.devices.len()
    }

    /// The device with this ordinal.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchDevice`] where the machine has fewer.
    pub fn device(&self, ordinal: u32) -> Result<Arc<dyn Driver>> {
        Ok(self.sim(ordinal)?)
    }

    /// The device with this ordinal, as a type that shows more than a driver does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchDevice`] where the machine has fewer.
    pub fn sim(&self, ordinal: u32) -> Result<Arc<SimDriver>> {
        let ordinal = ordinal as usize;
        let count = self.device_count();
        if ordinal >= count {
            let message =
                format!("there is no such device: the simulated machine has {count}, numbered from 0");
            return Err(error(ordinal, ErrorKind::NoSuchDevice, message));
        }
        Ok(Arc::new(SimDriver::new(self.clone(), ordinal)))
    }
}

/// What all handles of a machine share. The engines' threads hold only the [`Core`], so the last handle is never
/// dropped on one of them.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) core: Arc<Core>,
    pub(super) config: MachineConfig,
    pub(super) properties: Vec<Properties>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let threads = mem::take(sync::get_mut(&mut self.threads));
        if fork::is_child() {
            // The threads are the parent's; not even their handles may be dropped here.
            return mem::forget(threads);
        }
        let ends: Vec<_> = self.core.with(|state| {
            let streams = state.streams.keys();
            streams
                .into_iter()
                .filter_map(|stream| state.end_of(stream))
                .collect()
        });
        for end in ends {
            self.core.wait_for(end);
        }
        self.core.with(|state| {
            state.shutdown = true;
            let engines = state.devices.iter().flat_map(|device| &device.engines);
            let wakes: Vec<_> = engines.map(|engine| Arc::clone(&engine.wake)).collect();
            state.wakes.extend(wakes);
        });
        for thread in threads {
            // An engine's panic was printed by the thread itself; there is nothing left to do about it here.
            let _panicked = thread.join();
        }
    }
}
