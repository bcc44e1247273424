//! Reading many pieces of a file to many places, with few calls.
//!
//! Pieces that are near each other in the file are read together. What is in the page cache is read by vectored calls, which
//! put each piece in its place and the gaps nowhere; pieces too short for that go through a *bounce*: one long read, and a
//! copy of each. Past the page cache whole pages are read: the inside of a long piece straight to its place, where that lies
//! in its page as the piece does in the file; its ends, and everything else, through the bounce.

use std::{
    io::{ErrorKind, IoSliceMut},
    mem,
    ops::Range,
    slice,
};

use super::{
    piece::{Bounce, Broken, Piece},
    source::{OpenFile, PAGE, ReadAt, Way},
};
use crate::{Result, error::Failure};

/// What lies no further apart is read together, gap and all: in the page cache a call takes as long as copying so much; on
/// a disk a read does.
const GAP_CACHED: u64 = 4 << 10;
const GAP_ON_DISK: u64 = 64 << 10;
/// The most of a file that one decision how to read it is for.
const LONGEST_STRETCH: u64 = 4 << 20;
/// The most pieces of memory that one call takes.
const MOST_VECTORS: usize = 1024;
/// Pieces that are shorter than this on average are copied out of the bounce rather than named to the kernel one by one.
const SHORT: u64 = 512;
/// Pieces past the page cache that are shorter than this go through the bounce.
const SHORT_DIRECT: u64 = 64 << 10;

/// What one reader uses again and again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bounce: Bounce,
    /// Pieces that are neighbours in the file and in memory, as one.
    merged: Vec<Piece>,
}

/// Reads every piece. They ascend in the file, but may overlap there.
///
/// # Safety
///
/// The places are initialised, can be written, lie apart, and nobody else touches them meanwhile.
pub(crate) unsafe fn read(file: &OpenFile, pieces: &[Piece], scratch: &mut Scratch) -> Result<(), Failure> {
    debug_assert!(pieces.is_sorted_by_key(|piece| piece.at));
    for stretch in stretches(pieces, GAP_ON_DISK, LONGEST_STRETCH) {
        // SAFETY: the caller's promise.
        unsafe { read_stretch(file, stretch, scratch) }.map_err(|broken| failure(file, stretch, broken))?;
    }
    Ok(())
}

/// The error for whoever's bytes are at that place.
fn failure(file: &OpenFile, pieces: &[Piece], broken: Broken) -> Failure {
    let piece = broken.whose(pieces);
    let source = match broken.source.kind() {
        ErrorKind::UnexpectedEof => file.cut_off(),
        _ => broken.source,
    };
    let doing = format!("reading {} bytes at offset {} of", piece.bytes, piece.at);
    Failure::of(piece.leaf as usize, file.error(doing, source))
}

/// Cuts pieces into such as have no longer gap than `gap`, and, if there are several, reach no further than `longest`.
fn stretches(pieces: &[Piece], gap: u64, longest: u64) -> impl Iterator<Item = &[Piece]> {
    let mut rest = pieces;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut end = first.end();
        let further = rest[1..].iter().take_while(|piece| {
            let near = piece.at.saturating_sub(end) <= gap && piece.end().max(end) - first.at <= longest;
            if near {
                end = end.max(piece.end());
            }
            near
        });
        let count = 1 + further.count();
        let (stretch, others) = rest.split_at(count);
        rest = others;
        Some(stretch)
    })
}

/// The part of the file from the first to the last byte of pieces that ascend.
fn reach(pieces: &[Piece]) -> Range<u64> {
    let start = pieces.first().map_or(0, |piece| piece.at);
    let end = pieces.iter().map(Piece::end).max().unwrap_or(start);
    start..end
}

