//! Writing pieces of memory to a file with few calls.
//!
//! Pieces that follow each other in the file are written together. Past the page cache whole pages are written, straight from
//! where they lie in their pages of memory as in those of the file, else by way of a *bounce*; the ends of such a run, which
//! share their pages with others, go through the page cache, where the kernel puts them together.

use std::{
    io::{ErrorKind, IoSlice},
    mem, slice,
};

use pinlane_driver::sync::Arc;

use super::{
    piece::{Bounce, Broken, Piece},
    sink::{OpenSink, WriteAt},
    source::PAGE,
};
use crate::{Result, error::Failure};

/// The most pieces of memory that one call takes.
const MOST_VECTORS: usize = 1024;
/// A piece that is shorter than this is written through the page cache, and without a mapping.
const SHORT: usize = 64 << 10;

/// Where the bytes of a tensor go in a file.
#[derive(Debug)]
pub(crate) struct SinkEnd {
    pub(crate) file: Arc<OpenSink>,
    /// Where they begin.
    pub(crate) at: u64,
    /// The tensor's number in its tree.
    pub(crate) leaf: u32,
}

/// Writes pieces of memory to files. What it was given is written when it is [finished](Self::finish), or before.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    file: Option<Arc<OpenSink>>,
    pieces: Vec<Piece>,
    bounce: Bounce,
}

impl Writing {
    /// Has `bytes` bytes from `place` on written to where those of `end` from `offset` on go.
    ///
    /// # Safety
    ///
    /// Until [`finish`](Self::finish) has returned, the memory is initialised, can be read, and nobody writes it. After an
    /// error the writing is finished.
    pub(crate) unsafe fn push(
        &mut self,
        end: &SinkEnd,
        offset: u64,
        place: *const u8,
        bytes: usize,
    ) -> Result<(), Failure> {
        if !self
            .file
            .as_ref()
            .is_some_and(|file| Arc::ptr_eq(file, &end.file))
        {
            // SAFETY: the promises of earlier calls.
            unsafe { self.write()? };
            self.file = Some(Arc::clone(&end.file));
        }
        let at = end.at + offset;
        if bytes > 0 {
            self.pieces.push(Piece {
                at,
                place: place.cast_mut(),
                bytes,
                leaf: end.leaf,
            });
        }
        Ok(())
    }

    /// Writes what is left. Nothing is kept of the files afterwards.
    ///
    /// # Safety
    ///
    /// The promises of [`push`](Self::push).
    pub(crate) unsafe fn finish(&mut self) -> Result<(), Failure> {
        // SAFETY: the promises of earlier calls.
        let written = unsafe { self.write() };
        self.file = None;
        written
    }

    /// # Safety
    ///
    /// The promises of [`push`](Self::push).
    unsafe fn write(&mut self) -> Result<(), Failure> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let mut pieces = mem::take(&mut self.pieces);
        if !pieces.is_sorted_by_key(|piece| piece.at) {
            pieces.sort_unstable_by_key(|piece| piece.at);
        }
        let written = pieces
            .chunk_by(|a, b| a.end() == b.at)
            // SAFETY: every piece is good by the promise it was pushed with.
            .try_for_each(|run| unsafe { self.write_run(&file, run) });
        pieces.clear();
        self.pieces = pieces;
        written
    }

    /// Writes pieces that follow each other in the file.
    ///
    /// # Safety
    ///
    /// The promises of [`push`](Self::push).
    unsafe fn write_run(&mut self, file: &OpenSink, run: &[Piece]) -> Result<(), Failure> {
        let is_short = |piece: &Piece| piece.bytes < SHORT;
        for some in run.chunk_by(|a, b| is_short(a) && is_short(b)) {
            if let (Some(direct), [piece]) = (file.direct(), some)
                && !is_short(piece)
            {
                // SAFETY: the caller's promise.
                match unsafe { self.write_past_cache(direct, file.writer(), *piece) } {
                    Err(broken) if broken.is_refusal() => {
                        tracing::debug!(error = %broken.source, "writing past the page cache was refused");
                        file.give_up_direct();
                    }
                    written => {
                        written.map_err(|broken| failure(file, some, broken))?;
                        continue;
                    }
                }
            }
            if let (Some(mapped), [piece]) = (file.mapped(), some)
                && !is_short(piece)
            {
                // SAFETY: the caller's promise.
                match unsafe { write_all(mapped, some) } {
                    Ok(()) => continue,
                    // Writing it again tells what is wrong, if it is not the way.
                    Err(broken) => {
                        tracing::debug!(error = %broken.source, "writing by way of a mapping was refused");
                        file.give_up_mapped();
                    }
                }
            }
            for some in some.chunks(MOST_VECTORS) {
                // SAFETY: the caller's promise.
                unsafe { write_all(file.writer(), some) }.map_err(|broken| failure(file, some, broken))?;
            }
        }
        Ok(())
    }

    /// Writes the whole pages of a piece past the page cache, and its ends through it.
    ///
    /// # Safety
    ///
    /// The promises of [`push`](Self::push).
    unsafe fn write_past_cache(
        &mut self,
        direct: &dyn WriteAt,
        cached: &dyn WriteAt,
        piece: Piece,
    ) -> Result<(), Broken> {
        let pages = piece.at.next_multiple_of(PAGE)..piece.end() / PAGE * PAGE;
        let ends = [piece.at..pages.start, pages.end..piece.end()];
        for end in ends.iter().filter_map(|range| piece.within(range)) {
            // SAFETY: the caller's promise.
            unsafe { write_all(cached, &[end])? };
        }
        if piece.is_congruent(PAGE) {
            let whole: Vec<_> = piece.within(&pages).into_iter().collect();
            // SAFETY: the caller's promise.
            return unsafe { write_all(direct, &whole) };
        }
        for start in pages.clone().step_by(Bounce::BYTES) {
            let Some(part) = piece.within(&(start..pages.end.min(start + Bounce::BYTES as u64))) else {
                continue;
            };
            let place = self.bounce.bytes(start)?.as_mut_ptr();
            // SAFETY: the caller's promise; the bounce is ours, no shorter than a part, and nobody changes it meanwhile.
            unsafe {
                place.copy_from_nonoverlapping(part.place, part.bytes);
                write_all(direct, &[Piece { place, ..part }])?;
            }
        }
        Ok(())
    }
}

/// The error for whoever's bytes go to that place.
fn failure(file: &OpenSink, pieces: &[Piece], broken: Broken) -> Failure {
    let piece = broken.whose(pieces);
    let doing = format!("writing {} bytes at offset {} of", piece.bytes, piece.at);
    Failure::of(piece.leaf as usize, file.error(doing, broken.source))
}

/// Writes pieces that follow each other in the file, at most as many as one call takes.
///
/// # Safety
///
/// Their memory is initialised, can be read, and nobody writes it.
unsafe fn write_all(writer: &dyn WriteAt, pieces: &[Piece]) -> Result<(), Broken> {
    let mut from: Vec<_> = pieces
        .iter()
        // SAFETY: the caller's promise.
        .map(|piece| IoSlice::new(unsafe { slice::from_raw_parts(piece.place, piece.bytes) }))
        .collect();
    let mut from = &mut from[..];
    let mut at = pieces.first().map_or(0, |piece| piece.at);
    while !from.is_empty() {
        match writer.write_at(from, at) {
            Ok(0) => {
                let source = ErrorKind::WriteZero.into();
                return Err(Broken { at, source });
            }
            Ok(bytes) => {
                at += bytes as u64;
                IoSlice::advance_slices(&mut from, bytes);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(Broken { at, source }),
        }
    }
    Ok(())
}
