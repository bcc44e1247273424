//! Measured profiles in files: one for each device, link and number of cores, in a folder of the user's. Two devices of one
//! product are two, for they may hang on different processors; what an older version has stored for their product serves those
//! that have no file of their own.
//!
//! A file is replaced as a whole or not at all. What it says ([`document`](super::document)) is used only if it is of the same
//! device.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy as _;
use pinlane_driver::Properties;
use tempfile::NamedTempFile;

use super::{
    Measurement, Profile, ProfileError,
    document::{Document, Subject, parse},
};

/// Names another folder.
const FOLDER: &str = "PINLANE_CACHE_DIR";

/// The folder in which a user's measured profiles are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileStore {
    folder: PathBuf,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pinlane_driver::Link;
    use serde_json::Value;

    use super::*;
    use crate::profile::{Figures, document::SCHEMA, tests::properties};

    /// What older versions did not store.
    const LATER: [&str; 6] = [
        "short_copy_seconds",
        "small_plain_bytes_per_second",
        "cached_bytes_per_second",
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
        profile.cached_bytes_per_second = 15.5e9;
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
            cached_bytes_per_second: assumed.cached_bytes_per_second,
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
}
