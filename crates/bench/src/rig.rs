//! What a benchmark runs on: the device, bare and with its engine, the plain way's caches, and the bytes to move.

use std::{
    cell::{Cell as Place, OnceCell, RefCell},
    fmt,
};

use pinlane::{Device, DeviceOptions, KnownProfile, Profile};
use pinlane_driver::{Driver, Properties, Stream, sync::Arc};
use pinlane_guide::{device::Accelerator, plain::Plain};

use crate::{
    arena::{Arena, Places},
    cell::{Cell, Direction, Memory},
    error::{Error, Result},
    landed::Landed,
    readback::Readback,
    ways::Sources,
};

/// Pinned memory beside the sources and results of a cell: slots, scratch memory, the buffers of the link.
const SPARE: usize = 1 << 30;
/// Cells of more bytes than this start with empty caches of the plain way, which never give pinned memory back.
const CACHED: usize = 64 << 20;

/// A device and what is moved to and from it.
pub struct Rig {
    driver: Arc<dyn Driver>,
    profile: KnownProfile,
    /// The engine as anyone gets it.
    device: Device,
    /// An engine whose budget has room for the largest cell's results in pinned memory.
    roomy: Device,
    plain: RefCell<Arc<Plain>>,
    readback: RefCell<Readback>,
    pageable: Arena,
    pinned: OnceCell<Arena>,
    arena_bytes: usize,
    cells: Place<usize>,
}

impl Rig {
    /// Sets everything up for work of the size of any of `cells`.
    ///
    /// # Errors
    ///
    /// What the engine and the driver say, the lack of memory above all.
    pub fn new(accelerator: &Accelerator, cells: &[Cell]) -> Result<Self> {
        let driver = Arc::clone(&accelerator.driver);
        let needed = cells.iter().map(|cell| Places::needed(cell.bytes, cell.count));
        let arena_bytes = needed.max().unwrap_or(0);
        let profile = Profile::known(driver.properties());
        let usual = usual_options(&profile);
        let device = Device::with_options(Arc::clone(&driver), &usual)?;
        let roomy = DeviceOptions {
            // Once for the sources, once for the results, once for what the results are set beside.
            pinned_budget: Some(3 * arena_bytes + SPARE),
            ..usual
        };
        let roomy = Device::with_options(Arc::clone(&driver), &roomy)?;
        let readback = Readback::new(&roomy, Stream::new(&driver)?)?;
        Ok(Self {
            plain: RefCell::new(Arc::new(Plain::new(&driver)?)),
            readback: RefCell::new(readback),
            pageable: Arena::new(arena_bytes, None)?,
            pinned: OnceCell::new(),
            arena_bytes,
            cells: Place::new(0),
            driver,
            profile,
            device,
            roomy,
        })
    }

    /// What the device is.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        self.driver.properties()
    }

    /// The device without its engine.
    #[must_use]
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// What the engines believe of the machine.
    #[must_use]
    pub fn profile(&self) -> &KnownProfile {
        &self.profile
    }

    /// The options of the engine that anyone gets.
    #[must_use]
    pub fn options(&self) -> DeviceOptions {
        usual_options(&self.profile)
    }

    /// The device with the engine that anyone gets, its budget included.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The device with an engine whose pinned budget has room for the largest cell.
    #[must_use]
    pub fn roomy(&self) -> &Device {
        &self.roomy
    }

    /// The plain way, for a cell of this many bytes.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn plain(&self, bytes: usize) -> Result<Arc<Plain>> {
        if bytes > CACHED {
            let fresh = Arc::new(Plain::new(&self.driver)?);
            self.plain.replace(fresh);
        }
        Ok(Arc::clone(&self.plain.borrow()))
    }

    /// The tensors of a cell, on `device` where they are to come from there.
    ///
    /// # Errors
    ///
    /// What the engine and the driver say.
    pub fn sources(&self, cell: Cell, device: &Device) -> Result<Sources<'_>> {
        let number = self.cells.get();
        self.cells.set(number + 1);
        let places = Places::new(number, cell.bytes);
        let mut expected = Vec::with_capacity(cell.count);
        let mut tensors = Vec::with_capacity(cell.count);
        for index in 0..cell.count {
            // What a device holds came from pageable memory, wherever it goes.
            let arena = if cell.direction == Direction::H2d && cell.memory.is_pinned(index) {
                self.pinned_arena()?
            } else {
                &self.pageable
            };
            expected.push(arena.bytes(places, index));
            tensors.push(arena.tensor(places, index)?);
        }
        let plain = self.plain(cell.total())?;
        Sources::new(cell, tensors, expected, device, plain)
    }

    /// Refuses what landed by `way` with other bytes than those of its source.
    ///
    /// # Errors
    ///
    /// [`Error::WrongBytes`], and what the driver says.
    pub fn check(&self, sources: &Sources<'_>, way: &str, landed: Landed) -> Result<()> {
        let cell = sources.cell;
        match landed.first_wrong(sources, &mut self.readback.borrow_mut())? {
            None => Ok(()),
            Some(tensor) => Err(Error::WrongBytes {
                cell: cell.to_string(),
                way: way.to_owned(),
                tensor,
                count: cell.count,
            }),
        }
    }

    fn pinned_arena(&self) -> Result<&Arena> {
        if let Some(arena) = self.pinned.get() {
            return Ok(arena);
        }
        let arena = Arena::new(self.arena_bytes, Some(&self.roomy))?;
        Ok(self.pinned.get_or_init(|| arena))
    }

    /// Whether a cell's results need an engine with a larger budget than anyone gets.
    pub(crate) fn device_for(&self, cell: Cell) -> &Device {
        match (cell.direction, cell.memory) {
            (Direction::D2h, Memory::Pinned | Memory::Mixed) => &self.roomy,
            _ => &self.device,
        }
    }
}

/// What a device is opened with by its name.
fn usual_options(profile: &KnownProfile) -> DeviceOptions {
    DeviceOptions {
        profile: Some(profile.profile.clone()),
        ..DeviceOptions::default()
    }
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig")
            .field("device", &self.device)
            .field("arena_bytes", &self.arena_bytes)
            .finish_non_exhaustive()
    }
}
