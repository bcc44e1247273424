//! The best that is known of a device: measured and stored, or assumed.

use std::{env, fmt, path::PathBuf};

use pinlane_driver::Properties;

use super::{Profile, ProfileError, ProfileStore};

/// Set to `assumed`, it leaves stored profiles alone.
const SWITCH: &str = "PINLANE_PROFILE";

/// Where a profile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProfileOrigin {
    /// From what the driver says of the hardware.
    Assumed,
    /// From measurements that were stored in this file.
    Stored(PathBuf),
    /// From whoever opened the device.
    Given,
}

impl fmt::Display for ProfileOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assumed => f.write_str("assumed from the hardware; `pinlane tune` measures it"),
            Self::Stored(path) => write!(f, "measured, stored in {}", path.display()),
            Self::Given => f.write_str("given by the program"),
        }
    }
}

/// A profile, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KnownProfile {
    /// The profile.
    pub profile: Profile,
    /// Where it comes from.
    pub origin: ProfileOrigin,
}

impl Profile {
    /// The user's stored profile of a device; where there is none, or it can't be used, the assumed one.
    ///
    /// With `PINLANE_PROFILE=assumed` in the environment no file is looked at. What makes a stored profile unusable is
    /// told as a warning; [`ProfileStore::load`] gives it as an error.
    #[must_use]
    pub fn known(properties: &Properties) -> KnownProfile {
        match env::var_os(SWITCH) {
            None => Self::known_from(properties, ProfileStore::of_user),
            Some(value) if value == "assumed" => Self::assumed(properties).into(),
            Some(value) => {
                tracing::warn!(?value, "{SWITCH} means something only if it is `assumed`");
                Self::known_from(properties, ProfileStore::of_user)
            }
        }
    }

    fn known_from(
        properties: &Properties,
        store: impl FnOnce() -> Result<ProfileStore, ProfileError>,
    ) -> KnownProfile {
        if properties.simulated {
            return Self::assumed(properties).into();
        }
        let stored = store().and_then(|store| {
            let found = store.find(properties)?;
            Ok(found.map(|(profile, path)| KnownProfile {
                profile,
                origin: ProfileOrigin::Stored(path),
            }))
        });
        match stored {
            Ok(Some(known)) => known,
            Ok(None) => Self::assumed(properties).into(),
            Err(error) => {
                tracing::warn!(device = %properties.id, %error, "going on with the assumed profile");
                Self::assumed(properties).into()
            }
        }
    }
}

impl From<Profile> for KnownProfile {
    /// One that was assumed.
    fn from(profile: Profile) -> Self {
        Self {
            profile,
            origin: ProfileOrigin::Assumed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pinlane_driver::Link;

    use super::*;
    use crate::profile::{Figures, Measurement, tests::properties};

    #[test]
    fn what_is_stored_is_used_and_what_is_broken_is_not() {
        let gpu = properties(Link::new("PCIe Gen5 x16", Some(55e9)));
        let folder = tempfile::tempdir().unwrap();
        let store = ProfileStore::in_folder(folder.path());
        let known = || Profile::known_from(&gpu, || Ok(store.clone()));
        let assumed = KnownProfile::from(Profile::assumed(&gpu));
        assert_eq!(known(), assumed);

        let mut profile = Profile::assumed(&gpu);
        profile.lanes = 7;
        let measurement = Measurement {
            properties: gpu.clone(),
            assumed: assumed.profile.clone(),
            profile: profile.clone(),
            figures: Figures::default(),
        };
        let path = store.save(&measurement).unwrap();
        let origin = ProfileOrigin::Stored(path.clone());
        assert_eq!(known(), KnownProfile { profile, origin });

        fs::write(path, "half a fi").unwrap();
        assert_eq!(known(), assumed);
    }

    #[test]
    fn a_simulated_device_has_the_assumed_profile_whatever_is_stored() {
        let mut simulated = properties(Link::new("simulated", None));
        simulated.simulated = true;
        let known = Profile::known_from(&simulated, || unreachable!("nothing is stored of it"));
        assert_eq!(known, Profile::assumed(&simulated).into());
    }
}
