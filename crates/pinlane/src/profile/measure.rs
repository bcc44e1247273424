//! Measuring a profile: what the engine itself does on this machine, in a quarter of a minute.
//!
//! Everything is measured through engines of its own over the device's driver, each with the pinned budget of the device
//! that was given: what is found is what transfers will see, the given device's budget is not touched, and all that was
//! taken is given back when this returns, errors included. Times are medians of several runs of what is warm, on the processor of several that served best; two ways
//! that are compared take turns.
//!
//! [`clock`] times, [`rates`] finds rates, [`costs`] what is paid for whatever the bytes, [`sizes`] tries lanes, slots and the sizes at which ways change,
//! [`to_host`] what is left of that on the way back. [`Profile::quantities`] says which values nothing here measures.

mod clock;
mod costs;
mod rates;
mod sizes;
mod to_host;

use pinlane_driver::{Driver, Properties, sync::Arc};
use serde::Serialize;

use super::{Profile, document::Document};
use crate::{Device, DeviceOptions, Result};

/// What was measured on a device.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Measurement {
    /// The device. What a simulated one gives says nothing of any hardware, and is never stored.
    pub properties: Properties,
    /// The profile that it is better than.
    pub assumed: Profile,
    /// The profile.
    pub profile: Profile,
    /// What the profile was chosen by.
    pub figures: Figures,
}

/// What a measured profile was chosen by.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Figures {
    /// Pinned memory to the device, bytes per second.
    pub link_to_device_bytes_per_second: f64,
    /// The device to pinned memory, bytes per second.
    pub link_to_host_bytes_per_second: f64,
    /// Copies within host memory, by the number of threads.
    pub memcpy: Vec<MemcpyRate>,
    /// Large pageable transfers to the device, by lanes and slots.
    pub trials: Vec<Trial>,
    /// The same to the host, by lanes of that direction: into fresh memory and then into memory that exists.
    pub trials_to_host: Vec<Trial>,
}

/// How fast so many threads copy together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemcpyRate {
    /// The threads.
    pub threads: usize,
    /// Of all together.
    pub bytes_per_second: f64,
}

impl MemcpyRate {
    /// What so many threads reach together.
    #[must_use]
    pub fn new(threads: usize, bytes_per_second: f64) -> Self {
        Self {
            threads,
            bytes_per_second,
        }
    }
}

/// How fast an engine of this make is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Trial {
    /// Its lanes of the direction.
    pub lanes: usize,
    /// Bytes of a slot.
    pub slot_bytes: usize,
    /// Of large pageable tensors.
    pub bytes_per_second: f64,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Steps that are done.
    pub done: usize,
    /// All steps.
    pub steps: usize,
    /// What is being measured now.
    pub doing: &'static str,
}

impl Measurement {
    /// As it is stored: a JSON document.
    ///
    /// # Errors
    ///
    /// None for what [`Profile::measure`] gives.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&Document::of(self))
    }
}

impl Profile {
    /// Measures what `device` and its host can do, in a quarter of a minute, and tells `progress` before each step. Nothing else
    /// should run meanwhile: what the host keeps of pageable results is given back, too. Takes up to 256 MiB of the device's memory, twice that of the host's, and pins up to twice the
    /// device's budget for a moment.
    ///
    /// ```
    /// use pinlane::{Device, Profile};
    ///
    /// let device = Device::open("sim:0")?;
    /// let measured = Profile::measure(&device, &mut |progress| println!("{}", progress.doing))?;
    /// assert!(measured.properties.simulated && measured.profile.lanes > 0);
    /// # Ok::<(), pinlane::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) for the host; what an engine says, such as that the device has no
    /// memory left.
    pub fn measure(device: &Device, progress: &mut dyn FnMut(Progress)) -> Result<Measurement> {
        let engine = device
            .require_accelerator("measuring a profile")?
            .running
            .engine();
        let bench = Bench::new(&engine.driver, engine.pool.usage().budget)?;
        let properties = engine.driver.properties().clone();
        let assumed = Self::assumed(&properties);
        let mut profile = assumed.clone();
        let mut figures = Figures::default();
        for (done, (doing, step)) in STEPS.into_iter().enumerate() {
            progress(Progress {
                done,
                steps: STEPS.len(),
                doing,
            });
            step(&bench, &mut profile, &mut figures)?;
        }
        Ok(Measurement {
            properties,
            assumed,
            profile,
            figures,
        })
    }
}

/// Measures something, and writes it down. Later steps build on what earlier ones found.
type Step = fn(&Bench, &mut Profile, &mut Figures) -> Result<()>;

const STEPS: [(&str, Step); 16] = [
    ("the link to the device and back", rates::link),
    ("one copy by the short way and by the long way", costs::ways),
    ("copies within host memory", rates::memcpy),
    ("copies within the caches", costs::cached),
    ("the cost of one more tensor", costs::tensors_in_trees),
    ("the cost of one more copy", costs::calls),
    ("what a kernel costs", costs::gathering),
    ("the driver's own way with pageable memory", rates::plain),
    ("the number of lanes", sizes::lanes),
    ("the size of a slot", sizes::slots),
    ("the number of lanes to the host", to_host::lanes),
    ("what a kernel gathers", to_host::gathered),
    ("what is best left to the driver", sizes::plain),
    ("the driver's own way with a small tensor", costs::small_plain),
    ("what the caller's thread does best", sizes::inline),
    ("what lanes cost", costs::ramps),
];

