//! Measured profiles in files: one for each device, link and number of cores, in a folder of the user's. Two devices of one
//! product are two, for they may hang on different processors; what an older version has stored for their product serves those
//! that have no file of their own.
//!
//! A file is replaced as a whole or not at all. What it says is used only if it is of this schema, of the same device
//! and something that an engine can run with.

use std::{
    env, fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy as _;
use pinlane_driver::Properties;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use super::{Figures, Measurement, Profile, ProfileError, cores};

/// The version of the files: raised when a field changes its meaning, not when one is added.
const SCHEMA: u64 = 1;

/// Names another folder.
const FOLDER: &str = "PINLANE_CACHE_DIR";

/// The folder in which a user's measured profiles are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileStore {
    folder: PathBuf,
}

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
    fn of(properties: &Properties) -> Self {
        Self {
            device: properties.name.clone(),
            link: properties.link.name.clone(),
            cores: cores(),
            simulated: properties.simulated,
            pci_address: properties.pci_address.clone(),
        }
    }

    /// All devices of this kind.
    fn product(self) -> Self {
        Self {
            pci_address: None,
            ..self
        }
    }

    /// As a name that every file system takes.
    fn file_name(&self) -> String {
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

impl ProfileStore {
    /// The user's: `$PINLANE_CACHE_DIR`, else `pinlane` in the system's folder for caches (`$XDG_CACHE_HOME` or
    /// `~/.cache` on Linux).
    ///
    /// # Errors
    ///
    /// [`ProfileError::NoFolder`] where the system does not tell a home.
    pub fn of_user() -> Result<Self, ProfileError> {
        if let Some(folder) = env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
            return Ok(Self::in_folder(folder));
        }
        let strategy = etcetera::choose_base_strategy().map_err(|error| ProfileError::NoFolder {
            reason: error.to_string(),
        })?;
        Ok(Self::in_folder(strategy.cache_dir().join("pinlane")))
    }

    /// One in a folder of the caller's, which need not exist yet.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The file for a device, whether it is there or not.
    #[must_use]
    pub fn path(&self, properties: &Properties) -> PathBuf {
        self.folder.join(Subject::of(properties).file_name())
    }

    /// The stored profile of a device; `None` where nothing is stored. A field that the file lacks has its assumed value. A
    /// device without a file has that of its product.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Read`], [`ProfileError::Broken`] and [`ProfileError::Schema`] with the file.
    pub fn load(&self, properties: &Properties) -> Result<Option<Profile>, ProfileError> {
        Ok(self.find(properties)?.map(|(profile, _)| profile))
    }

    /// The stored profile of a device, and the file that it is in.
    pub(super) fn find(&self, properties: &Properties) -> Result<Option<(Profile, PathBuf)>, ProfileError> {
        let of_device = Subject::of(properties);
        let of_product = Subject::of(properties).product();
        for subject in [of_device, of_product] {
            let path = self.folder.join(subject.file_name());
            match fs::read(&path) {
                Ok(content) => {
                    let profile = parse(&content, &subject, &Profile::assumed(properties), &path)?;
                    return Ok(Some((profile, path)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ProfileError::Read { path, source }),
            }
        }
        Ok(None)
    }

    /// Whether a profile could be stored, found out before anything is measured. Makes the folder.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Write`] with the folder.
    pub fn check_writable(&self) -> Result<(), ProfileError> {
        self.new_file().map(drop).map_err(|source| self.refused(source))
    }

    /// Stores what was measured, and gives the file.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Simulated`] for a simulated device, [`ProfileError::Write`] with the folder. What was stored
    /// before is there still.
    pub fn save(&self, measurement: &Measurement) -> Result<PathBuf, ProfileError> {
        if measurement.properties.simulated {
            let device = measurement.properties.name.clone();
            return Err(ProfileError::Simulated { device });
        }
        let path = self.path(&measurement.properties);
        self.replace(&path, &Document::of(measurement))
            .map_err(|source| self.refused(source))?;
        Ok(path)
    }

    fn replace(&self, path: &Path, document: &Document<'_>) -> io::Result<()> {
        let mut file = self.new_file()?;
        serde_json::to_writer_pretty(&mut file, document)?;
        writeln!(file)?;
        // On the disk before it has the name: a crash must not leave an empty profile.
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// A file in the folder that goes away unless it is kept, readable as any new file is.
    fn new_file(&self) -> io::Result<NamedTempFile> {
        fs::create_dir_all(&self.folder)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".profile-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(&self.folder)
    }

    fn refused(&self, source: io::Error) -> ProfileError {
        ProfileError::Write {
            folder: self.folder.clone(),
            source,
        }
    }
}

/// Reads the content of the file at `path`, which is to be of `subject`.
fn parse(content: &[u8], subject: &Subject, assumed: &Profile, path: &Path) -> Result<Profile, ProfileError> {
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
    use std::time::Duration;

    use pinlane_driver::Link;

    use super::*;
    use crate::profile::tests::properties;

    /// What older versions did not store.
    const LATER: [&str; 5] = [
        "short_copy_seconds",
        "small_plain_bytes_per_second",
        "staged_bytes_per_second",
        "tensor_to_device_seconds",
        "tensor_to_host_seconds",
    ];

    fn gpu() -> Properties {
        properties(Link::new("PCIe Gen5 x16", Some(55e9)))
    }

    fn measurement() -> Measurement {
        let mut profile = Profile::assumed(&gpu());
        profile.latency = Duration::from_nanos(7_531);
        profile.short_copy = Duration::from_nanos(3_210);
        profile.tensor_to_device = Duration::from_nanos(123);
        profile.tensor_to_host = Duration::from_nanos(321);
        profile.small_plain_bytes_per_second = 4.5e9;
        profile.staged_bytes_per_second = 45e9;
        profile.link_bytes_per_second = 54.321e9;
        profile.slot_bytes = 2 << 20;
        Measurement {
            properties: gpu(),
            assumed: Profile::assumed(&gpu()),
            profile,
            figures: Figures::default(),
        }
    }

    fn store() -> (tempfile::TempDir, ProfileStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ProfileStore::in_folder(folder.path().join("made/when/needed"));
        (folder, store)
    }

    /// The stored file after `change` was made to it.
    fn changed(change: impl FnOnce(&mut Value)) -> Result<Option<Profile>, ProfileError> {
        let (_folder, store) = store();
        let path = store.save(&measurement()).unwrap();
        let mut document = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut document);
        fs::write(&path, document.to_string()).unwrap();
        store.load(&gpu())
    }

    #[test]
    fn what_is_stored_is_loaded_again() {
        let (_folder, store) = store();
        assert_eq!(store.load(&gpu()).unwrap(), None);
        let path = store.save(&measurement()).unwrap();
        assert_eq!(path, store.path(&gpu()));
        assert_eq!(store.load(&gpu()).unwrap().unwrap(), measurement().profile);
        store.save(&measurement()).unwrap();
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1, "one file, however often it is stored");
    }

    #[test]
    fn a_profile_is_for_its_device_link_and_number_of_cores() {
        let (_folder, store) = store();
        store.save(&measurement()).unwrap();
        let slower = properties(Link::new("PCIe Gen4 x16", Some(26e9)));
        assert_eq!(store.load(&slower).unwrap(), None);
        let error = changed(|document| document["cores"] = 9999.into()).unwrap_err();
        assert!(error.to_string().contains("9999 cores"), "{error}");
    }

    fn gpu_at(address: &str) -> Properties {
        Properties {
            pci_address: Some(address.to_owned()),
            ..gpu()
        }
    }

    #[test]
    fn two_devices_of_one_product_have_a_profile_each() {
        let (_folder, store) = store();
        let (near, far) = (gpu_at("0000:17:00.0"), gpu_at("0001:17:00.0"));
        let mut slower = measurement();
        slower.profile.link_bytes_per_second = 40e9;
        for (properties, measured) in [(&near, measurement()), (&far, slower.clone())] {
            let properties = properties.clone();
            store
                .save(&Measurement {
                    properties,
                    ..measured
                })
                .unwrap();
        }
        assert_eq!(store.load(&near).unwrap().unwrap(), measurement().profile);
        assert_eq!(store.load(&far).unwrap().unwrap(), slower.profile);
        assert_eq!(store.load(&gpu_at("0000:18:00.0")).unwrap(), None);
        // Addresses that differ may be the same once sanitised.
        let error = store.load(&gpu_at("0000:17.00.0")).unwrap_err();
        assert!(error.to_string().contains("at 0000:17:00.0"), "{error}");
    }

    #[test]
    fn what_was_stored_for_a_product_serves_its_devices_until_they_have_their_own() {
        let (_folder, store) = store();
        let older = store.save(&measurement()).unwrap();
        let device = gpu_at("0000:17:00.0");
        assert_eq!(
            store.find(&device).unwrap().unwrap(),
            (measurement().profile, older)
        );
        let mut own = measurement();
        own.properties = device.clone();
        own.profile.slot_bytes = 8 << 20;
        let path = store.save(&own).unwrap();
        assert_eq!(store.find(&device).unwrap().unwrap(), (own.profile, path));
    }

    #[test]
    fn a_field_that_the_file_lacks_is_assumed_and_one_too_many_is_left_alone() {
        let loaded = changed(|document| {
            let profile = document["profile"].as_object_mut().unwrap();
            for field in LATER {
                profile.remove(field).unwrap();
            }
            profile.insert("of_a_later_version".to_owned(), 7.into());
        });
        let assumed = Profile::assumed(&gpu());
        let expected = Profile {
            short_copy: assumed.short_copy,
            small_plain_bytes_per_second: assumed.small_plain_bytes_per_second,
            staged_bytes_per_second: assumed.staged_bytes_per_second,
            tensor_to_device: assumed.tensor_to_device,
            tensor_to_host: assumed.tensor_to_host,
            ..measurement().profile
        };
        assert_eq!(loaded.unwrap().unwrap(), expected);
    }

    #[test]
    fn a_file_that_can_not_be_used_is_an_error_that_names_it() {
        let broken: [fn(&mut Value); 6] = [
            |document| *document = Value::Null,
            |document| document["schema"] = Value::Null,
            |document| document["profile"] = 3.into(),
            |document| document["profile"]["lanes"] = 0.into(),
            |document| document["profile"]["latency_seconds"] = (-1).into(),
            |document| document["profile"]["slot_bytes"] = 5000.into(),
        ];
        for change in broken {
            let error = changed(change).unwrap_err();
            assert!(matches!(error, ProfileError::Broken { .. }), "{error:?}");
            assert!(error.to_string().contains("nvidia-h200-pcie-gen5-x16"), "{error}");
        }
        let other = changed(|document| document["schema"] = 99.into());
        assert!(matches!(
            other,
            Err(ProfileError::Schema {
                found: 99,
                expected: SCHEMA,
                ..
            })
        ));
        let (_folder, store) = store();
        fs::create_dir_all(store.path(&gpu())).unwrap();
        assert!(matches!(store.load(&gpu()), Err(ProfileError::Read { .. })));
    }

    #[test]
    fn a_folder_that_can_not_be_written_is_named_with_what_to_do() {
        let file = NamedTempFile::new().unwrap();
        let store = ProfileStore::in_folder(file.path().join("below a file"));
        for error in [
            store.check_writable().unwrap_err(),
            store.save(&measurement()).unwrap_err(),
        ] {
            assert!(matches!(error, ProfileError::Write { .. }));
            let text = error.to_string();
            assert!(text.contains("below a file") && text.contains(FOLDER), "{text}");
        }
    }

    #[test]
    fn nothing_of_a_simulated_device_is_stored() {
        let (folder, store) = store();
        let mut simulated = measurement();
        simulated.properties.simulated = true;
        assert!(matches!(
            store.save(&simulated),
            Err(ProfileError::Simulated { .. })
        ));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn file_names_hold_nothing_that_a_file_system_minds() {
        assert_eq!(
            sanitised("NVIDIA RTX™ 6000/Ada  PCIe Gen4 x16"),
            "nvidia-rtx-6000-ada-pcie-gen4-x16"
        );
        assert_eq!(sanitised("../../etc/passwd\0"), "etc-passwd");
    }
}
