//! GPUs: what each is, what its link carries, and what pinning costs.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pinlane::{DType, Device, DeviceOptions, HostMemory, Profile, ProfileOrigin, Tree as _};
use pinlane_bench::link;
use pinlane_driver::{Driver, LinkState, Properties, sync::Arc};
use pinlane_guide::device;

use super::{Options, traced};
use crate::{Accelerator, Accelerators, LinkRates, Part, Pinning, Refusal};

/// Bytes of a copy that shows the link's rate.
const COPY: usize = 32 << 20;
/// The same where a device only simulates.
const SIMULATED_COPY: usize = 1 << 20;
/// Bytes that are pinned to see what that costs.
const PINNED: usize = 64 << 20;
/// How long a link that idled takes at most to speed up.
const SPEED_UP: Duration = Duration::from_millis(50);
/// How often it is asked how it runs; the best answer counts.
const QUESTIONS: usize = 3;

/// Finds the devices that `options` ask for and measures them, the first always, the others until `deadline`.
pub(super) fn measure(found: &mut Accelerators, options: &Options, deadline: Instant) {
    if let Some(name) = &options.device {
        match one(name) {
            Ok(device) => found.devices.push(device),
            Err(error) => found.absent = Some(error.to_string()),
        }
        return;
    }
    match Device::gpus() {
        Ok(gpus) => {
            found.devices = all(&gpus, deadline, |name| {
                one(name).map_err(|error| error.to_string())
            })
        }
        Err(error) => found.absent = Some(error.to_string()),
    }
}

/// Measures each of `gpus` with `one`, the first always. One that can't be used, or for which there is no time, is there too.
fn all(
    gpus: &[Properties],
    deadline: Instant,
    one: impl Fn(&str) -> Result<Accelerator, String>,
) -> Vec<Accelerator> {
    let mut devices = Vec::with_capacity(gpus.len());
    for (number, properties) in gpus.iter().enumerate() {
        // Not even opened: that alone may take a second.
        let device = if number > 0 && Instant::now() >= deadline {
            Accelerator {
                left_out: Some("there are so many devices that the time was up".to_owned()),
                ..known(properties)
            }
        } else {
            one(&properties.id.to_string()).unwrap_or_else(|reason| Accelerator {
                unusable: Some(reason),
                ..known(properties)
            })
        };
        devices.push(device);
    }
    devices
}

fn one(name: &str) -> pinlane_guide::Result<Accelerator> {
    let device::Accelerator { device, driver } = device::Accelerator::open(Some(name))?;
    let mut found = known(driver.properties());
    let copy = if found.simulated { SIMULATED_COPY } else { COPY };
    // Without a copy by an engine, nothing else in a trace says what the device is.
    let name = |name, simulated| if found.simulated { simulated } else { name };
    let (link_step, pinning_step) = (
        name("link", "simulated link"),
        name("pinning", "simulated pinning"),
    );
    let limit = || link::measure(&device, copy).map_err(|error| error.to_string());
    match traced(link_step, limit) {
        Ok(limit) => {
            found.measured = Some(LinkRates {
                to_device: limit.h2d * 1e9,
                to_host: limit.d2h * 1e9,
                both: limit.both * 1e9,
            });
        }
        Err(error) => refuse(&mut found, Part::Link, error),
    }
    match traced("link under load", || under_load(&device, &driver, copy)) {
        Ok(state) => found.link_state = state,
        Err(error) => refuse(&mut found, Part::LinkState, error.to_string()),
    }
    match traced(pinning_step, || pinning(&driver)) {
        Ok(cost) => found.pinning = Some(cost),
        Err(error) => refuse(&mut found, Part::Pinning, error.to_string()),
    }
    Ok(found)
}

fn refuse(found: &mut Accelerator, part: Part, reason: String) {
    found.refused.push(Refusal { part, reason });
}

/// What is known of a device without opening it.
fn known(properties: &Properties) -> Accelerator {
    Accelerator {
        name: properties.id.to_string(),
        product: properties.name.clone(),
        memory: properties.memory_bytes,
        copy_engines: properties.copy_engines,
        pci_address: properties.pci_address.clone(),
        numa_node: properties.numa_node,
        library: properties.library.clone(),
        link: properties.link.name.clone(),
        link_rate: properties.link.bytes_per_second,
        tuned: matches!(Profile::known(properties).origin, ProfileOrigin::Stored(_)),
        simulated: properties.simulated,
        ..Accelerator::default()
    }
}

