//! What the planner and the lanes need to know of tensors that are to move.

use std::collections::HashMap;

use pinlane_driver::{DeviceId, DevicePtr, Properties, sync::Arc};

use super::{
    file,
    job::End,
    plan::{Kind, Leaf, Region},
};
use crate::{
    Error, Layout, Result, Tensor,
    landing::{landing, packing, span_bytes},
    memory::storage::{DeviceBlock, Place, Storage},
};

/// Tensors that move between the same two places, in the order in which they were taken.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) leaves: Vec<Leaf>,
    /// How each lands.
    pub(crate) layouts: Vec<Layout>,
    /// Where each comes from, unless that is the executing device's own memory.
    pub(crate) ends: Vec<End>,
    /// Where each lies in `blocks`, for those that come from the executing device.
    pub(crate) regions: Vec<Region>,
    pub(crate) blocks: Vec<Arc<DeviceBlock>>,
    /// What has to live until the copies are done.
    pub(crate) storages: Vec<Arc<Storage>>,
    /// The number of each block, by its address in memory.
    numbers: HashMap<*const DeviceBlock, u32>,
}

impl Sources {
    pub(crate) fn with_capacity(tensors: usize) -> Self {
        Self {
            leaves: Vec::with_capacity(tensors),
            layouts: Vec::with_capacity(tensors),
            ends: Vec::with_capacity(tensors),
            storages: Vec::with_capacity(tensors),
            ..Self::default()
        }
    }

    /// Takes a tensor that goes from the host, or from a file, to the device `to`; with `packed`, to land contiguous.
    pub(crate) fn take_from_host(&mut self, tensor: &Tensor, to: DeviceId, packed: bool) -> Result<()> {
        let (layout, copy) = if packed { packing(tensor) } else { landing(tensor) }?;
        let span = span_bytes(tensor)?;
        match (tensor.storage().place(), copy) {
            (Place::Host(host), Some(copy)) => {
                self.push(tensor, copy.bytes(), Kind::Strided, layout);
                self.ends.push(End::Strided(host.ptr().as_ptr(), Box::new(copy)));
            }
            (Place::Host(host), None) => {
                let pinned = host.pinned() == Some(to.backend);
                self.push(
                    tensor,
                    span.len(),
                    if pinned { Kind::Pinned } else { Kind::Pageable },
                    layout,
                );
                // SAFETY: the layout was checked against the storage.
                self.ends
                    .push(End::Memory(unsafe { host.ptr().as_ptr().add(span.start) }));
            }
            (Place::File(_), Some(_)) => return Err(file::gaps()),
            (Place::File(source), None) => {
                self.push(tensor, span.len(), Kind::File, layout);
                let offset = source.offset + span.start as u64;
                self.ends.push(End::File(Arc::clone(tensor.storage()), offset));
            }
            (Place::Device(_), _) => unreachable!("sorted as coming from the host"),
        }
        Ok(())
    }

    /// Takes a tensor that goes from the executing device to the host. A strided view is moved as the span it covers,
    /// with its strides.
    pub(crate) fn take_from_device(&mut self, tensor: &Tensor, pinned_result: bool) -> Result<()> {
        let span = span_bytes(tensor)?;
        let kind = if pinned_result {
            Kind::Pinned
        } else {
            Kind::Pageable
        };
        self.push(tensor, span.len(), kind, tensor.layout().at_start());
        self.locate(tensor)
    }

    /// Says where in the executing device's memory a tensor lies: the source of what was just taken, or where it goes.
    pub(crate) fn locate(&mut self, tensor: &Tensor) -> Result<()> {
        let Place::Device(place) = tensor.storage().place() else {
            unreachable!("sorted as on a device")
        };
        let start = span_bytes(tensor)?.start;
        let blocks = &mut self.blocks;
        let allocation = *self.numbers.entry(Arc::as_ptr(&place.memory)).or_insert_with(|| {
            blocks.push(Arc::clone(&place.memory));
            (blocks.len() - 1) as u32
        });
        self.regions.push(Region {
            allocation,
            offset: (place.offset + start) as u64,
        });
        Ok(())
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
        self.push(tensor, span.len(), Kind::Device, tensor.layout().at_start());
        let ptr = source.ptr().offset(span.start);
        self.ends.push(if from.id == to.id {
            End::Device(ptr)
        } else {
            End::Peer(from.id, ptr)
        });
        Ok(())
    }

    /// The addresses of the blocks.
    pub(crate) fn bases(&self) -> Vec<DevicePtr> {
        self.blocks.iter().map(|block| block.0.ptr()).collect()
    }

    fn push(&mut self, tensor: &Tensor, bytes: usize, kind: Kind, layout: Layout) {
        self.leaves.push(Leaf {
            bytes: bytes as u64,
            kind,
        });
        self.layouts.push(layout);
        self.storages.push(Arc::clone(tensor.storage()));
    }
}
