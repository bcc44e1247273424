//! Collecting the pieces of files that tensors and views of them are, and reading them in the order of the file.

use std::ops::Range;

use pinlane_driver::sync::Arc;

use super::{
    piece::Piece,
    read::{Scratch, read},
    source::{OpenFile, PAGE},
};
use crate::{
    Result, StridedCopy, Tensor,
    error::Failure,
    landing::{keeps_layout, packing, span_bytes},
    memory::storage::{FileBytes, Place},
};

/// The most pieces that are collected: a view may have one for each element.
const MOST_PIECES: usize = 16 << 10;

/// The bytes of a tensor in a file, in the order in which they land.
#[derive(Debug)]
pub(crate) struct FileEnd {
    file: Arc<OpenFile>,
    /// Where they begin; where they have gaps, where the tensor's storage does.
    at: u64,
    /// For a view with gaps, what it is made of.
    strided: Option<Box<StridedCopy>>,
    bytes: usize,
    /// The tensor's number in its tree.
    leaf: u32,
}

impl FileEnd {
    /// The bytes of `tensor`, which lies in `source`; with `packed`, in the order of a contiguous tensor.
    pub(crate) fn new(tensor: &Tensor, source: &FileBytes, leaf: usize, packed: bool) -> Result<Self> {
        let strided = if packed || !keeps_layout(tensor) {
            packing(tensor)?.1
        } else {
            None
        };
        let span = span_bytes(tensor)?;
        Ok(Self {
            file: Arc::clone(&source.file),
            at: match &strided {
                Some(_) => source.offset,
                None => source.offset + span.start as u64,
            },
            bytes: strided.as_ref().map_or(span.len(), StridedCopy::bytes),
            strided: strided.map(Box::new),
            leaf: leaf as u32,
        })
    }

    /// How many there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How far into a page of the file they begin; 0 where they have gaps.
    pub(crate) fn page_offset(&self) -> u16 {
        match self.strided {
            Some(_) => 0,
            None => (self.at % PAGE) as u16,
        }
    }
}

/// Puts tensors that lie in files in the order in which they lie there, so that neighbours share chunks; behind all others.
pub(crate) fn order_by_file(members: &mut [(usize, &Tensor)]) {
    let place = |&(_, tensor): &(usize, &Tensor)| match tensor.storage().place() {
        Place::File(source) => Some((source.file.number(), source.offset)),
        Place::Host(_) | Place::Device(_) => None,
    };
    if !members.is_sorted_by_key(place) {
        members.sort_by_key(place);
    }
}

/// Reads ranges of tensors to memory. What it was given is read when it is [finished](Self::finish), or before.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    scratch: Scratch,
    file: Option<Arc<OpenFile>>,
    pieces: Vec<Piece>,
}

impl Reading {
    /// Has the bytes `range` of `end` read to `place` on.
    ///
    /// # Safety
    ///
    /// Until [`finish`](Self::finish) has returned, `range.len()` bytes from `place` on are initialised, can be written, and
    /// nobody else touches them. After an error the reading is finished.
    pub(crate) unsafe fn push(
        &mut self,
        end: &FileEnd,
        range: Range<usize>,
        place: *mut u8,
    ) -> Result<(), Failure> {
        if !self
            .file
            .as_ref()
            .is_some_and(|file| Arc::ptr_eq(file, &end.file))
        {
            // SAFETY: the promises of earlier calls.
            unsafe { self.read()? };
            self.file = Some(Arc::clone(&end.file));
        }
        match &end.strided {
            None => {
                // SAFETY: the promises of earlier calls, and of this one.
                unsafe { self.push_piece(end, range.start, place, range.len()) }
            }
            Some(copy) => {
                let mut packed = 0;
                for run in copy.runs(range) {
                    // SAFETY: as above; the runs add up to the range.
                    unsafe { self.push_piece(end, run.start, place.add(packed), run.len())? };
                    packed += run.len();
                }
                Ok(())
            }
        }
    }

    /// # Safety
    ///
    /// As for [`push`](Self::push).
    unsafe fn push_piece(
        &mut self,
        end: &FileEnd,
        offset: usize,
        place: *mut u8,
        bytes: usize,
    ) -> Result<(), Failure> {
        if bytes == 0 {
            return Ok(());
        }
        if self.pieces.len() == MOST_PIECES {
            // SAFETY: the promises of earlier calls.
            unsafe { self.read()? };
        }
        self.pieces.push(Piece {
            at: end.at + offset as u64,
            place,
            bytes,
            leaf: end.leaf,
        });
        Ok(())
    }

    /// Reads what is left. Nothing is kept of the files afterwards.
    ///
    /// # Safety
    ///
    /// The promises of [`push`](Self::push).
    pub(crate) unsafe fn finish(&mut self) -> Result<(), Failure> {
        // SAFETY: the promises of earlier calls.
        let read = unsafe { self.read() };
        self.file = None;
        read
    }

    /// # Safety
    ///
    /// The promises of [`push`](Self::push).
    unsafe fn read(&mut self) -> Result<(), Failure> {
        if !self.pieces.is_sorted_by_key(|piece| piece.at) {
            self.pieces.sort_unstable_by_key(|piece| piece.at);
        }
        let read = match &self.file {
            // SAFETY: every place is good by the promise it was pushed with.
            Some(file) => unsafe { read(file, &self.pieces, &mut self.scratch) },
            None => Ok(()),
        };
        self.pieces.clear();
        if read.is_err() {
            self.file = None;
        }
        read
    }
}
