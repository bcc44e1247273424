//! Copies by all cores, as torch's `copy_` makes them: from a size on, threads that are there already take pieces of it.
//!
//! There is one crew in a process, which starts with the first long copy and stays. Copies take turns with it: who finds it busy
//! copies alone, as a thread does that has no core to spare. Its threads look for work for a moment after a copy, as those of
//! torch do, and then sleep.
//!
//! A copy is a [`Piecework`] of its own: pieces are claimed by counting up, and the copy is over when as many are done as there
//! are. A thread that comes late finds nothing left to claim, and touches no memory.

use std::{
    num::NonZero,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// What torch gives a thread at least: 32768 elements, here of four bytes.
pub const PIECE: usize = 128 << 10;
/// How long a thread looks for the next copy before it sleeps.
const LOOKING: Duration = Duration::from_micros(100);

/// One copy.
struct Piecework {
    from: *const u8,
    to: *mut u8,
    bytes: usize,
    claimed: AtomicUsize,
    done: AtomicUsize,
}

// SAFETY: pieces are apart, each is copied by the one thread that claimed it, and whoever made this keeps both ranges until all
// are done.
unsafe impl Send for Piecework {}
// SAFETY: as above.
unsafe impl Sync for Piecework {}

impl Piecework {
    fn pieces(&self) -> usize {
        self.bytes.div_ceil(PIECE)
    }

    /// Copies pieces until all are claimed.
    fn work(&self) {
        loop {
            let start = self.claimed.fetch_add(1, Ordering::Relaxed) * PIECE;
            if start >= self.bytes {
                return;
            }
            // SAFETY: the piece lies within both ranges, and nobody else has claimed it. It is not done, so the ranges live.
            unsafe {
                let to = self.to.add(start);
                to.copy_from_nonoverlapping(self.from.add(start), PIECE.min(self.bytes - start));
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.pieces()
    }
}

/// What a crew shares.
#[derive(Default)]
struct Board {
    work: Mutex<Option<Arc<Piecework>>>,
    /// How many there have been.
    number: AtomicU64,
    more: Condvar,
}

impl Board {
    /// Takes part in copy after copy.
    fn serve(&self) {
        let mut seen = 0;
        loop {
            let looking = Instant::now();
            while self.number.load(Ordering::Acquire) == seen && looking.elapsed() < LOOKING {
                std::hint::spin_loop();
            }
            let work = {
                let board = self.work.lock().unwrap_or_else(PoisonError::into_inner);
                let board = self
                    .more
                    .wait_while(board, |_| self.number.load(Ordering::Acquire) == seen);
                let board = board.unwrap_or_else(PoisonError::into_inner);
                seen = self.number.load(Ordering::Acquire);
                board.clone()
            };
            if let Some(work) = work {
                work.work();
            }
        }
    }
}

struct Crew {
    board: Arc<Board>,
    turn: Mutex<()>,
}

static CREW: OnceLock<Crew> = OnceLock::new();

impl Crew {
    /// One thread less than there are cores: the caller works too. Fewer where the system starts no more.
    fn start() -> Self {
        let board = Arc::<Board>::default();
        for number in 1..cores() {
            let shared = Arc::clone(&board);
            let thread = thread::Builder::new().name(format!("copying-{number}"));
            if thread.spawn(move || shared.serve()).is_err() {
                break;
            }
        }
        Self {
            board,
            turn: Mutex::default(),
        }
    }
}

/// The cores that copy.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Copies `bytes` bytes, with all cores where that is more than a piece.
///
/// # Safety
///
/// `from` is good for reads and `to` for writes of `bytes` bytes, they are apart, and nobody else touches them until this returns.
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    let crew = (bytes > PIECE).then(|| CREW.get_or_init(Crew::start));
    let Some((crew, _turn)) = crew.and_then(|crew| Some((crew, crew.turn.try_lock().ok()?))) else {
        // SAFETY: the caller's promise.
        return unsafe { to.copy_from_nonoverlapping(from, bytes) };
    };
    let work = Arc::new(Piecework {
        from,
        to,
        bytes,
        claimed: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
    });
    {
        let mut board = crew.board.work.lock().unwrap_or_else(PoisonError::into_inner);
        *board = Some(Arc::clone(&work));
        crew.board.number.fetch_add(1, Ordering::Release);
        crew.board.more.notify_all();
    }
    work.work();
    // The caller's ranges may go when this returns.
    while !work.is_done() {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_length_are_whole_whoever_makes_them_at_once() {
        thread::scope(|scope| {
            for seed in 0..4_usize {
                scope.spawn(move || {
                    for bytes in [0, 1, PIECE, PIECE + 1, 5 * PIECE - 3, 16 * PIECE] {
                        let from: Vec<u8> = (0..bytes).map(|place| ((place + seed) % 251) as u8).collect();
                        let mut to = vec![0xff; bytes + 1];
                        // SAFETY: both are ours, and `to` is longer.
                        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), bytes) };
                        assert!(to[..bytes] == from, "{bytes} bytes");
                        assert_eq!(to[bytes], 0xff, "{bytes} bytes");
                    }
                });
            }
        });
    }
}
