//! Copies from and to pageable memory, by the calling thread, through bounce buffers.
//!
//! The bytes go in pieces of one bounce buffer, of which at most [`OUTSTANDING`] are in use by one copy: while an
//! engine moves one, the calling thread fills or empties the other.

use std::collections::VecDeque;

use super::{
    allocations::Block,
    arena::Key,
    driver::SimDriver,
    order::Op,
    state::{State, error},
    tickets::Outcome,
    work::{Direction, End, Home, Job, Mishap, Work},
};
use crate::{
    ErrorKind, Result,
    sync::{Arc, Instant},
};

const OUTSTANDING: usize = 2;

impl SimDriver {
    /// Returns when the last piece is staged: the source is free to change, and the engine may still be at work.
    ///
    /// # Safety
    ///
    /// `src` is valid for reads of `bytes` bytes.
    pub(super) unsafe fn stage_to_device(
        &self,
        stream: Key,
        dst: &End,
        src: *const u8,
        bytes: usize,
        mut mishap: Option<Mishap>,
    ) -> Result<()> {
        let mut tickets = VecDeque::new();
        let staged = self.pieces(bytes).try_for_each(|(offset, length)| {
            if tickets.len() == OUTSTANDING
                && let Some(oldest) = tickets.pop_front()
            {
                // A failure of the work before this is the stream's to report, when it is synchronised.
                self.core().wait_for(oldest);
            }
            let bounce = self.bounce(bytes)?;
            // SAFETY: the piece lies within the source, which is valid for reads by this function's contract, and
            // the buffer is at least one piece long and this thread's alone until it is enqueued.
            unsafe { bounce.base().copy_from_nonoverlapping(src.add(offset), length) };
            let work = |state: &State| {
                Ok(Work::Copy {
                    dst: state.part_of(self.ordinal(), dst, offset, length)?,
                    src: bounced(self.ordinal(), bounce),
                    bytes: length,
                    direction: Direction::Up,
                })
            };
            tickets.push_back(self.enqueue_piece(stream, work, mishap.take())?);
            Ok(())
        });
        self.core().with(|state| {
            tickets
                .into_iter()
                .for_each(|ticket| state.tickets.release(ticket));
        });
        staged
    }

    /// Returns when the bytes have arrived, or with what kept them from it.
    ///
    /// # Safety
    ///
    /// `dst` is valid for writes of `bytes` bytes.
    pub(super) unsafe fn stage_to_host(
        &self,
        stream: Key,
        dst: *mut u8,
        src: &End,
        bytes: usize,
        mut mishap: Option<Mishap>,
    ) -> Result<()> {
        let mut flying: VecDeque<Piece> = VecDeque::new();
        let mut result = Ok(());
        for (offset, length) in self.pieces(bytes) {
            if flying.len() == OUTSTANDING
                && let Some(oldest) = flying.pop_front()
            {
                // SAFETY: the piece lies within `dst`, which is valid for writes by this function's contract.
                result = result.and(unsafe { self.land(oldest, dst) });
            }
            let enqueued = self.bounce(bytes).and_then(|bounce| {
                let work = |state: &State| {
                    Ok(Work::Copy {
                        dst: bounced(self.ordinal(), Arc::clone(&bounce)),
                        src: state.part_of(self.ordinal(), src, offset, length)?,
                        bytes: length,
                        direction: Direction::Down,
                    })
                };
                let ticket = self.enqueue_piece(stream, work, mishap.take())?;
                Ok(Piece {
                    ticket,
                    bounce,
                    offset,
                    length,
                })
            });
            match enqueued {
                Ok(piece) => flying.push_back(piece),
                Err(error) => {
                    result = result.and(Err(error));
                    break;
                }
            }
        }
        for piece in flying {
            // SAFETY: as above.
            result = result.and(unsafe { self.land(piece, dst) });
        }
        result
    }

    /// Waits for a piece, and copies it to its place in `dst`.
    ///
    /// # Safety
    ///
    /// `dst` is valid for writes where the piece goes.
    unsafe fn land(&self, piece: Piece, dst: *mut u8) -> Result<()> {
        let Outcome { result, .. } = self.core().wait_for(piece.ticket);
        if result.is_ok() {
            // SAFETY: the engine is done with the buffer, which holds the piece; `dst` is the caller's promise.
            unsafe {
                dst.add(piece.offset)
                    .copy_from_nonoverlapping(piece.bounce.base(), piece.length)
            };
        }
        let ordinal = self.ordinal();
        self.core()
            .with(|state| state.give_back_bounce(ordinal, piece.bounce));
        result.map_err(|failure| (*failure).clone())
    }

    /// Enqueues one piece, and a record behind it whose ticket the caller holds.
    fn enqueue_piece(
        &self,
        stream: Key,
        work: impl FnOnce(&State) -> Result<Work>,
        mishap: Option<Mishap>,
    ) -> Result<Key> {
        self.core().with(|state| {
            if let Some(lost) = &state.devices[self.ordinal()].lost {
                return Err((**lost).clone());
            }
            // Other threads may have used the lock since the copy was called, and even destroyed the stream.
            let stream = state.stream(self.ordinal(), stream.0)?;
            let job = Job {
                stream,
                work: work(state)?,
                mishap,
                ready_at: Instant::now(),
            };
            state.enqueue(stream, Op::Run(job));
            Ok(state.enqueue_record(stream, 1))
        })
    }

    /// The pieces of a staged copy: where each starts, and how long it is.
    fn pieces(&self, bytes: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let piece = self.bounce_bytes();
        (0..bytes)
            .step_by(piece)
            .map(move |offset| (offset, piece.min(bytes - offset)))
    }

    fn bounce(&self, copy_bytes: usize) -> Result<Arc<Block>> {
        if let Some(spare) = self.core().with(|state| state.spare_bounce(self.ordinal())) {
            return Ok(spare);
        }
        let size = self.bounce_bytes();
        let block = Block::new(size).ok_or_else(|| {
            let message = format!(
                "staging a copy of {copy_bytes} bytes: the host has no {size} bytes for a bounce buffer; pin the memory"
            );
            error(self.ordinal(), ErrorKind::OutOfMemory, message)
        })?;
        Ok(Arc::new(block))
    }
}

/// A piece that is on its way to the host.
struct Piece {
    ticket: Key,
    bounce: Arc<Block>,
    offset: usize,
    length: usize,
}

fn bounced(device: usize, bounce: Arc<Block>) -> End {
    End {
        ptr: bounce.base(),
        home: Home::Bounce(device, bounce),
    }
}

impl State {
    /// A part of device memory that was found before, looked up again: it may have been freed in the meantime.
    fn part_of(&self, device: usize, whole: &End, offset: usize, length: usize) -> Result<End> {
        self.device_range(device, device, (whole.address() + offset) as u64, length)
    }
}
