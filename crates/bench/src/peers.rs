//! Figures of peers that were measured elsewhere, such as torch's by a script: seconds, by figure and by name.
//!
//! `{"h2d-pageable-1gib": {"torch_to": 0.115}}`

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

use crate::error::{Error, Result};

/// Seconds that peers take, by the figure's id and the peer's name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Peers(BTreeMap<String, BTreeMap<String, f64>>);

impl Peers {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::Format`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|source| Error::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let refuse = |reason: String| Error::Format {
            path: path.to_owned(),
            what: "peers' figures, which are {\"figure\": {\"peer\": seconds}}",
            reason,
        };
        let peers: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        for (figure, names) in &peers.0 {
            for (peer, seconds) in names {
                if !(seconds.is_finite() && *seconds > 0.0) {
                    return Err(refuse(format!("{figure}, {peer}: {seconds} is no time")));
                }
            }
        }
        Ok(peers)
    }

    /// The peers of a figure, in seconds.
    pub fn of(&self, figure: &str) -> impl Iterator<Item = (&str, f64)> {
        let names = self.0.get(figure).into_iter().flatten();
        names.map(|(name, seconds)| (name.as_str(), *seconds))
    }
}
