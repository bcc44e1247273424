//! The memory that results land in, and the tensors over it.

use std::{any::Any, ptr::NonNull};

use pinlane_driver::{DeviceMemory, DevicePtr, sync::Arc};

use super::{
    Placement, TransferOptions,
    job::End,
    plan::{Leaf, Plan},
};
use crate::{
    Device, Error, Result, Tensor,
    landing::span_bytes,
    memory::{
        buffer::{self, Buffer},
        list::{self, List},
        slots::LentSlot,
        storage::{DeviceBlock, Place, Storage},
    },
};

/// Memory for the results of one job. It outlives the job by being kept by it.
pub(crate) enum Results {
    OnDevice {
        device: Device,
        /// One for each allocation of the plan.
        blocks: List<Arc<DeviceBlock>>,
    },
    OnHost {
        backend: Option<pinlane_driver::Backend>,
        /// Where each leaf lands.
        places: List<NonNull<u8>>,
        /// What owns the memory: one for all places, or one for each.
        owners: List<Owner>,
    },
}

type Owner = Arc<dyn Any + Send + Sync>;

impl Results {
    /// Allocates what `plan` lays out on `device`.
    pub(crate) fn on_device(device: &Device, plan: &Plan) -> Result<Self> {
        let driver = device.driver().ok_or_else(|| Error::Unsupported {
            doing: "making room for tensors",
            reason: "the host has no device memory".to_owned(),
        })?;
        let mut blocks = list::with_capacity(plan.allocations.len());
        for &bytes in &plan.allocations {
            let bytes = usize::try_from(bytes).map_err(|_| Error::HostMemory { bytes: usize::MAX })?;
            let memory = DeviceMemory::new(driver, bytes)
                .map_err(|source| Error::driver("making room for tensors on the device", source))?;
            blocks.push(Arc::new(DeviceBlock(memory)));
        }
        Ok(Self::OnDevice {
            device: device.clone(),
            blocks,
        })
    }

    /// Allocates host memory for `leaves` that come from `device`.
    pub(crate) fn on_host(device: &Device, leaves: &[Leaf], options: &TransferOptions) -> Result<Self> {
        let backend = device.id().filter(|_| options.pinned_result).map(|id| id.backend);
        let sizes = leaves
            .iter()
            .map(|leaf| usize::try_from(leaf.bytes).unwrap_or(usize::MAX));
        match options.placement {
            Placement::Slab => {
                let mut offsets = list::with_capacity(leaves.len());
                let end = sizes.into_iter().try_fold(0usize, |end, bytes| {
                    let offset = end.checked_next_multiple_of(buffer::ALIGNMENT)?;
                    offsets.push(offset);
                    offset.checked_add(bytes)
                });
                let bytes = end.ok_or(Error::HostMemory { bytes: usize::MAX })?;
                let (slab, owner) = host_memory(device, bytes, options)?;
                // SAFETY: the slab was made as long as what is laid out in it.
                let place = |offset: usize| unsafe { slab.add(offset) };
                Ok(Self::OnHost {
                    backend,
                    places: list::collect(offsets.into_iter().map(place)),
                    owners: list::collect([owner]),
                })
            }
            Placement::Separate => {
                let (mut places, mut owners) = (
                    list::with_capacity(leaves.len()),
                    list::with_capacity(leaves.len()),
                );
                for bytes in sizes {
                    let (place, owner) = host_memory(device, bytes, options)?;
                    places.push(place);
                    owners.push(owner);
                }
                Ok(Self::OnHost {
                    backend,
                    places,
                    owners,
                })
            }
        }
    }

    /// The places in a slot where the only chunk of `plan` lands, and stays.
    pub(crate) fn in_slot(slot: &Arc<LentSlot>, device: &Device, plan: &Plan) -> Self {
        // Leaves without bytes have no segment; any place is theirs.
        let mut places = list::collect(plan.regions.iter().map(|_| slot.ptr()));
        for segment in plan.chunks.iter().flat_map(|chunk| plan.segments(chunk)) {
            // SAFETY: inside the slot, by the plan.
            places[segment.leaf as usize] = unsafe { slot.ptr().add(segment.slot_offset) };
        }
        Self::OnHost {
            backend: device.id().map(|id| id.backend),
            places,
            owners: list::collect([Arc::clone(slot) as _]),
        }
    }

