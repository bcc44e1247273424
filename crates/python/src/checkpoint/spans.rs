//! Bytes of files and where they go: neighbours in a file that are to be neighbours in memory too are one span, so that a
//! checkpoint of many small tensors is few pieces of work.

use std::{any::Any, fmt, ops::Range, ptr::NonNull, sync::Arc};

use pinlane::{
    Checkpoint, DType, Device, Error, ForeignMemory, Layout, Tensor, TransferOptions, Tree,
    checkpoint::{Entry, Shard},
    driver::{DevicePtr, RawStream, Stream, Timing},
};
use pyo3::prelude::*;

use super::arrival::{self, Arrival};
use crate::{devices, errors};

/// Spans, and the device or host whose memory they go to.
pub(super) struct Destination<'a> {
    target: Device,
    /// What keeps the memory.
    owner: Arc<dyn Any + Send + Sync>,
    spans: Vec<Span<'a>>,
}

/// Bytes of one file.
struct Span<'a> {
    shard: &'a Shard,
    bytes: Range<u64>,
    address: usize,
    /// The first tensor that has some of the bytes.
    first: &'a str,
    /// The last.
    last: &'a str,
}

impl<'a> Destination<'a> {
    pub(super) fn new(py: Python<'_>, target: &str, owner: Arc<dyn Any + Send + Sync>) -> PyResult<Self> {
        Ok(Self {
            target: devices::open(py, target)?,
            owner,
            spans: Vec::new(),
        })
    }

    /// Takes all bytes of a tensor.
    pub(super) fn take(&mut self, entry: &Entry<'a>, address: usize) {
        self.take_bytes(entry, entry.file_range(), address);
    }

    /// Takes some bytes of a tensor's file.
    pub(super) fn take_bytes(&mut self, entry: &Entry<'a>, bytes: Range<u64>, address: usize) {
        if bytes.is_empty() {
            return;
        }
        if let Some(last) = self.spans.last_mut()
            && std::ptr::eq(last.shard, entry.shard())
            && last.bytes.end == bytes.start
            && last.address as u64 + (last.bytes.end - last.bytes.start) == address as u64
        {
            last.bytes.end = bytes.end;
            last.last = entry.name();
            return;
        }
        self.spans.push(Span {
            shard: entry.shard(),
            bytes,
            address,
            first: entry.name(),
            last: entry.name(),
        });
    }

    /// Has the engine move them, after what `stream`, the caller's on the target, has enqueued so far.
    /// The tensors are those of `checkpoint`.
    pub(super) fn start(
        self,
        py: Python<'_>,
        checkpoint: &Arc<Checkpoint>,
        stream: Option<u64>,
    ) -> PyResult<Arrival> {
        if self.spans.is_empty() {
            return Ok(Arrival::landed(self.target, Arc::clone(checkpoint)));
        }
        let target = self.target.clone();
        let transfer = py.detach(|| {
            let mut options = TransferOptions::new();
            if let (Some(handle), Some(driver)) = (stream, target.driver()) {
                // SAFETY: a stream of torch's for this device, or a simulated one that the caller holds; torch never
                // destroys those of its pools.
                let stream = unsafe { Stream::adopt(driver, RawStream::from_raw(handle)) };
                let event = stream.record(Timing::Disabled).map_err(|source| Error::Driver {
                    doing: "recording an event on the caller's stream".to_owned(),
                    source,
                })?;
                options = options.after(Arc::new(event));
            }
            let names: Arc<[String]> = self.spans.iter().map(Span::name).collect();
            let sources = self.spans.iter().map(|span| span.shard.range(span.bytes.clone()));
            let sources = Spans::new(sources.collect::<Result<_, _>>()?, &names);
            let places = self.spans.iter().map(|span| self.place(span));
            let places = Spans::new(places.collect::<Result<_, _>>()?, &names);
            sources.transfer_into(places, &options)
        });
        let transfer = transfer.map_err(|error| {
            let error = py.detach(|| arrival::named(checkpoint, error));
            errors::from_engine(py, &error)
        })?;
        Ok(Arrival::new(transfer, target, Arc::clone(checkpoint)))
    }

    /// The memory that a span goes to.
    fn place(&self, span: &Span<'_>) -> Result<Tensor, Error> {
        let bytes = usize::try_from(span.bytes.end - span.bytes.start).unwrap_or(usize::MAX);
        let layout = Layout::contiguous(&[bytes])?;
        let owner = Arc::clone(&self.owner);
        if !self.target.is_host() {
            // SAFETY: the package names memory of the target, which `owner` keeps. It is the results' alone, or that of
            // tensors whose user waits for this call, and nobody gets at it before the bytes have landed, or on a stream
            // that comes after; what their stream still does with it is waited for.
            return unsafe {
                ForeignMemory::new(&self.target, DevicePtr(span.address as u64), bytes, owner)?.tensor(
                    0,
                    DType::U8,
                    layout,
                )
            };
        }
        let ptr = NonNull::new(std::ptr::with_exposed_provenance_mut(span.address)).ok_or_else(|| {
            Error::Unsupported {
                doing: "loading a tensor",
                reason: "its memory is at address 0".to_owned(),
            }
        })?;
        // SAFETY: as above.
        unsafe { Tensor::from_raw_parts_mut(ptr, bytes, DType::U8, layout, None, owner) }
    }
}

impl Span<'_> {
    /// What it is called in errors.
    fn name(&self) -> String {
        if self.first == self.last {
            format!("{:?}", self.first)
        } else {
            format!("{:?} or another up to {:?}", self.first, self.last)
        }
    }
}

/// The spans as the engine moves them.
pub(crate) struct Spans {
    tensors: Vec<Tensor>,
    names: Arc<[String]>,
}

impl Spans {
    fn new(tensors: Vec<Tensor>, names: &Arc<[String]>) -> Self {
        Self {
            tensors,
            names: Arc::clone(names),
        }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&*self.names).finish()
    }
}

impl Tree for Spans {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        self.tensors.iter().for_each(visit);
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        Self::new(self.tensors.iter().map(|_| next()).collect(), &self.names)
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        self.tensors.iter_mut().for_each(visit);
        true
    }

    fn path(&self, index: usize) -> String {
        self.names[index].clone()
    }
}
