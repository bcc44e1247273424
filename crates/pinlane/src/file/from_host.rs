//! Writing tensors that are on the host, or in another file, to files.

use super::{
    reading::{FileEnd, Reading},
    writing::{SinkEnd, Writing},
};
use crate::{
    Result, StridedCopy, Tensor,
    error::Failure,
    landing::{packing, span_bytes},
    memory::storage::Place,
    parts::{Item, share},
};

/// What is put in order at a time, of what does not lie in memory as in the file.
const WINDOW: usize = 1 << 20;

/// A tensor to be written, and where.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    from: Origin<'a>,
    bytes: usize,
    to: SinkEnd,
}

/// Where a tensor's elements are, in their order.
#[derive(Debug)]
enum Origin<'a> {
    Memory(&'a [u8]),
    Strided(&'a [u8], Box<StridedCopy>),
    File(FileEnd),
}

impl<'a> Outgoing<'a> {
    /// The elements of `tensor`, which is on the host or in a file.
    pub(crate) fn new(tensor: &'a Tensor, to: SinkEnd) -> Result<Self> {
        if let Place::File(source) = tensor.storage().place() {
            let end = FileEnd::new(tensor, source, to.leaf as usize, true)?;
            return Ok(Self {
                bytes: end.bytes(),
                from: Origin::File(end),
                to,
            });
        }
        let storage = tensor.host_bytes("writing a tensor to a file")?;
        let from = match packing(tensor)?.1 {
            None => Origin::Memory(&storage[span_bytes(tensor)?]),
            Some(copy) => Origin::Strided(storage, Box::new(copy)),
        };
        Ok(Self {
            from,
            bytes: tensor.bytes()?,
            to,
        })
    }
}

/// What a thread uses again and again.
#[derive(Default)]
struct Hands {
    reading: Reading,
    writing: Writing,
    window: Vec<u8>,
}

/// Writes every tensor to its place.
pub(crate) fn write_from_host(tensors: &[Outgoing<'_>]) -> Result<(), Failure> {
    share(
        tensors.iter().map(|tensor| tensor.bytes),
        Hands::default,
        |hands, items| {
            items
                .iter()
                .try_for_each(|item| hands.write(&tensors[item.index], item))?;
            // SAFETY: the memory that was pushed is borrowed from tensors, which nobody writes while they are.
            unsafe { hands.writing.finish() }
        },
    )
}

impl Hands {
    fn write(&mut self, tensor: &Outgoing<'_>, item: &Item) -> Result<(), Failure> {
        let Outgoing { from, to, .. } = tensor;
        if let Origin::Memory(bytes) = from {
            let bytes = &bytes[item.range.clone()];
            // SAFETY: borrowed from a tensor, until after the writing is finished.
            return unsafe {
                self.writing
                    .push(to, item.range.start as u64, bytes.as_ptr(), bytes.len())
            };
        }
        self.window.resize(WINDOW, 0);
        for start in item.range.clone().step_by(WINDOW) {
            let range = start..item.range.end.min(start + WINDOW);
            let window = &mut self.window[..range.len()];
            match from {
                Origin::Strided(storage, copy) => copy
                    .gather_slice(storage, start, window)
                    .map_err(|error| Failure::of(to.leaf as usize, error.into()))?,
                // SAFETY: the window is borrowed exclusively until the reading is finished.
                Origin::File(end) => unsafe {
                    self.reading.push(end, range.clone(), window.as_mut_ptr())?;
                    self.reading.finish()?;
                },
                Origin::Memory(_) => unreachable!("written where it lies"),
            }
            // SAFETY: the window is not touched before the writing is finished, and what was pushed before is borrowed.
            unsafe {
                self.writing
                    .push(to, start as u64, window.as_ptr(), window.len())?;
                self.writing.finish()?;
            }
        }
        Ok(())
    }
}