    /// The memory of tensors on `device`.
    pub(crate) fn there_on_device<'a>(
        device: &Device,
        tensors: impl ExactSizeIterator<Item = &'a Tensor>,
    ) -> Self {
        let block = |tensor: &Tensor| {
            let Place::Device(place) = tensor.storage().place() else {
                unreachable!("sorted as on a device")
            };
            Arc::clone(&place.memory)
        };
        Self::OnDevice {
            device: device.clone(),
            blocks: list::collect(tensors.map(block)),
        }
    }

    /// The memory of tensors on the host, which are in one piece.
    pub(crate) fn there_on_host<'a>(tensors: impl ExactSizeIterator<Item = &'a Tensor>) -> Self {
        let place = |tensor: &Tensor| {
            let Place::Host(host) = tensor.storage().place() else {
                unreachable!("sorted as on the host")
            };
            let start = span_bytes(tensor).expect("a tensor has a size").start;
            // SAFETY: the layout was checked against the storage.
            (unsafe { host.ptr().add(start) }, Arc::clone(host.owner()))
        };
        let mut places = list::with_capacity(tensors.len());
        let mut owners = list::with_capacity(tensors.len());
        for (place, owner) in tensors.map(place) {
            places.push(place);
            owners.push(owner);
        }
        Self::OnHost {
            backend: None,
            places,
            owners,
        }
    }

    /// What keeps the memory alive.
    pub(crate) fn owners(&self) -> List<Owner> {
        match self {
            Self::OnDevice { blocks, .. } => list::collect(blocks.iter().map(|block| Arc::clone(block) as _)),
            Self::OnHost { owners, .. } => owners.clone(),
        }
    }

    /// The addresses on the device, for results there.
    pub(crate) fn bases(&self) -> List<DevicePtr> {
        match self {
            Self::OnDevice { blocks, .. } => list::collect(blocks.iter().map(|block| block.0.ptr())),
            Self::OnHost { .. } => list::empty(),
        }
    }

    /// Where the bytes go, for results on the host.
    pub(crate) fn ends(&self) -> List<End> {
        match self {
            Self::OnDevice { .. } => list::empty(),
            Self::OnHost { places, .. } => {
                list::collect(places.iter().map(|place| End::Memory(place.as_ptr())))
            }
        }
    }

    /// The storage of the result of leaf `index`, of `bytes` bytes. Asked once for each leaf, and not given to anyone
    /// before the job has landed.
    #[inline]
    pub(crate) fn storage(&self, index: usize, bytes: usize, plan: &Plan) -> Storage {
        match self {
            Self::OnDevice { device, blocks } => {
                let region = plan.regions[index];
                let block = Arc::clone(&blocks[region.allocation as usize]);
                Storage::device(device.clone(), block, region.offset as usize)
            }
            Self::OnHost {
                backend,
                places,
                owners,
            } => {
                let owner = Arc::clone(owners.get(index).unwrap_or(&owners[0]));
                // SAFETY: the range is this storage's alone, by the layout above, and lives as long as its owner; it is
                // initialised when the job has landed, and nobody gets the storage before.
                unsafe { Storage::host(places[index], bytes, *backend, true, owner) }
            }
        }
    }
}

/// Memory of the host for a result, and what owns it.
fn host_memory(device: &Device, bytes: usize, options: &TransferOptions) -> Result<(NonNull<u8>, Owner)> {
    if options.pinned_result {
        let pool = &device
            .require_accelerator("pinning host memory")?
            .running
            .engine()
            .pool;
        let lease = pool.lease(bytes)?;
        Ok((lease.ptr(), Arc::new(lease)))
    } else {
        let buffer = Buffer::uninit(bytes)?;
        Ok((buffer.ptr(), Arc::new(buffer)))
    }
}
