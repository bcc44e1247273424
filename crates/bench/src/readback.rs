//! Whether device memory holds what it should: brought back by plain copies into pinned memory, and compared there.
//!
//! What was compared is then overwritten, so that whoever lands in the same memory next can't find the right bytes there
//! by chance.

use pinlane::{DType, Device, HostMemory, Tensor};
use pinlane_driver::{DevicePtr, MemCopy, Stream};

use crate::{error::Result, lent::Lent, parallel};

/// Pinned memory that one round of bringing back fills.
const ROUND: usize = 32 << 20;
/// Copies that are handed to the driver at once.
const BATCH: usize = 4096;
/// What overwrites what was checked.
pub(crate) const POISON: u8 = 0xa5;
/// Neighbours on the device with a smaller gap than this are brought back in one copy, where that is allowed.
const NEAR: u64 = 256;

/// A tensor's device memory, and what should be in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Landing<'a> {
    pub(crate) ptr: DevicePtr,
    pub(crate) expected: &'a [u8],
}

/// Brings device memory back and compares it.
#[derive(Debug)]
pub(crate) struct Readback {
    scratch: Lent<Tensor, 1>,
}

/// Bytes on the device in one piece, which `scratch` has room for at `offset`.
struct Run {
    ptr: DevicePtr,
    offset: usize,
    bytes: usize,
}

/// What fits into the scratch memory at once.
#[derive(Default)]
struct Round<'a> {
    runs: Vec<Run>,
    /// Where in the scratch memory it lands, what it should be, and the number of the tensor.
    pieces: Vec<(usize, &'a [u8], usize)>,
    end: usize,
}

impl Readback {
    pub(crate) fn new(device: &Device, stream: Stream) -> Result<Self> {
        let scratch = HostMemory::Pinned(device).empty(DType::U8, &[ROUND])?;
        Ok(Self {
            scratch: Lent::new(scratch, [stream]),
        })
    }

    /// The first tensor that does not hold what it should. All are overwritten afterwards. With `one_slab`, what lies
    /// between neighbours is padding of one allocation, which may be read and overwritten as well.
    pub(crate) fn first_wrong(&mut self, landings: &[Landing<'_>], one_slab: bool) -> Result<Option<usize>> {
        let mut order: Vec<usize> = (0..landings.len()).collect();
        if one_slab {
            order.sort_by_key(|&index| landings[index].ptr);
        }
        let mut wrong: Option<usize> = None;
        let mut round = Round::default();
        for index in order {
            let landing = landings[index];
            for (part, expected) in landing.expected.chunks(ROUND).enumerate() {
                let ptr = landing.ptr.offset(part * ROUND);
                if !round.push(ptr, expected, index, one_slab) {
                    wrong = least(wrong, self.check(&round)?);
                    round = Round::default();
                    round.push(ptr, expected, index, one_slab);
                }
            }
        }
        Ok(least(wrong, self.check(&round)?))
    }

    /// Brings one round back, compares and overwrites it.
    fn check(&mut self, round: &Round<'_>) -> Result<Option<usize>> {
        self.scratch.during(|scratch, [stream]| {
            let base = scratch.as_mut_slice::<u8>()?.as_mut_ptr();
            let copies: Vec<MemCopy> = round
                .runs
                .iter()
                // SAFETY: `Round::push` placed each run inside the scratch memory.
                .map(|run| MemCopy::to_host(unsafe { base.add(run.offset) }, run.ptr, run.bytes))
                .collect();
            for batch in copies.chunks(BATCH) {
                // SAFETY: the caller's tensors live, and the runs lie apart in the scratch memory; both are still there
                // when `during` has waited. Nothing is written there meanwhile, since what is read has landed.
                unsafe { stream.driver().copy_batch(batch, stream.raw())? };
            }
            Ok(())
        })?;
        let scratch = self.scratch.memory().as_bytes()?;
        let found = parallel::first(round.pieces.clone(), round.end, |(offset, expected, _)| {
            scratch[offset..][..expected.len()] != *expected
        });
        self.scratch.during(|_, [stream]| {
            for run in &round.runs {
                // SAFETY: the same memory, which nobody reads any more: its tensors are dropped next, or checked no
                // more. `during` waits before they are.
                unsafe { stream.driver().memset(run.ptr, POISON, run.bytes, stream.raw())? };
            }
            Ok(())
        })?;
        Ok(found.map(|place| round.pieces[place].2))
    }
}

fn least(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    a.into_iter().chain(b).min()
}

impl<'a> Round<'a> {
    /// Adds a piece; `false` where there is no room left for it.
    fn push(&mut self, ptr: DevicePtr, expected: &'a [u8], tensor: usize, one_slab: bool) -> bool {
        let near = self.runs.last_mut().filter(|run| {
            let gap = ptr.0.checked_sub(run.ptr.0 + run.bytes as u64);
            one_slab && gap.is_some_and(|gap| gap < NEAR)
        });
        let offset = match &near {
            Some(run) => run.offset + (ptr.0 - run.ptr.0) as usize,
            None => self.end,
        };
        if offset + expected.len() > ROUND {
            return false;
        }
        match near {
            Some(run) => run.bytes = offset + expected.len() - run.offset,
            None => self.runs.push(Run {
                ptr,
                offset,
                bytes: expected.len(),
            }),
        }
        for (number, piece) in expected.chunks(parallel::PIECE).enumerate() {
            self.pieces
                .push((offset + number * parallel::PIECE, piece, tensor));
        }
        self.end = offset + expected.len();
        true
    }
}