/// # Safety
///
/// As for [`read`].
unsafe fn read_stretch(file: &OpenFile, pieces: &[Piece], scratch: &mut Scratch) -> Result<(), Broken> {
    let range = reach(pieces);
    let (reader, gap) = match file.way(&range) {
        Way::Cached(reader) => (reader, GAP_CACHED),
        Way::Buffered(reader) => {
            // At once, instead of by and by as the kernel sees a pattern in what the lanes ask for.
            reader.prepare(range);
            (reader, GAP_ON_DISK)
        }
        Way::Direct(direct) => {
            // SAFETY: the caller's promise.
            match unsafe { read_direct(direct, pieces, scratch) } {
                Err(broken) if broken.is_refusal() => {
                    tracing::debug!(path = %file.path().display(), error = %broken.source, "reading past the page cache was refused");
                    file.give_up_direct();
                    // SAFETY: as above. This time through the page cache.
                    return unsafe { read_stretch(file, pieces, scratch) };
                }
                read => return read,
            }
        }
    };
    for near in stretches(pieces, gap, LONGEST_STRETCH) {
        // SAFETY: the caller's promise.
        unsafe { read_through_cache(reader, near, scratch)? };
    }
    Ok(())
}

/// # Safety
///
/// As for [`read`].
unsafe fn read_through_cache(
    reader: &dyn ReadAt,
    pieces: &[Piece],
    scratch: &mut Scratch,
) -> Result<(), Broken> {
    let mut merged = mem::take(&mut scratch.merged);
    let overlap = merge(pieces, &mut merged);
    let range = reach(pieces);
    let is_long = (range.end - range.start) / merged.len() as u64 >= SHORT;
    // SAFETY: the caller's promise; what is merged is the same bytes.
    let read = unsafe {
        if merged.len() == 1 || (is_long && !overlap) {
            read_vectored(reader, &merged, scratch)
        } else {
            read_bounced(reader, &merged, 1, scratch)
        }
    };
    scratch.merged = merged;
    read
}

/// Makes one of pieces that follow each other in the file and in memory; says whether some overlap in the file.
fn merge(pieces: &[Piece], merged: &mut Vec<Piece>) -> bool {
    merged.clear();
    let mut overlap = false;
    for &piece in pieces {
        match merged.last_mut() {
            Some(last) if last.end() == piece.at && last.place.wrapping_add(last.bytes) == piece.place => {
                last.bytes += piece.bytes;
            }
            Some(last) => {
                overlap |= piece.at < last.end();
                merged.push(piece);
            }
            None => merged.push(piece),
        }
    }
    overlap
}

/// Reads pieces that do not overlap, each to its place; what lies between them to the bounce.
///
/// # Safety
///
/// As for [`read`].
unsafe fn read_vectored(reader: &dyn ReadAt, pieces: &[Piece], scratch: &mut Scratch) -> Result<(), Broken> {
    let mut rest = pieces;
    while let Some(first) = rest.first() {
        let mut nowhere: &mut [u8] = match rest.len() {
            1 => &mut [],
            _ => scratch.bounce.bytes(first.at)?,
        };
        let mut into = Vec::with_capacity((2 * rest.len()).min(MOST_VECTORS));
        let mut end = first.at;
        let mut taken = 0;
        for piece in rest {
            let gap = (piece.at - end) as usize;
            if into.len() + 2 > MOST_VECTORS || gap > nowhere.len() {
                break;
            }
            if gap > 0 {
                let (skipped, left) = nowhere.split_at_mut(gap);
                nowhere = left;
                into.push(IoSliceMut::new(skipped));
            }
            // SAFETY: initialised and this caller's alone, by the promise.
            into.push(IoSliceMut::new(unsafe {
                slice::from_raw_parts_mut(piece.place, piece.bytes)
            }));
            end = piece.end();
            taken += 1;
        }
        read_full(reader, &mut into, first.at)?;
        rest = &rest[taken..];
    }
    Ok(())
}

