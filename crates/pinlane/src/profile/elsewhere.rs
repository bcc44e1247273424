//! Profiles of machines that are not this one, from files as `pinlane tune` writes them.

use std::path::Path;

use pinlane_driver::{Backend, DeviceId, Link, Properties};

use super::{Profile, ProfileError, document::Opened};

/// A profile of a device that need not be here, to plan as if it were.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProfileElsewhere {
    /// The device's product.
    pub device: String,
    /// Its link.
    pub link: String,
    /// The cores of its host that were used.
    pub cores: usize,
    /// Where the figures come from, if the file says so; what `pinlane tune` writes was measured by it.
    pub source: Option<String>,
    /// The profile. A field that the file lacks is assumed from the link's rate and the number of cores.
    pub profile: Profile,
}

impl ProfileElsewhere {
    /// Reads a document of `pinlane tune`; `path` is its name in errors.
    ///
    /// ```
    /// use pinlane::{Device, Profile, ProfileElsewhere};
    ///
    /// let measured = Profile::measure(&Device::open("sim:0")?, &mut |_| ())?;
    /// let document = measured.to_json().expect("what was measured can be written");
    /// let read = ProfileElsewhere::parse(document.as_bytes(), "tune.json".as_ref());
    /// assert!(read.is_err(), "what a simulated device does is no profile of a machine");
    /// # Ok::<(), pinlane::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ProfileError::NoProfile`], [`ProfileError::Schema`] and [`ProfileError::OfSimulated`] with the name.
    pub fn parse(content: &[u8], path: &Path) -> Result<Self, ProfileError> {
        Self::read(content, path).map_err(|error| match error {
            // It was never stored here, so it is not to be deleted.
            ProfileError::Broken { path, reason } => ProfileError::NoProfile { path, reason },
            other => other,
        })
    }

    fn read(content: &[u8], path: &Path) -> Result<Self, ProfileError> {
        let opened = Opened::read(content, path)?;
        let subject = &opened.subject;
        if subject.simulated {
            return Err(ProfileError::OfSimulated {
                path: path.to_owned(),
                device: subject.device.clone(),
            });
        }
        let (device, link, cores) = (subject.device.clone(), subject.link.clone(), subject.cores);
        let source = opened
            .fields
            .get("source")
            .and_then(|source| source.as_str())
            .map(str::to_owned);
        let assumed = Profile::assumed_with(&stand_in(&device, &link, opened.link_rate()), cores);
        Ok(Self {
            profile: opened.profile(&assumed)?,
            device,
            link,
            cores,
            source,
        })
    }
}

/// What is assumed of such a device.
fn stand_in(device: &str, link: &str, rate: Option<f64>) -> Properties {
    Properties {
        // No profile depends on these.
        id: DeviceId {
            backend: Backend::Sim,
            ordinal: 0,
        },
        group: 0,
        memory_bytes: 0,
        copy_engines: 1,
        numa_node: None,
        pci_address: None,
        library: None,
        name: device.to_owned(),
        link: Link::new(link, rate),
        simulated: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProfileElsewhere, ProfileError> {
        ProfileElsewhere::parse(text.as_bytes(), "there.json".as_ref())
    }

    const HEAD: &str =
        r#"{"schema": 1, "device": "Some GPU", "link": "PCIe Gen5 x16", "cores": 16, "simulated": false"#;

    #[test]
    fn what_a_profile_of_elsewhere_lacks_follows_from_its_link_and_cores() {
        let text = format!(r#"{HEAD}, "source": "a run", "profile": {{"link_bytes_per_second": 55e9}}}}"#);
        let found = parse(&text).unwrap();
        assert_eq!((found.device.as_str(), found.cores), ("Some GPU", 16));
        assert_eq!(found.source.as_deref(), Some("a run"));
        assert_eq!(found.profile.link_bytes_per_second, 55e9);
        assert_eq!(found.profile.lanes, 8);
    }

    #[test]
    fn what_was_measured_on_a_simulated_device_is_refused_as_that() {
        let text = format!(r#"{HEAD}, "profile": {{}}}}"#).replace("false", "true");
        let error = parse(&text).unwrap_err().to_string();
        assert!(
            error.contains("there.json") && error.contains("only simulates") && !error.contains("storing"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_profile_is_refused_with_the_name_of_the_file() {
        for text in [
            "nonsense".to_owned(),
            "{}".to_owned(),
            format!("{HEAD}}}"),
            format!(r#"{HEAD}, "profile": {{"lanes": 0}}}}"#),
            format!(r#"{HEAD}, "profile": {{"lanes": "many"}}}}"#),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(
                error.contains("there.json is no profile") && !error.contains("delete"),
                "{text}: {error}"
            );
        }
    }
}
