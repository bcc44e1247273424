//! Copying large ranges within host memory: between tensors and slots.
//!
//! One core reads memory no faster than it keeps lines in flight, and the processor's prefetchers follow each 4 KiB page by
//! itself. So several pages are copied side by side, a piece of each in turn. On an H200's host, six threads keep the link
//! busy this way where memcpy takes eight, and each byte costs a sixth less of a processor's time.
//!
//! Stores go through the caches, or past them ([`Stores::Streamed`]). Those past them do not read what they overwrite: better
//! where that was last in another core's cache, or in none, and nobody reads the copy soon; worse where a slot is still in
//! a cache, from which the link reads it too.

/// How bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stores {
    /// As usual.
    Cached,
    /// Past the caches. What is written is visible to a device, and to who takes a lock, after [`fence`].
    Streamed,
}

/// Copies `bytes` bytes from `from` to `to`.
///
/// # Safety
///
/// `from` is good for reads and `to` for writes of `bytes` bytes, and they are apart.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize, stores: Stores) {
    #[cfg(target_arch = "x86_64")]
    if bytes >= x86::worth_it(stores) {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512; the rest is the caller's promise.
            return unsafe { x86::avx512::copy(from, to, bytes, stores) };
        }
        if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: the processor has AVX; the rest is the caller's promise.
            return unsafe { x86::avx::copy(from, to, bytes, stores) };
        }
    }
    let _ = stores;
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) }
}

