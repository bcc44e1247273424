//! Moving into tensors that exist already: what has to hold for a destination.
//!
//! While bytes are on their way, nobody can touch a destination: its tensor is replaced by one over the same memory that is
//! out of reach until the job has landed, and stays so where the job fails, because what it holds then is neither the old
//! nor the new.

use pinlane_driver::sync::Arc;

use super::file;
use crate::{
    Device, Error, Layout, Result, Tensor,
    landing::{packing, span_bytes},
    memory::storage::{Landing, Place},
};

/// Tensors to move into, one for each that moves.
#[derive(Clone, Copy)]
pub(crate) struct Destinations<'a>(&'a [&'a Tensor]);

impl<'a> Destinations<'a> {
    /// `into`, where there are as many as `leaves`.
    pub(crate) fn new(leaves: &[&Tensor], into: &'a [&'a Tensor]) -> Result<Self> {
        if leaves.len() == into.len() {
            return Ok(Self(into));
        }
        Err(Error::Unsupported {
            doing: "copying a tree into another",
            reason: format!(
                "it has {} tensors and the other has {}; they must have the same, in the same order",
                leaves.len(),
                into.len()
            ),
        })
    }

    /// The device that all of them are on; the host where there are none.
    pub(crate) fn device(self) -> Result<Device> {
        let first = self.0.first().map_or_else(Device::host, |tensor| tensor.device());
        match self
            .0
            .iter()
            .map(|tensor| tensor.device())
            .find(|device| *device != first)
        {
            None => Ok(first),
            Some(other) => Err(Error::Unsupported {
                doing: "copying a tree into another",
                reason: format!(
                    "the other's tensors are on {first} and on {other}; copy into one device's at a time"
                ),
            }),
        }
    }

    pub(crate) fn get(self, index: usize) -> &'a Tensor {
        self.0[index]
    }

    /// Refuses a destination that `source` does not fit, or that someone else could read.
    pub(crate) fn check(self, index: usize, source: &Tensor) -> Result<()> {
        let into = self.0[index];
        into.check_landed("copying into a tensor")?;
        if source.dtype() != into.dtype() || source.shape() != into.shape() {
            return Err(Error::Unsupported {
                doing: "copying into a tensor",
                reason: format!(
                    "it is {} {:?} and what comes is {} {:?}; they must be the same",
                    into.dtype(),
                    into.shape(),
                    source.dtype(),
                    source.shape()
                ),
            });
        }
        if !into.layout().is_contiguous() {
            return Err(Error::NotContiguous {
                doing: "copying into a tensor",
            });
        }
        let writable = match into.storage().place() {
            Place::Host(host) => host.is_writable(),
            Place::Device(_) => true,
            Place::File(_) => false,
        };
        if !writable || Arc::strong_count(into.storage()) != 1 {
            return Err(Error::Shared);
        }
        Ok(())
    }

    /// Copies a tensor that is on the host, or in a file, into its destination there; gives the tensor that takes its place.
    pub(crate) fn fill_on_host(self, index: usize, source: &Tensor) -> Result<Tensor> {
        let into = self.0[index];
        let mut storage = into.storage().again();
        let place = span_bytes(into)?;
        let bytes = &mut storage.bytes_mut().ok_or(Error::Shared)?[place];
        match (source.storage().place(), packing(source)?.1) {
            (Place::File(file), None) => {
                file::read_at(file, file.offset + span_bytes(source)?.start as u64, bytes)?;
            }
            (Place::File(_), Some(_)) => return Err(file::gaps()),
            (_, None) => {
                bytes.copy_from_slice(&source.host_bytes("copying a tensor")?[span_bytes(source)?]);
            }
            (_, Some(copy)) => copy.gather_slice(source.host_bytes("copying a tensor")?, 0, bytes)?,
        }
        Ok(Tensor::new(into.dtype(), into.layout().clone(), storage))
    }

    /// The tensor that takes the destination's place until `landing` is set, and from then on.
    pub(crate) fn output(self, index: usize, landing: &Arc<Landing>) -> Tensor {
        let into = self.0[index];
        Tensor::new(
            into.dtype(),
            into.layout().clone(),
            into.storage().again().until(landing),
        )
    }
}

/// The tensor that takes the place of one whose bytes are neither the old nor the new.
pub(crate) fn out_of_reach(tensor: &Tensor) -> Tensor {
    Destinations(&[tensor]).output(0, &Arc::default())
}

/// Refuses a source that does not land in the order in which a contiguous tensor holds its elements.
pub(crate) fn check_lands_contiguous(layout: &Layout) -> Result<()> {
    if layout.is_contiguous() {
        return Ok(());
    }
    Err(Error::NotContiguous {
        doing: "copying into a tensor from one with strides",
    })
}
