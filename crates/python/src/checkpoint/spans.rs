//! Bytes of files and where they go: neighbours in a file that are to be neighbours in memory too are one span, so that a
//! checkpoint of many small tensors is few pieces of work.

use std::{any::Any, fmt, ops::Range, ptr::NonNull, sync::Arc};

use pinlane::{
    Checkpoint, Device, Error, ForeignMemory, Layout, Tensor, TransferOptions, Tree,
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

    /// Takes a tensor.
    pub(super) fn take(&mut self, entry: &Entry<'a>, address: usize) {
        let bytes = entry.file_range();
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

    /// Has the engine move them, after what `stream`, the caller's on the target, has enqueued so far. The tensors are those of
    /// `checkpoint`.
    pub(super) fn start(
        mut self,
        py: Python<'_>,
        checkpoint: &Arc<Checkpoint>,
        stream: Option<u64>,
    ) -> PyResult<Arrival> {
        if self.spans.is_empty() {
            return Ok(Arrival::landed(self.target, Arc::clone(checkpoint)));
        }
        let spans = std::mem::take(&mut self.spans);
        self.send(py, checkpoint, stream, |destination| {
            let names: Arc<[String]> = spans.iter().map(Span::name).collect();
            let sources = spans.iter().map(|span| span.shard.range(span.bytes.clone()));
            let sources: Vec<Tensor> = sources.collect::<Result<_, _>>()?;
            let places = spans.iter().zip(&sources);
            let places = places.map(|(span, source)| destination.place(source, span.address));
            let places = places.collect::<Result<_, _>>()?;
            Ok((Spans::new(sources, &names), Spans::new(places, &names)))
        })
    }

    /// Has the engine move a view of a tensor to `address`, where its elements lie one after the other.
    pub(super) fn start_view(
        self,
        py: Python<'_>,
        checkpoint: &Arc<Checkpoint>,
        (name, view): (&str, Tensor),
        address: usize,
        stream: Option<u64>,
    ) -> PyResult<Arrival> {
        if view.elements() == 0 {
            return Ok(Arrival::landed(self.target, Arc::clone(checkpoint)));
        }
        self.send(py, checkpoint, stream, |destination| {
            let names: Arc<[String]> = Arc::from([format!("{name:?}")]);
            let place = destination.place(&view, address)?;
            Ok((Spans::new(vec![view], &names), Spans::new(vec![place], &names)))
        })
    }

    fn send(
        &self,
        py: Python<'_>,
        checkpoint: &Arc<Checkpoint>,
        stream: Option<u64>,
        ends: impl FnOnce(&Self) -> Result<(Spans, Spans), Error> + Send,
    ) -> PyResult<Arrival> {
        let sent = py.detach(|| {
            let mut options = TransferOptions::new();
            if let (Some(handle), Some(driver)) = (stream, self.target.driver()) {
                // SAFETY: a stream of torch's for this device, or a simulated one that the caller holds; torch never
                // destroys those of its pools.
                let stream = unsafe { Stream::adopt(driver, RawStream::from_raw(handle)) };
                let event = stream.record(Timing::Disabled).map_err(|source| Error::Driver {
                    doing: "recording an event on the caller's stream".to_owned(),
                    source,
                })?;
                options = options.after(Arc::new(event));
            }
            let (sources, places) = ends(self)?;
            let transfer = sources.transfer_into(places, &options);
            transfer.map_err(|error| arrival::named(checkpoint, error))
        });
        let transfer = sent.map_err(|error| errors::from_engine(py, &error))?;
        Ok(Arrival::new(
            transfer,
            self.target.clone(),
            Arc::clone(checkpoint),
        ))
    }

    /// The memory at `address` that a tensor goes to, without gaps.
    fn place(&self, source: &Tensor, address: usize) -> Result<Tensor, Error> {
        let (dtype, layout) = (source.dtype(), Layout::contiguous(source.shape())?);
        let bytes = dtype.bytes_for(layout.elements())?;
        let owner = Arc::clone(&self.owner);
        if !self.target.is_host() {
            // SAFETY: the package names memory of the target, which `owner` keeps. It is the results' alone, or that of
            // tensors whose user waits for this call, and nobody gets at it before the bytes have landed, or on a stream
            // that comes after; what their stream still does with it is waited for.
            return unsafe {
                ForeignMemory::new(&self.target, DevicePtr(address as u64), bytes, owner)?
                    .tensor(0, dtype, layout)
            };
        }
        let ptr = NonNull::new(std::ptr::with_exposed_provenance_mut(address)).ok_or_else(|| {
            Error::Unsupported {
                doing: "loading a tensor",
                reason: "its memory is at address 0".to_owned(),
            }
        })?;
        // SAFETY: as above.
        unsafe { Tensor::from_raw_parts_mut(ptr, bytes, dtype, layout, None, owner) }
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
