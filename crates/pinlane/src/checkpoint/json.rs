//! JSON read as a stream, so that what serde would pass over in silence is seen: a name given twice, a field that nobody
//! knows.
//!
//! serde carries errors as text. What a visitor refuses is typed, so it is put aside in a [`Refusal`] and serde is told only
//! that something was; [`parse`] then gives the typed fault.

use std::fmt;

use indexmap::{IndexMap, map::Entry};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

/// Where a visitor leaves the fault that made it stop.
pub(super) struct Refusal<F>(Option<F>);

impl<F> Refusal<F> {
    /// Keeps the fault, and gives the error to stop serde with.
    pub(super) fn because<E: serde::de::Error>(&mut self, fault: F) -> E {
        self.0 = Some(fault);
        E::custom("refused")
    }
}

/// What `visit` makes of the one value that `json` is. `syntax` makes a fault of an offset in `json` and what the parser
/// says.
///
/// # Errors
///
/// The visitor's own fault, else that of `syntax`.
pub(super) fn parse<T, F>(
    json: &[u8],
    visit: impl FnOnce(
        &mut serde_json::Deserializer<serde_json::de::SliceRead<'_>>,
        &mut Refusal<F>,
    ) -> serde_json::Result<T>,
    syntax: impl FnOnce(usize, String) -> F,
) -> Result<T, F> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut refusal = Refusal(None);
    let parsed = visit(&mut deserializer, &mut refusal).and_then(|parsed| {
        deserializer.end()?;
        Ok(parsed)
    });
    parsed.map_err(|error| {
        refusal
            .0
            .unwrap_or_else(|| syntax(offset(json, &error), reason(&error)))
    })
}

/// Where in `json` the parser stopped: it counts lines and, in them, bytes, both from 1.
fn offset(json: &[u8], error: &serde_json::Error) -> usize {
    let line = json
        .split_inclusive(|&byte| byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    (line + error.column().saturating_sub(1)).min(json.len())
}

/// What the parser says, without its own idea of where.
fn reason(error: &serde_json::Error) -> String {
    let said = error.to_string();
    match said.rfind(" at line ") {
        Some(place) => said[..place].to_owned(),
        None => said,
    }
}

/// An object of text to text, each key once.
pub(super) struct Texts<'a, F> {
    pub(super) refusal: &'a mut Refusal<F>,
    /// The fault of a key that comes twice.
    pub(super) twice: fn(String) -> F,
}

impl<'de, F> DeserializeSeed<'de> for Texts<'_, F> {
    type Value = IndexMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for Texts<'_, F> {
    type Value = IndexMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = IndexMap::new();
        while let Some(key) = map.next_key::<String>()? {
            match texts.entry(key) {
                Entry::Occupied(taken) => {
                    return Err(self.refusal.because((self.twice)(taken.key().clone())));
                }
                Entry::Vacant(free) => free.insert(map.next_value()?),
            };
        }
        Ok(texts)
    }
}
