//! Advice for one description: every way with its time and reason, for people and as JSON.

use std::{fmt, thread};

use comfy_table::{CellAlignment, Table, presets};
use pinlane::{Device, DeviceOptions, Direction, HostEnd, Profile, ProfileElsewhere};
use pinlane_driver::sim::{DeviceConfig, Machine};
use pinlane_guide::{device::Accelerator, timer::Budget, units};
use serde::Serialize;

use crate::{Description, Owner, Result, Way, measure::Bench, ways::Plain};

/// What advice is given for: a device that is here, or the profile of one that need not be.
#[derive(Debug)]
pub struct On {
    accelerator: Option<Accelerator>,
    device: Device,
    profile: Profile,
    cores: usize,
    /// The device and its link.
    name: String,
    /// Where the profile comes from.
    source: String,
    simulated: bool,
}

/// More than any device holds, for one of which only the profile is known.
const ROOM: u64 = 1 << 50;

/// Results of so many bytes and more lie in memory of their own where they are pageable.
const LONG_RESULT: u64 = 1 << 20;
/// What no profile knows of such.
const FRESH: &str = "the pages of fresh results on the host are made as they are written, which comes on top and is not in the profile; \
                     memory that earlier results have left is used again without that";

/// What pinlane's way is called.
const PINLANE: &str = "pinlane";

impl On {
    /// A device that is here: the one of that name, or the best there is.
    ///
    /// # Errors
    ///
    /// [`Error::Guide`](crate::Error::Guide) where there is no such device.
    pub fn here(name: Option<&str>) -> Result<Self> {
        let accelerator = Accelerator::open(name)?;
        let properties = accelerator.driver.properties();
        let known = Profile::known(properties);
        Ok(Self {
            device: accelerator.device.clone(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            name: if properties.simulated {
                format!("{} ({})", properties.id, properties.name)
            } else {
                format!(
                    "{} ({}, {})",
                    properties.id, properties.name, properties.link.name
                )
            },
            source: if properties.simulated {
                "assumed, as all of a simulated device is".to_owned()
            } else {
                known.origin.to_string()
            },
            simulated: properties.simulated,
            profile: known.profile,
            accelerator: Some(accelerator),
        })
    }

    /// A device of which there is only a profile. Plans are those of a simulated device that has it.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`](crate::Error::Engine) for a profile that no engine can be made by.
    pub fn elsewhere(there: ProfileElsewhere) -> Result<Self> {
        let config = DeviceConfig {
            memory_bytes: ROOM,
            ..DeviceConfig::default()
        };
        let driver = Machine::new(config)
            .device(0)
            .map_err(pinlane_guide::Error::from)?;
        let options = DeviceOptions {
            profile: Some(there.profile.clone()),
            ..DeviceOptions::default()
        };
        Ok(Self {
            accelerator: None,
            device: Device::with_options(driver, &options)?,
            profile: there.profile,
            cores: there.cores,
            name: format!(
                "{} ({}, {} cores), which is not here",
                there.device, there.link, there.cores
            ),
            source: there
                .source
                .unwrap_or_else(|| "measured by `pinlane tune`".to_owned()),
            simulated: false,
        })
    }
}

/// Every way to do what was described. Prints itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// What was described.
    pub description: String,
    /// The bytes in it.
    pub bytes: u64,
    /// The device and its link.
    pub machine: String,
    /// Where the profile comes from that it was predicted by.
    pub profile: String,
    /// Whether the device only simulates: its times say nothing of hardware.
    pub simulated: bool,
    /// The guide's ways, and pinlane's, whose reason is its plan.
    pub ways: Vec<Way>,
}

impl Advice {
    /// Predicts every way.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`](crate::Error::Engine) for more than the device holds or than can be planned at once.
    pub fn new(description: &Description, on: &On) -> Result<Self> {
        let plan = description.workload()?.plan(&on.device, None)?;
        let plan = if on.simulated { plan } else { plan.of_hardware() };
        let mut ways: Vec<Way> = Plain::of(description, on.cores)
            .into_iter()
            .map(|way| way.predict(description, &on.profile, on.cores))
            .collect();
        let fresh = description.direction() == Direction::ToHost
            && description.memory() == HostEnd::Pageable
            && description.bytes() >= LONG_RESULT;
        ways.push(Way {
            owner: Owner::Pinlane,
            name: PINLANE,
            predicted_seconds: plan.predicted().as_secs_f64(),
            at_least: fresh,
            reason: if fresh {
                format!("{plan}\n{FRESH}")
            } else {
                plan.to_string()
            },
            measured_seconds: None,
        });
        Ok(Self {
            description: description.to_string(),
            bytes: description.bytes(),
            machine: on.name.clone(),
            profile: on.source.clone(),
            simulated: on.simulated,
            ways,
        })
    }

    /// Predicts every way and then does it, each for as long as `budget` says. `None` for a device that is not here.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new); [`Error::NotMeasured`](crate::Error::NotMeasured) for strided memory and files; what the
    /// engine and the driver say; [`Error::WrongBytes`](crate::Error::WrongBytes).
    pub fn measured(description: &Description, on: &On, budget: Budget) -> Result<Option<Self>> {
        let Some(accelerator) = &on.accelerator else {
            return Ok(None);
        };
        let mut advice = Self::new(description, on)?;
        let bench = Bench::new(description, accelerator, budget)?;
        let mut times = Vec::new();
        for way in Plain::of(description, on.cores) {
            times.push(bench.guide(way)?);
        }
        times.push(bench.pinlane(PINLANE)?);
        for (way, seconds) in advice.ways.iter_mut().zip(times) {
            way.measured_seconds = Some(seconds);
        }
        Ok(Some(advice))
    }

