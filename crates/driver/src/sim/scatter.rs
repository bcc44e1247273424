//! Scattered copies: many pieces as one piece of work of the compute engine, which finds them in a table.
//!
//! The table lies in the caller's pinned memory, and is read when the work runs, as on hardware: a caller who uses that
//! memory for something else too early is found out.

use std::ptr::NonNull;

use super::{
    engine::{Engine, PARTS},
    route::Route,
    state::{Core, State, error},
    work::{End, Home, Work},
};
use crate::{
    Address, ErrorKind, MemCopy, Result, ScatterTable,
    sync::{Duration, Instant},
};

/// Destination, source, bytes.
type Entry = [u64; 3];

pub(super) const TABLE: ScatterTable = ScatterTable {
    entry_bytes: size_of::<Entry>(),
    piece_bytes: usize::MAX,
};

/// One piece of a scattered copy.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) dst: End,
    pub(super) src: End,
    pub(super) bytes: usize,
}

/// Bytes of the table of `pieces`.
pub(super) fn table_bytes(pieces: &[Piece]) -> usize {
    pieces.len() * size_of::<Entry>()
}

impl Piece {
    fn entry(&self) -> Entry {
        [
            self.dst.address() as u64,
            self.src.address() as u64,
            self.bytes as u64,
        ]
    }
}

impl State {
    /// Finds the pieces of `copies` and writes their table; nothing where there are no bytes to move.
    ///
    /// # Safety
    ///
    /// What is pinned of the table's memory is the caller's to write.
    pub(super) unsafe fn scatter(
        &self,
        device: usize,
        copies: &[MemCopy],
        table: NonNull<u8>,
    ) -> Result<Option<Work>> {
        let mut pieces = Vec::with_capacity(copies.len());
        for copy in copies {
            pieces.extend(self.piece(device, copy)?);
        }
        if pieces.is_empty() {
            return Ok(None);
        }
        let table_bytes = table_bytes(&pieces);
        let start = table.addr().get();
        if !start.is_multiple_of(ScatterTable::ALIGNMENT) || !self.pinned.covers(start, table_bytes) {
            let message = format!(
                "a table of {table_bytes} bytes at {table:p}: it needs pinned memory, aligned to {}",
                ScatterTable::ALIGNMENT
            );
            return Err(error(device, ErrorKind::InvalidArgument, message));
        }
        for (index, piece) in pieces.iter().enumerate() {
            // SAFETY: inside the pinned range that was just checked, aligned, and the caller's to write.
            unsafe { table.cast::<Entry>().add(index).write(piece.entry()) };
        }
        Ok(Some(Work::Scatter {
            table: End {
                ptr: table.as_ptr(),
                home: Home::Pinned,
            },
            pieces,
        }))
    }

    fn piece(&self, device: usize, copy: &MemCopy) -> Result<Option<Piece>> {
        let refuse = |why: &str| {
            let message = format!("a piece of {} bytes {why}; copy it by itself", copy.bytes);
            Err(error(device, ErrorKind::InvalidArgument, message))
        };
        if [copy.dst, copy.src]
            .iter()
            .any(|end| matches!(end, Address::Peer(..)))
        {
            return refuse("is to cross to another device");
        }
        match self.route(device, copy)? {
            Route::Nothing => Ok(None),
            Route::Asynchronous(Work::Copy { dst, src, bytes, .. }) => Ok(Some(Piece { dst, src, bytes })),
            _ => refuse("has a pageable end"),
        }
    }
}

impl Engine {
    /// Moves the pieces, at the link's rate where it has one; if so, says when they were due.
    pub(super) fn scatter(
        &self,
        core: &Core,
        start: Instant,
        table: &End,
        pieces: &[Piece],
    ) -> Result<Option<Instant>> {
        let start = start + self.latency;
        let (mut due, mut moved) = (start, 0);
        let group = pieces.len().div_ceil(PARTS).max(1);
        for (index, piece) in pieces.iter().enumerate() {
            moved += piece.bytes;
            if let Some(rate) = self.bytes_per_second {
                due = start + Duration::from_secs_f64(moved as f64 / rate);
            }
            if index % group == 0 && !self.sleep_until(core, due) {
                return Ok(None);
            }
            // SAFETY: the entry was written there, in memory that stays pinned by the caller's promise. That nobody
            // writes it meanwhile is promised too, and who breaks that reads an entry that is not this piece's.
            let entry = unsafe { table.ptr.cast::<Entry>().add(index).read_volatile() };
            if entry != piece.entry() {
                let message = format!(
                    "the table of {} pieces at {:p} was changed before they were moved; keep it until they are",
                    pieces.len(),
                    table.ptr
                );
                return Err(error(self.device, ErrorKind::CopyFailed, message));
            }
            // SAFETY: as for a copy: both ranges are valid and apart, by what the job holds and by the caller's promise.
            unsafe { piece.dst.ptr.copy_from_nonoverlapping(piece.src.ptr, piece.bytes) };
        }
        self.sleep_until(core, due);
        Ok((due > start).then_some(due))
    }
}
