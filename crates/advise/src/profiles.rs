//! Machines to plan for that are not this one: those that come with pinlane, and those in files.

use std::{fs, path::Path};

use pinlane::{ProfileElsewhere, ProfileError};

use crate::{Error, Result};

/// The profiles that come with pinlane. Each file names the source of its figures.
const SHIPPED: [(&str, &str); 2] = [
    ("h200", include_str!("../profiles/h200.json")),
    ("h100", include_str!("../profiles/h100.json")),
];

/// No profile is longer.
const LONGEST: u64 = 1 << 20;

/// The names of the profiles that come with pinlane.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// The profile of that name, or in that file.
///
/// # Errors
///
/// [`Error::NoProfile`] where it is neither; [`Error::File`]; [`Error::NotAProfile`] for a file that is none, [`Error::Profile`] for
/// one of another version or of a simulated device.
pub fn named(name: &str) -> Result<ProfileElsewhere> {
    if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        return Ok(ProfileElsewhere::parse(text.as_bytes(), Path::new(name))?);
    }
    let path = Path::new(name);
    if !path.exists() {
        return Err(Error::NoProfile {
            name: name.to_owned(),
            known: names().collect::<Vec<_>>().join(", "),
        });
    }
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let known = || names().collect::<Vec<_>>().join(", ");
    let bytes = fs::metadata(path).map_err(failed)?.len();
    // A model, say, need not be read to know that.
    if bytes > LONGEST {
        return Err(Error::NotAProfile {
            path: path.to_owned(),
            reason: format!("it has {bytes} bytes"),
            known: known(),
        });
    }
    let content = fs::read(path).map_err(failed)?;
    ProfileElsewhere::parse(&content, path).map_err(|error| match error {
        ProfileError::NoProfile { path, reason } => Error::NotAProfile {
            path,
            reason,
            known: known(),
        },
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_is_one_and_names_its_source() {
        for name in names() {
            let profile = named(name).unwrap();
            assert!(
                profile
                    .source
                    .is_some_and(|source| source.contains("bench/results")),
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_that_nothing_has_is_refused_with_those_that_there_are() {
        let error = named("abacus").unwrap_err().to_string();
        assert!(error.contains("abacus") && error.contains("h200"), "{error}");
    }

    #[test]
    fn a_file_is_read_and_one_that_is_no_profile_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("there.json");
        fs::write(&path, SHIPPED[0].1).unwrap();
        assert_eq!(named(path.to_str().unwrap()).unwrap(), named("h200").unwrap());
        let refused = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            named(path.to_str().unwrap()).unwrap_err()
        };
        for content in [&b"{}"[..], b"\x38\0\0\0\0\0\0\0{\"a\":{}}", &vec![0; 2 << 20]] {
            let error = refused(content);
            assert!(matches!(error, Error::NotAProfile { .. }), "{error}");
            let said = error.to_string();
            assert!(
                said.contains("there.json is no profile")
                    && said.contains("h200")
                    && said.contains("tune --json"),
                "{said}"
            );
            assert!(!said.contains("delete"), "{said}");
        }
        let simulated = SHIPPED[0]
            .1
            .replace("\"simulated\": false", "\"simulated\": true");
        let said = refused(simulated.as_bytes()).to_string();
        assert!(
            said.contains("there.json") && said.contains("only simulates"),
            "{said}"
        );
    }
}