/// Reads pieces, which may overlap, by way of the bounce: from multiples of `alignment` in the file, and to such unless the
/// file ends there.
///
/// # Safety
///
/// As for [`read`].
unsafe fn read_bounced(
    reader: &dyn ReadAt,
    pieces: &[Piece],
    alignment: u64,
    scratch: &mut Scratch,
) -> Result<(), Broken> {
    let mut rest = pieces;
    // Everything before is where it belongs.
    let mut done = 0;
    while let Some(first) = rest.first() {
        if first.end() <= done {
            rest = &rest[1..];
            continue;
        }
        let needed = first.at.max(done);
        let start = needed / alignment * alignment;
        let longest = start + Bounce::BYTES as u64;
        let mut end = needed;
        for piece in rest {
            if piece.at > end.max(needed) + GAP_ON_DISK || piece.at >= longest {
                break;
            }
            end = end.max(piece.end().min(longest));
        }
        let bounce = scratch.bounce.bytes(start)?;
        let room = ((end.next_multiple_of(alignment).min(longest)) - start) as usize;
        read_at_least(reader, &mut bounce[..room], start, (end - start) as usize)?;
        let window = needed..end;
        for part in rest
            .iter()
            .take_while(|piece| piece.at < end)
            .filter_map(|piece| piece.within(&window))
        {
            let from = &bounce[(part.at - start) as usize..][..part.bytes];
            // SAFETY: the place is this caller's alone, by the promise, and the bounce is ours.
            unsafe { part.place.copy_from_nonoverlapping(from.as_ptr(), part.bytes) };
        }
        done = end;
    }
    Ok(())
}

/// Reads pieces past the page cache.
///
/// # Safety
///
/// As for [`read`].
unsafe fn read_direct(direct: &dyn ReadAt, pieces: &[Piece], scratch: &mut Scratch) -> Result<(), Broken> {
    let mut merged = mem::take(&mut scratch.merged);
    merge(pieces, &mut merged);
    let mut edges = Vec::new();
    let read = merged.iter().try_for_each(|piece| {
        let inside = piece.at.next_multiple_of(PAGE)..piece.end() / PAGE * PAGE;
        let congruent = piece.is_congruent(PAGE);
        let Some(inside) = piece
            .within(&inside)
            .filter(|_| congruent && piece.bytes as u64 >= SHORT_DIRECT)
        else {
            edges.push(*piece);
            return Ok(());
        };
        edges.extend(piece.within(&(piece.at..inside.at)));
        edges.extend(piece.within(&(inside.end()..piece.end())));
        // SAFETY: initialised and this caller's alone, by the promise.
        let into = unsafe { slice::from_raw_parts_mut(inside.place, inside.bytes) };
        read_full(direct, &mut [IoSliceMut::new(into)], inside.at)
    });
    scratch.merged = merged;
    read?;
    // The edges of pieces that overlap do not ascend.
    edges.sort_by_key(|piece| piece.at);
    // SAFETY: the caller's promise; the edges are parts of the pieces.
    unsafe { read_bounced(direct, &edges, PAGE, scratch) }
}

/// Fills all of `into` with what lies from `at` on.
fn read_full(reader: &dyn ReadAt, mut into: &mut [IoSliceMut<'_>], mut at: u64) -> Result<(), Broken> {
    while !into.is_empty() {
        let bytes = read_some(reader, into, at)?;
        at += bytes as u64;
        IoSliceMut::advance_slices(&mut into, bytes);
    }
    Ok(())
}

/// Reads from `at` on into `into`, `least` bytes at least.
fn read_at_least(reader: &dyn ReadAt, into: &mut [u8], at: u64, least: usize) -> Result<(), Broken> {
    let mut done = 0;
    while done < least {
        done += read_some(
            reader,
            &mut [IoSliceMut::new(&mut into[done..])],
            at + done as u64,
        )?;
    }
    Ok(())
}

/// Reads one byte or more.
fn read_some(reader: &dyn ReadAt, into: &mut [IoSliceMut<'_>], at: u64) -> Result<usize, Broken> {
    loop {
        match reader.read_at(into, at) {
            Ok(0) => {
                let source = ErrorKind::UnexpectedEof.into();
                return Err(Broken { at, source });
            }
            Ok(bytes) => return Ok(bytes),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(Broken { at, source }),
        }
    }
}