/// What is measured on, and with how much.
struct Bench {
    driver: Arc<dyn Driver>,
    budget: usize,
    /// Bytes of a transfer that is long enough to show a rate.
    large: usize,
    /// How often a way is timed.
    runs: usize,
}

impl Bench {
    fn new(driver: &Arc<dyn Driver>, budget: usize) -> Result<Self> {
        const MIB: usize = 1 << 20;
        let free = driver
            .memory_info()
            .map_err(|source| crate::Error::driver("asking for the device's free memory", source))?
            .free;
        // A simulated device shows that this works, not how fast anything is.
        let (most, runs) = if driver.properties().simulated {
            (2 * MIB, 2)
        } else {
            (256 * MIB, 7)
        };
        let affordable = usize::try_from(free / 4).unwrap_or(usize::MAX) / MIB * MIB;
        Ok(Self {
            driver: Arc::clone(driver),
            budget,
            large: affordable.clamp(MIB, most),
            runs,
        })
    }

    /// An engine with this profile.
    fn device(&self, profile: &Profile) -> Result<Device> {
        let options = DeviceOptions {
            pinned_budget: Some(self.budget),
            profile: Some(profile.clone()),
            ..DeviceOptions::default()
        };
        Device::with_options(Arc::clone(&self.driver), &options)
    }
}

#[cfg(test)]
mod tests {
    use pinlane_driver::sim::{Alive, DeviceConfig, Machine};

    use super::*;
    use crate::Error;

    #[test]
    fn measuring_gives_a_profile_to_run_with_and_leaves_nothing_behind() {
        let config = DeviceConfig {
            bytes_per_second: Some(4e9),
            ..DeviceConfig::default()
        };
        let machine = Machine::new(config);
        let sim = machine.sim(0).unwrap();
        let device = Device::with_options(machine.device(0).unwrap(), &DeviceOptions::default()).unwrap();
        let mut told = Vec::new();
        let measured = Profile::measure(&device, &mut |progress| told.push(progress.done)).unwrap();
        assert_eq!(told, (0..STEPS.len()).collect::<Vec<_>>());
        assert!(measured.properties.simulated);
        assert_eq!(measured.profile.defect(), None, "{measured:?}");
        let profile = &measured.profile;
        for cost in [
            profile.latency,
            profile.short_copy,
            profile.tensor_to_device,
            profile.tensor_to_host,
        ] {
            assert!(cost.as_nanos() > 0, "{profile:?}");
        }
        for rate in [
            profile.small_plain_bytes_per_second,
            profile.staged_bytes_per_second,
            profile.gathered_bytes_per_second,
        ] {
            assert!(rate <= profile.link_bytes_per_second, "{profile:?}");
        }
        let figures = &measured.figures;
        assert!(figures.link_to_device_bytes_per_second > 0.0 && figures.link_to_host_bytes_per_second > 0.0);
        assert_eq!(figures.memcpy[0].threads, 1);
        assert!(figures.memcpy.iter().all(|rate| rate.bytes_per_second > 0.0));
        assert!(figures.trials.iter().all(|trial| trial.bytes_per_second > 0.0));
        let chosen = |trial: &Trial| {
            (trial.lanes, trial.slot_bytes) == (measured.profile.lanes, measured.profile.slot_bytes)
        };
        assert!(figures.trials.iter().any(chosen), "{measured:?}");
        let to_host = |trial: &Trial| trial.lanes == measured.profile.lanes_to_host;
        assert!(figures.trials_to_host.iter().any(to_host), "{measured:?}");
        assert_eq!(
            device.stats().unwrap().pinned.peak,
            0,
            "the budget was not touched"
        );
        drop(device);
        assert_eq!(sim.alive(), Alive::default());
        assert_eq!(sim.freed_in_use(), 0);
    }

    #[test]
    fn no_engine_that_is_tried_pins_more_than_the_budget() {
        let machine = Machine::new(DeviceConfig::default());
        let options = DeviceOptions {
            pinned_budget: Some(256 << 10),
            ..DeviceOptions::default()
        };
        let device = Device::with_options(machine.device(0).unwrap(), &options).unwrap();
        let measured = Profile::measure(&device, &mut |_| ()).unwrap();
        assert_eq!(measured.profile.defect(), None);
        // Two are compared at a time.
        assert!(machine.sim(0).unwrap().peak_pinned_bytes() <= 2 * (256 << 10));
    }

    #[test]
    fn the_host_has_no_profile_to_measure() {
        let measured = Profile::measure(&Device::host(), &mut |_| ());
        assert!(matches!(measured, Err(Error::Unsupported { .. })));
    }
}
