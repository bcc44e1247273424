//! Descriptions as JSON, for programs.

use pinlane::Direction;
use serde::Deserialize;

use super::{DIRECTIONS, DescribeError, Description, Group, MEMORY, Size, dtype, named};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    tensors: Vec<Entry>,
    memory: Option<String>,
    to: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default = "one")]
    count: usize,
    elements: Option<u64>,
    dtype: Option<String>,
    bytes: Option<u64>,
}

fn one() -> usize {
    1
}

pub(super) fn parse(text: &str) -> Result<Description, DescribeError> {
    let wrong = |reason: String| DescribeError::new(text, 0..0, reason);
    let document: Document = serde_json::from_str(text).map_err(|error| {
        let at = place(text, error.line(), error.column());
        DescribeError::new(text, at..at, error.to_string())
    })?;
    let groups = document.tensors.iter().enumerate().map(|(number, entry)| {
        entry
            .group()
            .map_err(|reason| wrong(format!("entry {number} of `tensors`: {reason}")))
    });
    let groups = groups.collect::<Result<Vec<_>, _>>()?;
    let memory = match &document.memory {
        None => Some(Default::default()),
        Some(word) => named(&MEMORY, word),
    };
    let memory =
        memory.ok_or_else(|| wrong("`memory` is one of pageable, pinned, strided and file".to_owned()))?;
    let direction = match &document.to {
        None => Some(Direction::ToDevice),
        Some(word) => named(&DIRECTIONS, word),
    };
    let direction = direction.ok_or_else(|| wrong("`to` is device or host".to_owned()))?;
    Description::new(groups, memory, direction).map_err(|impossible| wrong(impossible.to_string()))
}

impl Entry {
    fn group(&self) -> Result<Group, String> {
        let size = match (self.elements, self.dtype.as_deref(), self.bytes) {
            (Some(count), Some(word), None) => Size::Elements {
                count,
                dtype: dtype(word).ok_or_else(|| format!("{word:?} is no dtype, such as f32"))?,
            },
            (None, None, Some(bytes)) => Size::Bytes(bytes),
            _ => return Err("it has either `elements` and `dtype`, or `bytes`".to_owned()),
        };
        Group::new(self.count, size).map_err(|impossible| impossible.to_string())
    }
}

/// Where a line and a column, both from 1, are in `text`.
fn place(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (before + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_as_words() {
        for (json, words) in [
            (
                r#"{"tensors": [{"count": 100, "elements": 1000000, "dtype": "f32"}]}"#,
                "100x1M f32 pageable to device",
            ),
            (
                r#"{"tensors": [{"bytes": 4096}, {"count": 2, "elements": 6, "dtype": "F4"}], "memory": "pinned", "to": "host"}"#,
                "4KiB + 2x6 f4 pinned to host",
            ),
        ] {
            assert_eq!(Description::parse(json), Description::parse(words));
        }
    }

    #[test]
    fn what_can_not_be_is_refused_for_its_own_reason_and_with_what_to_do() {
        for (text, reason, what_to_do) in [
            (r#"{"tensors": []}"#, "no tensor", "give at least one"),
            (
                r#"{"tensors": [{"count": 0, "bytes": 4}]}"#,
                "entry 0 of `tensors`: there is no tensor",
                "at least one",
            ),
            (
                r#"{"tensors": [{"elements": 3, "dtype": "f4"}]}"#,
                "no whole number of bytes",
                "a number of them that does",
            ),
            (
                r#"{"tensors": [{"elements": 18446744073709551615, "dtype": "f32"}]}"#,
                "more bytes than can be counted",
                "fewer tensors, or smaller",
            ),
            (
                r#"{"tensors": [{"bytes": 18446744073709551615}, {"bytes": 1}]}"#,
                "more bytes than can be counted",
                "fewer tensors, or smaller",
            ),
            (
                r#"{"tensors": [{"bytes": 4}], "memory": "file", "to": "host"}"#,
                "not in a file",
                "go to the device",
            ),
            (
                r#"{"tensors": [{"bytes": 4}], "memory": "strided", "to": "host"}"#,
                "not in strided memory",
                "go to the device",
            ),
        ] {
            let error = Description::parse(text).unwrap_err().to_string();
            for part in [reason, what_to_do] {
                assert!(error.contains(part), "{part} is missing: {error}");
            }
            assert!(!error.contains(", or memory"), "{error}");
        }
    }

    #[test]
    fn json_that_describes_nothing_is_refused() {
        for text in [
            "{",
            "{\n  \"tensors\": é",
            "{}",
            r#"{"tensors": []}"#,
            r#"{"tensors": [{"count": 1}]}"#,
            r#"{"tensors": [{"bytes": 4, "dtype": "f32"}]}"#,
            r#"{"tensors": [{"elements": 4, "dtype": "f33"}]}"#,
            r#"{"tensors": [{"bytes": 4}], "memory": "paged"}"#,
            r#"{"tensors": [{"bytes": 4}], "to": "gpu"}"#,
            r#"{"tensors": [{"bytes": 4}], "memory": "file", "to": "host"}"#,
            r#"{"tensors": [{"bytes": 4}], "more": 1}"#,
        ] {
            let error = Description::parse(text).unwrap_err();
            assert!(!error.to_string().is_empty(), "{text}");
        }
    }
}
