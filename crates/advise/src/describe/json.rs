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
    Description::new(groups, memory, direction).ok_or_else(|| {
        wrong(
            "there is no tensor, or more bytes than can be counted, or memory in which nothing lands"
                .to_owned(),
        )
    })
}

impl Entry {
    fn group(&self) -> Result<Group, &'static str> {
        let size = match (self.elements, self.dtype.as_deref(), self.bytes) {
            (Some(count), Some(word), None) => Size::Elements {
                count,
                dtype: dtype(word).ok_or("`dtype` is no dtype, such as f32")?,
            },
            (None, None, Some(bytes)) => Size::Bytes(bytes),
            _ => return Err("it has either `elements` and `dtype`, or `bytes`"),
        };
        Group::new(self.count, size).ok_or("it has no tensor, or no whole number of bytes, or too many")
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
