//! Where tensors are: the host, or an accelerator with its engine.

use std::fmt;

use pinlane_driver::{
    DeviceId, Driver, Properties, fork,
    sync::{Arc, Duration},
};

use crate::{
    Error, KnownProfile, PinnedUsage, Profile, ProfileOrigin, Result,
    memory::{list, pool::PinnedPool, recycled},
    profile::SLOT_GRANULE,
    registry, trace,
    transfer::{engine::Engine, running::RunningEngine},
};

/// The host, or one accelerator with its engine. Cheap to clone; clones are the same device.
///
/// The engine's threads end when the last clone, tensor and transfer of the device are gone.
///
/// ```
/// use pinlane::{Device, Tensor, Tree};
///
/// let device = Device::open("sim:0")?;
/// let tensor = Tensor::from_slice(&[1.0f32, 2.0, 3.0], &[3])?;
/// let there = tensor.to(&device)?;
/// let back = there.to(&Device::host())?;
/// assert_eq!(back.as_slice::<f32>()?, &[1.0, 2.0, 3.0]);
/// # Ok::<(), pinlane::Error>(())
/// ```
#[derive(Clone)]
pub struct Device(Kind);

#[derive(Clone)]
enum Kind {
    Host,
    Accelerator(Arc<Accelerator>),
}

#[derive(Debug)]
pub(crate) struct Accelerator {
    pub(crate) running: RunningEngine,
    /// Where the engine's profile comes from.
    pub(crate) origin: ProfileOrigin,
}

/// How an accelerator's engine is set up. `Default` follows the hardware.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceOptions {
    /// The most host memory that is ever pinned for this device, in bytes; [`PINNED_BUDGET`](Self::PINNED_BUDGET) if not said.
    pub pinned_budget: Option<usize>,
    /// How many lanes carry large transfers, in each direction.
    pub lanes: Option<usize>,
    /// How many slots there are for each lane.
    pub slots_per_lane: Option<usize>,
    /// Bytes of a slot, the longest chunk.
    pub slot_bytes: Option<usize>,
    /// What the machine can do, where the hardware alone does not tell: [`Profile::known`] gives what was measured and
    /// stored.
    pub profile: Option<Profile>,
}

/// What a device's engine holds at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceStats {
    /// Pinned host memory.
    pub pinned: PinnedUsage,
    /// Bytes of device memory that nothing uses and that the driver keeps for what is allocated next: [`Device::trim`] gives
    /// them back.
    pub idle_bytes: u64,
    /// Bytes of slots and transfers given up on because a lost device may still use them.
    pub leaked_bytes: u64,
}

impl DeviceOptions {
    /// The most host memory that is pinned for a device of which nobody said how much, in bytes.
    pub const PINNED_BUDGET: usize = 256 << 20;
}

impl Device {
    /// The host: ordinary memory.
    #[must_use]
    pub fn host() -> Self {
        Self(Kind::Host)
    }

    /// The first GPU; where there is none, the simulated device.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open). A GPU that there is and that can't be used, as in a process forked from one that uses it, is
    /// an error: nothing stands in for it.
    pub fn preferred() -> Result<Self> {
        registry::preferred()
    }

    /// The device of that name: `host` (or `cpu`), `cuda:0`, `sim:0`. Opening one twice gives the same device.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDevice`] with what there is.
    pub fn open(name: &str) -> Result<Self> {
        match name {
            "host" | "cpu" => Ok(Self::host()),
            _ => registry::open(name),
        }
    }

    /// A device of its own over `driver`, with an engine set up as `options` say.
    ///
    /// # Errors
    ///
    /// [`Error::Options`] where the options contradict each other, such as a pinned budget below one slot.
    pub fn with_options(driver: Arc<dyn Driver>, options: &DeviceOptions) -> Result<Self> {
        let origin = match options.profile {
            Some(_) => ProfileOrigin::Given,
            None => ProfileOrigin::Assumed,
        };
        Self::start(driver, options, origin)
    }

