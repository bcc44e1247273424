//! The best that is known of a device: measured and stored, or assumed.

use std::{env, fmt, path::PathBuf};

use pinlane_driver::Properties;

use super::{Profile, ProfileStore};

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
        let assumed = || KnownProfile {
            profile: Self::assumed(properties),
            origin: ProfileOrigin::Assumed,
        };
        if properties.simulated || env::var_os(SWITCH).is_some_and(|value| value == "assumed") {
            return assumed();
        }
        let stored = ProfileStore::of_user().and_then(|store| {
            let profile = store.load(properties)?;
            Ok(profile.map(|profile| KnownProfile {
                profile,
                origin: ProfileOrigin::Stored(store.path(properties)),
            }))
        });
        match stored {
            Ok(Some(known)) => known,
            Ok(None) => assumed(),
            Err(error) => {
                tracing::warn!(device = %properties.id, %error, "going on with the assumed profile");
                assumed()
            }
        }
    }
}