/// Orders what [`copy`] streamed on this thread before whatever the thread does next. Non-temporal stores are not ordered by
/// themselves: neither by the call that starts a device's copy nor by a lock that is let go.
pub(crate) fn fence(stores: Stores) {
    #[cfg(target_arch = "x86_64")]
    if stores == Stores::Streamed {
        // SAFETY: every x86-64 processor has SSE.
        unsafe { std::arch::x86_64::_mm_sfence() };
    }
    let _ = stores;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    /// What the prefetchers follow by itself.
    const PAGE: usize = 4096;
    /// How many pages are copied side by side. Four are slower, sixteen no better.
    const PAGES: usize = 8;
    /// A block of them.
    const BLOCK: usize = PAGES * PAGE;
    /// What is copied of a page at a time: two cache lines, so that write-combining buffers go out whole.
    const PIECE: usize = 128;

    /// What it takes to be better than memcpy: a block, or, past the caches, pieces that are more than head and tail.
    pub(super) fn worth_it(stores: super::Stores) -> usize {
        match stores {
            super::Stores::Cached => BLOCK + PIECE,
            super::Stores::Streamed => 8 * PIECE,
        }
    }

    /// The same with vectors of one width.
    macro_rules! with_vectors {
        ($name:ident, $feature:literal, $vector:ident, $load:ident, $store:ident, $stream:ident) => {
            pub(super) mod $name {
                use std::{
                    arch::x86_64::{$load, $store, $stream, $vector},
                    ptr::copy_nonoverlapping,
                };

                use super::{super::Stores, BLOCK, PAGE, PAGES, PIECE};

                const VECTORS: usize = PIECE / size_of::<$vector>();

                /// # Safety
                ///
                /// As for [`copy`](super::super::copy); the processor has the vectors.
                #[target_feature(enable = $feature)]
                pub(in super::super) unsafe fn copy(
                    from: *const u8,
                    to: *mut u8,
                    bytes: usize,
                    stores: Stores,
                ) {
                    let head = to.align_offset(PIECE).min(bytes);
                    let blocks_end = head + (bytes - head) / BLOCK * BLOCK;
                    let pieces_end = match stores {
                        Stores::Cached => blocks_end,
                        Stores::Streamed => head + (bytes - head) / PIECE * PIECE,
                    };
                    // SAFETY: head, blocks, pieces and tail are the range that the caller gave; `to` is aligned from `head`
                    // on.
                    unsafe {
                        copy_nonoverlapping(from, to, head);
                        for at in (head..blocks_end).step_by(BLOCK) {
                            match stores {
                                Stores::Cached => block::<false>(from.add(at), to.add(at)),
                                Stores::Streamed => block::<true>(from.add(at), to.add(at)),
                            }
                        }
                        for at in (blocks_end..pieces_end).step_by(PIECE) {
                            piece::<true>(from.add(at).cast(), to.add(at).cast());
                        }
                        copy_nonoverlapping(from.add(pieces_end), to.add(pieces_end), bytes - pieces_end);
                    }
                }

                /// # Safety
                ///
                /// A block can be read at `from` and written at `to`, which is aligned to a piece; the processor has the
                /// vectors.
                #[target_feature(enable = $feature)]
                #[inline]
                unsafe fn block<const STREAMED: bool>(from: *const u8, to: *mut u8) {
                    for within in (0..PAGE).step_by(PIECE) {
                        for page in 0..PAGES {
                            let at = page * PAGE + within;
                            // SAFETY: inside the block.
                            unsafe { piece::<STREAMED>(from.add(at).cast(), to.add(at).cast()) };
                        }
                    }
                }

                /// # Safety
                ///
                /// A piece can be read at `from` and written at `to`, which is aligned to one; the processor has the vectors.
                #[target_feature(enable = $feature)]
                #[inline]
                unsafe fn piece<const STREAMED: bool>(from: *const $vector, to: *mut $vector) {
                    for index in 0..VECTORS {
                        // SAFETY: inside the piece.
                        unsafe {
                            let vector = $load(from.add(index));
                            if STREAMED {
                                $stream(to.add(index), vector);
                            } else {
                                $store(to.add(index), vector);
                            }
                        }
                    }
                }
            }
        };
    }

    with_vectors!(
        avx,
        "avx",
        __m256i,
        _mm256_loadu_si256,
        _mm256_store_si256,
        _mm256_stream_si256
    );
    with_vectors!(
        avx512,
        "avx512f",
        __m512i,
        _mm512_loadu_si512,
        _mm512_store_si512,
        _mm512_stream_si512
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way to copy, and whether this processor has it.
    type Way = (&'static str, bool, unsafe fn(*const u8, *mut u8, usize, Stores));

    fn ways() -> Vec<Way> {
        #[cfg(target_arch = "x86_64")]
        return vec![
            ("the best there is", true, copy),
            ("avx", std::arch::is_x86_feature_detected!("avx"), x86::avx::copy),
            (
                "avx512",
                std::arch::is_x86_feature_detected!("avx512f"),
                x86::avx512::copy,
            ),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        vec![("the best there is", true, copy as _)]
    }

    #[test]
    fn every_byte_is_copied_and_none_beside_them_whatever_the_ends() {
        const ROOM: usize = 110_000;
        let source: Vec<u8> = (0..ROOM as u32)
            .map(|index| (index * 7 + index / 256) as u8)
            .collect();
        let has = |&(_, has, _): &Way| has;
        for (name, _, copy) in ways().into_iter().filter(has) {
            for stores in [Stores::Cached, Stores::Streamed] {
                for (start, place) in [(0, 0), (1, 0), (0, 1), (63, 127), (4097, 65)] {
                    for bytes in [
                        0, 1, 1024, 32_767, 32_768, 32_896, 33_000, 65_536, 70_001, 100_000,
                    ] {
                        let mut landed = vec![0xEE; ROOM];
                        // SAFETY: both ranges are inside their vectors, which are apart; the processor has what it takes.
                        unsafe {
                            copy(
                                source.as_ptr().add(start),
                                landed.as_mut_ptr().add(place),
                                bytes,
                                stores,
                            );
                        }
                        fence(stores);
                        let case = format!("{name} {stores:?} {start} {place} {bytes}");
                        assert!(
                            landed[place..place + bytes] == source[start..start + bytes],
                            "{case}"
                        );
                        let mut beside = landed[..place].iter().chain(&landed[place + bytes..]);
                        assert!(beside.all(|&byte| byte == 0xEE), "{case}");
                    }
                }
            }
        }
    }
}