    /// A device over `driver` with the best profile that is known of it.
    pub(crate) fn with_known_profile(driver: Arc<dyn Driver>) -> Result<Self> {
        let KnownProfile { profile, origin } = Profile::known(driver.properties());
        let options = DeviceOptions {
            profile: Some(profile),
            ..DeviceOptions::default()
        };
        Self::start(driver, &options, origin)
    }

    fn start(driver: Arc<dyn Driver>, options: &DeviceOptions, origin: ProfileOrigin) -> Result<Self> {
        trace::environment::watch();
        let settings = options.settle(&driver)?;
        trace::device::note_opened(&driver);
        let pool = PinnedPool::new(Arc::clone(&driver), settings.budget);
        let engine = Engine::new(driver, settings.profile, pool, settings.slots);
        let running = RunningEngine::new(engine);
        Ok(Self(Kind::Accelerator(Arc::new(Accelerator { running, origin }))))
    }

    /// What each GPU of this machine is, in the order of their names; none is opened.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDevice`] where there is none that can be used, with what is missing.
    pub fn gpus() -> Result<Vec<Properties>> {
        registry::gpus()
    }

    /// Whether this is the host.
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(self.0, Kind::Host)
    }

    /// The device's name within the process; `None` for the host.
    #[must_use]
    pub fn id(&self) -> Option<DeviceId> {
        self.driver().map(|driver| driver.properties().id)
    }

    /// The driver below, for work that pinlane does not do, such as streams of the caller's own; `None` for the host.
    #[must_use]
    pub fn driver(&self) -> Option<&Arc<dyn Driver>> {
        Some(&self.accelerator()?.running.engine().driver)
    }

    /// What the planner believes of this device; `None` for the host.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        Some(&self.accelerator()?.running.engine().profile)
    }

    /// Where that comes from; `None` for the host.
    #[must_use]
    pub fn profile_origin(&self) -> Option<&ProfileOrigin> {
        Some(&self.accelerator()?.origin)
    }

    /// What the engine holds; `None` for the host, and in a process forked from the one that uses the device.
    #[must_use]
    pub fn stats(&self) -> Option<DeviceStats> {
        if fork::is_child() {
            return None;
        }
        let engine = self.accelerator()?.running.engine();
        Some(DeviceStats {
            pinned: engine.pool.usage(),
            idle_bytes: engine.driver.idle_bytes(),
            leaked_bytes: engine.leaks.bytes() + engine.slots.lost_bytes() as u64,
        })
    }

    /// Changes how much host memory may be pinned for this device, in bytes. What is pinned beyond it and not in use goes
    /// back to the system; what is in use stays, and nothing more is pinned before enough has been dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Options`] for a budget below the slots that the device was opened with, and [`Error::Unsupported`] for
    /// the host.
    pub fn set_pinned_budget(&self, bytes: usize) -> Result<()> {
        let engine = self
            .require_accelerator("setting a pinned budget")?
            .running
            .engine();
        let slots = engine.slots.wanted() * engine.slots.slot_bytes();
        if bytes < slots {
            return Err(Error::Options {
                reason: format!(
                    "a pinned budget of {bytes} bytes is below the {slots} bytes of slots that {self} was opened with: \
                     set a larger one, or open the device with smaller or fewer slots"
                ),
            });
        }
        engine.pool.set_budget(bytes);
        Ok(())
    }

    /// Gives memory that nothing uses back to the system, and returns the bytes given back: the pinned memory and the device
    /// memory of an accelerator, or what the host keeps of pageable results and of what transfers note. A process forked
    /// from one that uses accelerators has none of it to give.
    pub fn trim(&self) -> usize {
        if fork::is_child() {
            return 0;
        }
        let Some(accelerator) = self.accelerator() else {
            return recycled::trim() + list::trim();
        };
        let engine = accelerator.running.engine();
        let idle = engine.driver.trim().unwrap_or_else(|error| {
            tracing::warn!(%error, "idle memory of the device stays with it");
            0
        });
        engine.pool.trim() + usize::try_from(idle).unwrap_or(usize::MAX)
    }

    /// Waits until no transfer whose handle was dropped is on its way on this device, for so long at most, so that what
    /// such transfers keep is let go; says whether there was one. For who finds no room, before trying again.
    pub fn drain(&self, patience: Duration) -> bool {
        let draining = self.require_accelerator("draining");
        draining.is_ok_and(|accelerator| accelerator.running.engine().reactor.drain(patience))
    }

    /// The accelerator behind it, if it is one.
    pub(crate) fn accelerator(&self) -> Option<&Arc<Accelerator>> {
        match &self.0 {
            Kind::Host => None,
            Kind::Accelerator(accelerator) => Some(accelerator),
        }
    }

    /// The accelerator behind it, for what only an accelerator can do. Everything that is planned, pinned or moved comes by
    /// here, and is refused in a forked child: the engine's threads are not there, and its locks may be held for ever.
    pub(crate) fn require_accelerator(&self, doing: &'static str) -> Result<&Arc<Accelerator>> {
        let accelerator = self.accelerator().ok_or_else(|| Error::Unsupported {
            doing,
            reason: "the host does that for no one; name the accelerator".to_owned(),
        })?;
        let id = accelerator.running.engine().driver.properties().id;
        fork::refuse_in_child(id).map_err(|source| Error::driver(doing, source))?;
        Ok(accelerator)
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Host, Kind::Host) => true,
            (Kind::Accelerator(a), Kind::Accelerator(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    /// Its name: an engine's insides would bury what else is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id() {
            Some(id) => id.fmt(f),
            None => f.write_str("host"),
        }
    }
}

