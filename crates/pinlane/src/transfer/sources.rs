//! What the planner and the lanes need to know of tensors that are to move.

use pinlane_driver::{DeviceId, DevicePtr, Properties};

use super::{
    job::End,
    kept::Kept,
    plan::{Kind, Leaf, Region},
};
use crate::{
    Error, Result, Tensor,
    file::{reading::FileEnd, source::PAGE, writing::SinkEnd},
    landing::{keeps_layout, packing, span_bytes},
    memory::{
        list::{self, List},
        storage::Place,
    },
};

/// Tensors that move between the same two places, in the order in which they were taken.
pub(crate) struct Sources {
    pub(crate) leaves: List<Leaf>,
    /// Where each comes from, unless that is the executing device's own memory.
    pub(crate) ends: List<End>,
    /// Where each lies in the allocations at `bases`, for those that come from the executing device, or go to tensors
    /// that are there already.
    pub(crate) regions: List<Region>,
    /// The addresses of allocations of the executing device. One may be here more than once, but not next to itself.
    pub(crate) bases: List<DevicePtr>,
    /// What has to live until the copies are done.
    pub(crate) storages: Kept,
}

impl Sources {
    /// Room for so many tensors; with `located`, in memory of the executing device that is there already.
    pub(crate) fn with_capacity(tensors: usize, located: bool, storages: Kept) -> Self {
        let places = if located { tensors } else { 0 };
        Self {
            leaves: list::with_capacity(tensors),
            ends: list::with_capacity(tensors),
            regions: list::with_capacity(places),
            bases: list::with_capacity(places),
            storages,
        }
    }

    /// Takes the tensor of number `leaf`, which goes from the host, or from a file, to the device `to`; with `packed`, to
    /// land contiguous.
    #[inline]
    pub(crate) fn take_from_host(
        &mut self,
        tensor: &Tensor,
        leaf: usize,
        to: DeviceId,
        packed: bool,
    ) -> Result<()> {
        if let Place::File(source) = tensor.storage().place() {
            let end = FileEnd::new(tensor, source, leaf, packed)?;
            let into_page = end.page_offset();
            self.push(tensor, end.bytes(), Kind::File { into_page });
            self.ends.push(End::File(end));
            return Ok(());
        }
        let copy = if packed || !keeps_layout(tensor) {
            packing(tensor)?.1
        } else {
            None
        };
        let span = span_bytes(tensor)?;
        match (tensor.storage().place(), copy) {
            (Place::Host(host), Some(copy)) => {
                self.push(tensor, copy.bytes(), Kind::Strided);
                self.ends.push(End::Strided(host.ptr().as_ptr(), Box::new(copy)));
            }
            (Place::Host(host), None) => {
                let pinned = host.pinned() == Some(to.backend);
                self.push(
                    tensor,
                    span.len(),
                    if pinned { Kind::Pinned } else { Kind::Pageable },
                );
                // SAFETY: the layout was checked against the storage.
                self.ends
                    .push(End::Memory(unsafe { host.ptr().as_ptr().add(span.start) }));
            }
            (Place::File(_) | Place::Device(_), _) => unreachable!("sorted as coming from the host"),
        }
        Ok(())
    }

    /// Takes a tensor that goes from the executing device to the host. A strided view is moved as the span it covers,
    /// with its strides.
    #[inline]
    pub(crate) fn take_from_device(&mut self, tensor: &Tensor, pinned_result: bool) -> Result<()> {
        let span = span_bytes(tensor)?;
        let kind = if pinned_result {
            Kind::Pinned
        } else {
            Kind::Pageable
        };
        self.push(tensor, span.len(), kind);
        self.locate_at(tensor, span.start);
        Ok(())
    }

    /// Takes a contiguous tensor that goes from the executing device to a file.
    pub(crate) fn take_to_file(&mut self, tensor: &Tensor, to: SinkEnd) -> Result<()> {
        let span = span_bytes(tensor)?;
        let into_page = (to.at % PAGE) as u16;
        self.push(tensor, span.len(), Kind::File { into_page });
        self.locate_at(tensor, span.start);
        self.ends.push(End::Sink(to));
        Ok(())
    }

    /// Says where in the executing device's memory what was just taken goes: into a tensor that is there already.
    pub(crate) fn locate(&mut self, into: &Tensor) -> Result<()> {
        self.locate_at(into, span_bytes(into)?.start);
        Ok(())
    }

    #[inline]
    fn locate_at(&mut self, tensor: &Tensor, start: usize) {
        let Place::Device(place) = tensor.storage().place() else {
            unreachable!("sorted as on a device")
        };
        // The tensors of one allocation mostly follow each other. Others are no neighbours, whatever number they get.
        let base = place.memory.0.ptr();
        if self.bases.last() != Some(&base) {
            self.bases.push(base);
        }
        self.regions.push(Region {
            allocation: (self.bases.len() - 1) as u32,
            offset: (place.offset + start) as u64,
        });
    }

    /// Takes a tensor that goes from another device to the executing device `to`, as the span it covers.
    pub(crate) fn take_from_peer(&mut self, tensor: &Tensor, to: &Properties) -> Result<()> {
        let Place::Device(source) = tensor.storage().place() else {
            unreachable!("sorted as on a device")
        };
        let from = source.memory.0.driver().properties();
        if !from.shares_group_with(to) {
            return Err(Error::NoPath {
                from: from.id,
                to: to.id,
            });
        }
        let span = span_bytes(tensor)?;
        self.push(tensor, span.len(), Kind::Device);
        let ptr = source.ptr().offset(span.start);
        self.ends.push(if from.id == to.id {
            End::Device(ptr)
        } else {
            End::Peer(from.id, ptr)
        });
        Ok(())
    }

    #[inline]
    fn push(&mut self, tensor: &Tensor, bytes: usize, kind: Kind) {
        self.leaves.push(Leaf {
            bytes: bytes as u64,
            kind,
        });
        self.storages.push(tensor.storage());
    }
}