    fn table(&self) -> Table {
        let measured = self.ways.iter().any(|way| way.measured_seconds.is_some());
        let mut head = vec!["way", "predicted"];
        if measured {
            head.extend(["measured", "predicted / measured"]);
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(head);
        for way in &self.ways {
            let least = if way.at_least { "at least " } else { "" };
            let mut row = vec![
                way.name.to_owned(),
                format!("{least}{}", units::time(way.predicted_seconds)),
            ];
            if measured {
                row.push(way.measured_seconds.map_or_else(String::new, units::time));
                row.push(way.measured_seconds.map_or_else(String::new, |seconds| {
                    format!("{:.2}", way.predicted_seconds / seconds)
                }));
            }
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} in all", self.description, units::bytes(self.bytes))?;
        writeln!(f, "on {}", self.machine)?;
        writeln!(f, "profile: {}", self.profile)?;
        if self.simulated {
            writeln!(f, "simulated device: shows behaviour, not hardware speed")?;
        }
        writeln!(f, "\n{}\n", self.table())?;
        for way in &self.ways {
            writeln!(f, "{}\n  {}", way.name, way.reason.replace('\n', "\n  "))?;
        }
        if self.ways.len() > 1 {
            write!(
                f,
                "\nThe guide's ways are the driver's calls; torch adds its own work for each call: `h2d-small-1000` in docs/performance.md\n\
                 has both beside each other on an H200."
            )
        } else {
            write!(
                f,
                "\nThe guide has no way for these: its users make them contiguous first."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, profiles};

    fn description(text: &str) -> Description {
        Description::parse(text).unwrap()
    }

    #[test]
    fn every_way_of_a_profile_has_a_time_and_a_reason() {
        let on = On::elsewhere(profiles::named("h200").unwrap()).unwrap();
        for (text, ways) in [
            ("100x1M f32", 9),
            ("1000x1000 f32 pinned", 3),
            ("1000x1000 f32 pinned to host", 3),
            ("7GiB file", 2),
            ("7GiB strided", 1),
        ] {
            let advice = Advice::new(&description(text), &on).unwrap();
            assert_eq!(advice.ways.len(), ways, "{advice}");
            for way in &advice.ways {
                assert!(way.predicted_seconds > 0.0 && !way.reason.is_empty(), "{way:?}");
            }
            let shown = advice.to_string();
            assert!(
                shown.contains("NVIDIA H200") && shown.contains("bench/results"),
                "{shown}"
            );
        }
    }

    #[test]
    fn pinlane_is_predicted_to_be_the_fastest_of_what_starts_in_pageable_memory() {
        let on = On::elsewhere(profiles::named("h200").unwrap()).unwrap();
        for text in ["100x1M f32", "1000x1000 f32", "1GiB"] {
            let advice = Advice::new(&description(text), &on).unwrap();
            let (pinlane, guide) = advice.ways.split_last().unwrap();
            for way in guide.iter().filter(|way| !way.name.starts_with("pinned before")) {
                assert!(
                    pinlane.predicted_seconds <= way.predicted_seconds,
                    "{text}: {way:?}"
                );
            }
        }
    }

    #[test]
    fn long_results_in_fresh_memory_take_at_least_what_is_predicted_and_others_that() {
        let on = On::elsewhere(profiles::named("h200").unwrap()).unwrap();
        for (text, at_least) in [
            ("1GiB to host", true),
            ("1GiB pinned to host", false),
            ("1KiB to host", false),
            ("1GiB", false),
        ] {
            let advice = Advice::new(&description(text), &on).unwrap();
            let way = advice.ways.last().unwrap();
            assert_eq!(way.at_least, at_least, "{text}");
            assert_eq!(
                way.reason.contains("fresh results"),
                at_least,
                "{text}: {}",
                way.reason
            );
        }
    }

    #[test]
    fn what_was_predicted_is_done_on_a_simulated_device_and_says_what_it_is() {
        let on = On::here(Some("sim:0")).unwrap();
        for text in [
            "3x1000 f32",
            "2x10KB + 1x5B pinned",
            "3x1000 f32 to host",
            "3x1000 f32 pinned to host",
        ] {
            let advice = Advice::measured(&description(text), &on, Budget::QUICK)
                .unwrap()
                .unwrap();
            assert!(
                advice.ways.iter().all(|way| way.measured_seconds > Some(0.0)),
                "{advice}"
            );
            assert!(advice.to_string().contains("simulated device"), "{advice}");
        }
    }

    #[test]
    fn what_is_not_here_or_is_planned_only_is_not_measured() {
        let there = On::elsewhere(profiles::named("h200").unwrap()).unwrap();
        assert_eq!(
            Advice::measured(&description("1MiB"), &there, Budget::QUICK).unwrap(),
            None
        );
        let here = On::here(Some("sim:0")).unwrap();
        let refused = Advice::measured(&description("1MiB file"), &here, Budget::QUICK);
        assert!(matches!(refused, Err(Error::NotMeasured { .. })));
    }

    #[test]
    fn what_no_device_holds_is_refused() {
        let here = On::here(Some("sim:0")).unwrap();
        let refused = Advice::new(&description("1000x1GiB"), &here);
        assert!(matches!(refused, Err(Error::Engine(_))), "{refused:?}");
    }
}
