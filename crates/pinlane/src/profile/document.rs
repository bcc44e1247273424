//! What a file of a measured profile says: what it is of, the profile, and what that was chosen by.
//!
//! It is used only if it is of this schema and something that an engine can run with. A field of the profile that it lacks is
//! assumed, and one that is not known is left alone.

use std::{fmt, path::Path};

use pinlane_driver::Properties;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Figures, Measurement, Profile, ProfileError, cores};

/// The version of the files: raised when a field changes its meaning, not when one is added.
pub(super) const SCHEMA: u64 = 1;

/// What a file says.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    schema: u64,
    pinlane: &'static str,
    #[serde(flatten)]
    subject: Subject,
    profile: &'a Profile,
    figures: &'a Figures,
}

/// What a profile is of.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Subject {
    pub(super) device: String,
    pub(super) link: String,
    pub(super) cores: usize,
    pub(super) simulated: bool,
    /// Which of several devices of this kind it is; older files do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pci_address: Option<String>,
}

impl Subject {
    pub(super) fn of(properties: &Properties) -> Self {
        Self {
            device: properties.name.clone(),
            link: properties.link.name.clone(),
            cores: cores(),
            simulated: properties.simulated,
            pci_address: properties.pci_address.clone(),
        }
    }

    /// All devices of this kind.
    pub(super) fn product(self) -> Self {
        Self {
            pci_address: None,
            ..self
        }
    }

    /// As a name that every file system takes.
    pub(super) fn file_name(&self) -> String {
        let Self {
            device, link, cores, ..
        } = self;
        let address = self.pci_address.as_deref().unwrap_or_default();
        format!(
            "{}.json",
            sanitised(&format!("{device} {link} {cores} cores {address}"))
        )
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device, link, cores, ..
        } = self;
        write!(f, "{device}")?;
        if let Some(address) = &self.pci_address {
            write!(f, " at {address}")?;
        }
        write!(f, " over {link} with {cores} cores")
    }
}

impl<'a> Document<'a> {
    pub(super) fn of(measurement: &'a Measurement) -> Self {
        Self {
            schema: SCHEMA,
            pinlane: env!("CARGO_PKG_VERSION"),
            subject: Subject::of(&measurement.properties),
            profile: &measurement.profile,
            figures: &measurement.figures,
        }
    }
}

/// Reads the content of the file at `path`, which is to be of `subject`.
pub(super) fn parse(
    content: &[u8],
    subject: &Subject,
    assumed: &Profile,
    path: &Path,
) -> Result<Profile, ProfileError> {
    let opened = Opened::read(content, path)?;
    // Names that differ may be the same once sanitised.
    if opened.subject != *subject {
        return Err(opened.broken(format!("it is of {}", opened.subject)));
    }
    opened.profile(assumed)
}

/// A file whose schema is this version's.
pub(super) struct Opened<'a> {
    path: &'a Path,
    pub(super) subject: Subject,
    /// What else it says of itself.
    pub(super) fields: Map<String, Value>,
    stored: Map<String, Value>,
}

impl<'a> Opened<'a> {
    pub(super) fn read(content: &[u8], path: &'a Path) -> Result<Self, ProfileError> {
        let broken = |reason: String| ProfileError::Broken {
            path: path.to_owned(),
            reason,
        };
        let mut fields: Map<String, Value> =
            serde_json::from_slice(content).map_err(|error| broken(error.to_string()))?;
        match fields.get("schema").and_then(Value::as_u64) {
            Some(SCHEMA) => {}
            Some(found) => {
                return Err(ProfileError::Schema {
                    path: path.to_owned(),
                    found,
                    expected: SCHEMA,
                });
            }
            None => return Err(broken("it names no schema".to_owned())),
        }
        let Some(Value::Object(stored)) = fields.remove("profile") else {
            return Err(broken("it holds no profile".to_owned()));
        };
        let subject =
            serde_json::from_value(fields.clone().into()).map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            path,
            subject,
            fields,
            stored,
        })
    }

    /// The profile, with what is assumed where the file says nothing.
    pub(super) fn profile(self, assumed: &Profile) -> Result<Profile, ProfileError> {
        let profile =
            completed(self.stored.clone(), assumed).map_err(|error| self.broken(error.to_string()))?;
        match profile.defect() {
            None => Ok(profile),
            Some(defect) => Err(self.broken(defect.to_owned())),
        }
    }

    /// The link's rate, where the file has it.
    pub(super) fn link_rate(&self) -> Option<f64> {
        self.stored.get("link_bytes_per_second")?.as_f64()
    }

    fn broken(&self, reason: String) -> ProfileError {
        ProfileError::Broken {
            path: self.path.to_owned(),
            reason,
        }
    }
}

/// The stored fields, and of those that are not stored the assumed ones.
fn completed(stored: Map<String, Value>, assumed: &Profile) -> serde_json::Result<Profile> {
    let mut fields: Map<String, Value> = serde_json::from_value(serde_json::to_value(assumed)?)?;
    fields.extend(stored);
    serde_json::from_value(fields.into())
}

/// Small letters, digits, and single hyphens for everything else.
fn sanitised(text: &str) -> String {
    let words = text
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_hold_nothing_that_a_file_system_minds() {
        assert_eq!(
            sanitised("NVIDIA RTX™ 6000/Ada  PCIe Gen4 x16"),
            "nvidia-rtx-6000-ada-pcie-gen4-x16"
        );
        assert_eq!(sanitised("../../etc/passwd\0"), "etc-passwd");
    }
}
