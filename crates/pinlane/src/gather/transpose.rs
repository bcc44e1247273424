//! A matrix out of lines of one direction into lines of the other: what a strided copy does where an element's
//! neighbours in storage and its neighbours in the packed bytes are not the same.

use std::{mem::MaybeUninit, ptr};

/// The bytes that memory hands over at a time.
pub(super) const CACHE_LINE: usize = 64;

/// How far a few lines are walked before the next ones, in bytes.
const PAGE: usize = 4096;

/// The edge of a tile in bytes. Two lines, since processors fetch lines in pairs.
const TILE: usize = 2 * CACHE_LINE;

/// With fewer lines than this at one end, all of them stay cached while the other end is walked: no tiles needed.
const FEW: usize = 8;

/// Room for a tile of units of one byte, the largest.
#[repr(align(64))]
struct Tile([MaybeUninit<u8>; TILE * TILE]);

/// One end of a transposition: `count` lines, each contiguous, `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Lines<P> {
    pub(super) first: P,
    pub(super) stride: usize,
    pub(super) count: usize,
}

impl Lines<*mut u8> {
    pub(super) fn as_source(self) -> Lines<*const u8> {
        Lines {
            first: self.first,
            stride: self.stride,
            count: self.count,
        }
    }
}

/// Copies unit `j` of source line `i` to unit `i` of destination line `j`.
///
/// # Safety
///
/// Each source line has a unit for each destination line and the other way round, all in bounds; the ends do not
/// overlap.
pub(super) unsafe fn transpose<const UNIT: usize>(src: Lines<*const u8>, dst: Lines<*mut u8>) {
    let edge = TILE / UNIT;
    let (src_edge, dst_edge) = if src.count < FEW {
        (src.count, PAGE / UNIT)
    } else if dst.count < FEW {
        (PAGE / UNIT, dst.count)
    } else {
        (edge, edge)
    };
    for d in (0..dst.count).step_by(dst_edge) {
        for s in (0..src.count).step_by(src_edge) {
            // SAFETY: the part is one of what the caller promised, and a tile where it is given as one.
            unsafe {
                let src = Lines {
                    first: src.first.add(s * src.stride + d * UNIT),
                    stride: src.stride,
                    count: src_edge.min(src.count - s),
                };
                let dst = Lines {
                    first: dst.first.add(d * dst.stride + s * UNIT),
                    stride: dst.stride,
                    count: dst_edge.min(dst.count - d),
                };
                if src.count < FEW {
                    for s in 0..src.count {
                        for d in 0..dst.count {
                            transpose_unit::<UNIT>(src, dst, s, d);
                        }
                    }
                } else if dst.count < FEW {
                    for d in 0..dst.count {
                        for s in 0..src.count {
                            transpose_unit::<UNIT>(src, dst, s, d);
                        }
                    }
                } else if src.count == edge && dst.count == edge {
                    // The same as below, with counts that the compiler knows.
                    transpose_tile::<UNIT>(Lines { count: edge, ..src }, Lines { count: edge, ..dst });
                } else {
                    transpose_tile::<UNIT>(src, dst);
                }
            }
        }
    }
}

/// Copies unit `d` of source line `s` to where it belongs.
///
/// # Safety
///
/// It is in bounds at both ends.
#[inline(always)]
unsafe fn transpose_unit<const UNIT: usize>(src: Lines<*const u8>, dst: Lines<*mut u8>, s: usize, d: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let from = src.first.add(s * src.stride + d * UNIT);
        ptr::copy_nonoverlapping(from, dst.first.add(d * dst.stride + s * UNIT), UNIT);
    }
}

/// Transposes at most a tile by way of a buffer. So both ends are touched in whole cache lines, one line after another,
/// and it does not matter that lines a power of two apart compete for the same place in the cache.
///
/// # Safety
///
/// As for [`transpose`], with at most `TILE / UNIT` lines at each end.
#[inline(always)]
unsafe fn transpose_tile<const UNIT: usize>(src: Lines<*const u8>, dst: Lines<*mut u8>) {
    let mut tile = Tile([MaybeUninit::uninit(); TILE * TILE]);
    let buffered = Lines {
        first: tile.0.as_mut_ptr().cast::<u8>(),
        stride: TILE,
        count: src.count,
    };
    // SAFETY: the caller's promise; the buffer has room for `TILE / UNIT` lines of `TILE` bytes, and of it only what
    // the first loop has written is read.
    unsafe {
        for s in 0..src.count {
            let line = buffered.first.add(s * TILE);
            ptr::copy_nonoverlapping(src.first.add(s * src.stride), line, dst.count * UNIT);
        }
        for d in 0..dst.count {
            for s in 0..src.count {
                transpose_unit::<UNIT>(buffered.as_source(), dst, s, d);
            }
        }
    }
}