/// Options that are whole and fit together.
struct Settings {
    budget: usize,
    slots: usize,
    profile: Profile,
}

impl DeviceOptions {
    fn settle(&self, driver: &Arc<dyn Driver>) -> Result<Settings> {
        let refuse = |reason: String| Err(Error::Options { reason });
        let mut profile = self
            .profile
            .clone()
            .unwrap_or_else(|| Profile::assumed(driver.properties()));
        let budget = self.pinned_budget.unwrap_or(Self::PINNED_BUDGET);
        profile.lanes = self.lanes.unwrap_or(profile.lanes);
        profile.lanes_to_host = self.lanes.unwrap_or(profile.lanes_to_host);
        profile.lanes_from_files = self.lanes.unwrap_or(profile.lanes_from_files);
        profile.slots_per_lane = self.slots_per_lane.unwrap_or(profile.slots_per_lane);
        // A size that nobody asked for gives way to the budget; one that was asked for does not.
        let largest = (budget / 2).max(SLOT_GRANULE) / SLOT_GRANULE * SLOT_GRANULE;
        profile.slot_bytes = self.slot_bytes.unwrap_or(profile.slot_bytes.min(largest));
        if profile.lanes == 0 || profile.slots_per_lane == 0 {
            return refuse("lanes and slots for each lane must be at least 1".to_owned());
        }
        if profile.slot_bytes < SLOT_GRANULE || !profile.slot_bytes.is_multiple_of(SLOT_GRANULE) {
            return refuse(format!(
                "a slot of {} bytes: must be a multiple of {SLOT_GRANULE}, and not 0",
                profile.slot_bytes
            ));
        }
        if budget < profile.slot_bytes {
            return refuse(format!(
                "a pinned budget of {budget} bytes is below one slot of {} bytes: raise the budget or lower slot_bytes",
                profile.slot_bytes
            ));
        }
        // At least half of the budget is left to pinned tensors and results, unless that leaves no slot.
        let affordable = (budget / 2 / profile.slot_bytes).max(1);
        let slots = profile
            .lanes
            .saturating_add(profile.lanes_to_host)
            .saturating_mul(profile.slots_per_lane)
            .min(affordable);
        profile.lanes = profile.lanes.min(slots);
        profile.lanes_to_host = profile.lanes_to_host.min(slots);
        profile.lanes_from_files = profile.lanes_from_files.min(slots);
        Ok(Settings {
            budget,
            slots,
            profile,
        })
    }
}