/// How the link runs while a thread keeps it busy.
fn under_load(device: &Device, driver: &Arc<dyn Driver>, bytes: usize) -> pinlane::Result<Option<LinkState>> {
    if driver.link_state().is_none() {
        return Ok(None);
    }
    let tensor = HostMemory::Pinned(device).zeros(DType::U8, &[bytes])?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| -> pinlane::Result<()> {
            while !over.load(Ordering::Relaxed) {
                tensor.to(device)?;
            }
            Ok(())
        });
        thread::sleep(SPEED_UP);
        let states = (0..QUESTIONS).filter_map(|_| driver.link_state());
        let best = states.max_by(|one, other| {
            one.now
                .bytes_per_second()
                .total_cmp(&other.now.bytes_per_second())
        });
        over.store(true, Ordering::Relaxed);
        load.join()
            .expect("moving a tensor again and again does not panic")?;
        Ok(best)
    })
}

/// From an engine that has nothing to one that has leased so much.
fn pinning(driver: &Arc<dyn Driver>) -> pinlane::Result<Pinning> {
    let options = DeviceOptions {
        pinned_budget: Some(2 * PINNED),
        ..DeviceOptions::default()
    };
    let device = Device::with_options(Arc::clone(driver), &options)?;
    let start = Instant::now();
    let pinned = HostMemory::Pinned(&device).empty(DType::U8, &[PINNED])?;
    let seconds = start.elapsed().as_secs_f64();
    drop(pinned);
    Ok(Pinning {
        bytes: PINNED as u64,
        seconds,
    })
}

#[cfg(test)]
mod tests {
    use pinlane_driver::sim::{DeviceConfig, Machine};

    use super::*;

    fn measured(name: &str) -> Accelerators {
        let mut found = Accelerators::default();
        let options = Options {
            device: Some(name.to_owned()),
        };
        measure(&mut found, &options, Instant::now());
        found
    }

    #[test]
    fn a_simulated_device_is_measured_when_it_is_asked_for_and_says_what_it_is() {
        let found = measured("sim:0");
        assert_eq!(found.absent, None);
        let [device] = found.devices.as_slice() else {
            panic!("{found:?}");
        };
        assert!(
            device.simulated && device.measured.is_some() && device.pinning.is_some(),
            "{device:?}"
        );
        assert_eq!(device.refused, Vec::new());
    }

    #[test]
    fn a_device_that_is_not_there_is_a_fact_with_its_reason() {
        let found = measured("sim:99");
        assert!(found.devices.is_empty());
        assert!(found.absent.unwrap().contains("sim:99"));
    }

    #[test]
    fn a_broken_device_beside_a_working_one_is_there_with_its_reason_and_one_without_time_with_that() {
        let gpus: Vec<Properties> = (0..3)
            .map(|number| {
                let machine = Machine::new(DeviceConfig::default());
                let mut properties = machine.device(0).unwrap().properties().clone();
                properties.id.ordinal = number;
                properties
            })
            .collect();
        let one = |name: &str| match name {
            "sim:1" => Err("an uncorrectable error".to_owned()),
            name => Ok(Accelerator {
                name: name.to_owned(),
                ..Accelerator::default()
            }),
        };
        let in_time = all(&gpus, Instant::now() + Duration::from_secs(3600), one);
        let told = |devices: &[Accelerator]| -> Vec<(String, bool, Option<String>)> {
            let told = devices.iter().map(|device| {
                let left_out = device.left_out.is_some();
                (device.name.clone(), left_out, device.unusable.clone())
            });
            told.collect()
        };
        let broken = Some("an uncorrectable error".to_owned());
        let expected = [
            ("sim:0", false, None),
            ("sim:1", false, broken),
            ("sim:2", false, None),
        ];
        assert_eq!(
            told(&in_time),
            expected.map(|(name, left_out, reason)| (name.to_owned(), left_out, reason))
        );
        let too_late = all(&gpus, Instant::now(), one);
        let expected = [
            ("sim:0", false, None),
            ("sim:1", true, None),
            ("sim:2", true, None),
        ];
        assert_eq!(
            told(&too_late),
            expected.map(|(name, left_out, reason)| (name.to_owned(), left_out, reason))
        );
    }
}
