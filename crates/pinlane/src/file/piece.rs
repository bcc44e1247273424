//! What reading and writing have in common: runs of a file with their memory, a bounce, and why it did not work.

use std::{
    io::{self, ErrorKind},
    ops::Range,
    slice,
};

use crate::memory::mapping::Mapping;

/// A run of a file's bytes, and the memory that they are read to or written from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Where it begins in the file.
    pub(crate) at: u64,
    pub(crate) place: *mut u8,
    /// How long it is; not 0.
    pub(crate) bytes: usize,
    /// The number in its tree of the tensor whose bytes they are, for errors.
    pub(crate) leaf: u32,
}

// SAFETY: a piece only names its memory; who reads to it or writes from it promises that it is theirs.
unsafe impl Send for Piece {}

impl Piece {
    /// Where it ends in the file.
    pub(crate) fn end(&self) -> u64 {
        self.at + self.bytes as u64
    }

    /// The part of it in this range of the file, if there is any.
    pub(crate) fn within(&self, range: &Range<u64>) -> Option<Self> {
        let (start, end) = (self.at.max(range.start), self.end().min(range.end));
        (start < end).then(|| Self {
            at: start,
            place: self.place.wrapping_add((start - self.at) as usize),
            bytes: (end - start) as usize,
            leaf: self.leaf,
        })
    }

    /// Whether it begins as far into a page of memory as into one of the file.
    pub(crate) fn is_congruent(&self, page: u64) -> bool {
        self.place.addr() as u64 % page == self.at % page
    }
}

/// Why bytes could not be read or written from some place of a file on.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) at: u64,
    pub(crate) source: io::Error,
}

impl Broken {
    /// Whose bytes are at that place, of pieces that ascend, and are some.
    pub(crate) fn whose<'a>(&self, pieces: &'a [Piece]) -> &'a Piece {
        let found = pieces.iter().find(|piece| self.at < piece.end());
        found.unwrap_or(&pieces[pieces.len() - 1])
    }

    /// Whether the system says by this that it does not go past the page cache, rather than that it can't do this.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self.source.kind(),
            ErrorKind::InvalidInput | ErrorKind::Unsupported
        )
    }
}

/// Memory of whole pages for bytes on their way. It is made at its first use.
#[derive(Debug, Default)]
pub(crate) struct Bounce(Option<Mapping>);

impl Bounce {
    /// How long it is, in bytes.
    pub(crate) const BYTES: usize = 1 << 20;

    /// All of it, for what is to be read or written at `at`.
    pub(crate) fn bytes(&mut self, at: u64) -> Result<&mut [u8], Broken> {
        let mapping = match &mut self.0 {
            Some(mapping) => mapping,
            none => none.insert(Mapping::reserve(Self::BYTES).map_err(|error| Broken {
                at,
                source: io::Error::new(ErrorKind::OutOfMemory, error),
            })?),
        };
        // SAFETY: the mapping reads as zeros until it is written, is as long, and is borrowed exclusively.
        Ok(unsafe { slice::from_raw_parts_mut(mapping.ptr().as_ptr(), Self::BYTES) })
    }
}
