//! A description that is none, and the part of it that is wrong.

use std::{fmt, ops::Range};

/// A description that can't be read, with the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeError {
    text: String,
    /// In bytes, at the borders of characters.
    part: Range<usize>,
    reason: String,
}

impl DescribeError {
    pub(super) fn new(text: &str, part: Range<usize>, reason: impl Into<String>) -> Self {
        Self {
            text: text.to_owned(),
            part,
            reason: reason.into(),
        }
    }

    /// The part that is wrong; empty where something is missing there.
    #[must_use]
    pub fn part(&self) -> Range<usize> {
        self.part.clone()
    }
}

impl fmt::Display for DescribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text[..self.part.start].chars().count();
        let marked = self.text[self.part.clone()].chars().count().max(1);
        write!(
            f,
            "reading the description of tensors: {}\n  {}\n  {:before$}{:^<marked$}",
            self.reason, self.text, "", ""
        )
    }
}

impl std::error::Error for DescribeError {}
