//! A description that is none, and the part of it that is wrong.

use std::{fmt, ops::Range};

use pinlane::HostEnd;

use super::{MEMORY, name_of};

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

/// Why there can be no such tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Impossible {
    /// Not even one.
    #[error("there is no tensor; give at least one")]
    NoTensor,
    /// A size that ends within a byte.
    #[error("the elements fill no whole number of bytes; give a number of them that does")]
    PartOfAByte,
    /// More than 64 bits count.
    #[error("that is more bytes than can be counted; give fewer tensors, or smaller ones")]
    TooManyBytes,
    /// What comes to the host can't be there.
    #[error(
        "what comes to the host lands in pageable or pinned memory, and not in {}; give one of these, or have it go to the device",
        place(*memory)
    )]
    NothingLands {
        /// In such memory.
        memory: HostEnd,
    },
}

fn place(memory: HostEnd) -> String {
    match memory {
        HostEnd::File => "a file".to_owned(),
        other => format!("{} memory", name_of(&MEMORY, other)),
    }
}
