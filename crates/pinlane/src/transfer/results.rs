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
        slots::LentSlot,
        storage::{DeviceBlock, Place, Storage},
    },
};

/// Memory for the results of one job. It outlives the job by being kept by it.
pub(crate) enum Results {
    OnDevice {
        device: Device,
        /// One for each allocation of the plan.
        blocks: Vec<Arc<DeviceBlock>>,
    },
    OnHost {
        backend: Option<pinlane_driver::Backend>,
        /// Where each leaf lands, and what owns the memory.
        places: Vec<HostPlace>,
    },
}

/// Where one result lands on the host.
#[derive(Clone)]
pub(crate) struct HostPlace {
    ptr: NonNull<u8>,
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the pointer is a place inside what `owner` owns, which is `Send + Sync`; only lanes write to it, as the job
// lets them, and only a storage made of it reads.
unsafe impl Send for HostPlace {}

impl Results {
    /// Allocates what `plan` lays out on `device`.
    pub(crate) fn on_device(device: &Device, plan: &Plan) -> Result<Self> {
        let driver = device.driver().ok_or_else(|| Error::Unsupported {
            doing: "making room for tensors",
            reason: "the host has no device memory".to_owned(),
        })?;
        let mut blocks = Vec::with_capacity(plan.allocations.len());
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
        let mut places = Vec::with_capacity(leaves.len());
        match options.placement {
            Placement::Slab => {
                let mut offsets = Vec::with_capacity(leaves.len());
                let end = sizes.into_iter().try_fold(0usize, |end, bytes| {
                    let offset = end.checked_next_multiple_of(buffer::ALIGNMENT)?;
                    offsets.push(offset);
                    offset.checked_add(bytes)
                });
                let slab = HostPlace::new(
                    device,
                    end.ok_or(Error::HostMemory { bytes: usize::MAX })?,
                    options,
                )?;
                for offset in offsets {
                    // SAFETY: the slab was made as long as what is laid out in it.
                    let ptr = unsafe { slab.ptr.add(offset) };
                    places.push(HostPlace {
                        ptr,
                        owner: Arc::clone(&slab.owner),
                    });
                }
            }
            Placement::Separate => {
                for bytes in sizes {
                    places.push(HostPlace::new(device, bytes, options)?);
                }
            }
        }
        Ok(Self::OnHost { backend, places })
    }

    /// The places in a slot where the only chunk of `plan` lands, and stays.
    pub(crate) fn in_slot(slot: &Arc<LentSlot>, device: &Device, plan: &Plan) -> Self {
        let place = |offset: usize| HostPlace {
            // SAFETY: inside the slot, by the plan.
            ptr: unsafe { slot.ptr().add(offset) },
            owner: Arc::clone(slot) as _,
        };
        // Leaves without bytes have no segment; any place is theirs.
        let mut places = vec![place(0); plan.regions.len()];
        for segment in plan.chunks.iter().flat_map(|chunk| plan.segments(chunk)) {
            places[segment.leaf as usize] = place(segment.slot_offset);
        }
        Self::OnHost {
            backend: device.id().map(|id| id.backend),
            places,
        }
    }

    /// Memory on `device` that is there already.
    pub(crate) fn there_on_device(device: &Device, blocks: Vec<Arc<DeviceBlock>>) -> Self {
        Self::OnDevice {
            device: device.clone(),
            blocks,
        }
    }

    /// The memory of tensors on the host, which are in one piece.
    pub(crate) fn there_on_host<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Self {
        let place = |tensor: &Tensor| {
            let Place::Host(host) = tensor.storage().place() else {
                unreachable!("sorted as on the host")
            };
            let start = span_bytes(tensor).expect("a tensor has a size").start;
            HostPlace {
                // SAFETY: the layout was checked against the storage.
                ptr: unsafe { host.ptr().add(start) },
                owner: Arc::clone(host.owner()),
            }
        };
        Self::OnHost {
            backend: None,
            places: tensors.map(place).collect(),
        }
    }

    /// What keeps the memory alive.
    pub(crate) fn owners(&self) -> Vec<Arc<dyn Any + Send + Sync>> {
        match self {
            Self::OnDevice { blocks, .. } => blocks.iter().map(|block| Arc::clone(block) as _).collect(),
            Self::OnHost { places, .. } => {
                let mut owners: Vec<_> = places.iter().map(|place| Arc::clone(&place.owner)).collect();
                // The places of a slab follow each other.
                owners.dedup_by(|a, b| Arc::ptr_eq(a, b));
                owners
            }
        }
    }

    /// The addresses on the device, for results there.
    pub(crate) fn bases(&self) -> Vec<DevicePtr> {
        match self {
            Self::OnDevice { blocks, .. } => blocks.iter().map(|block| block.0.ptr()).collect(),
            Self::OnHost { .. } => Vec::new(),
        }
    }

    /// Where the bytes go, for results on the host.
    pub(crate) fn ends(&self) -> Vec<End> {
        match self {
            Self::OnDevice { .. } => Vec::new(),
            Self::OnHost { places, .. } => places
                .iter()
                .map(|place| End::Memory(place.ptr.as_ptr()))
                .collect(),
        }
    }

    /// The storage of the result of leaf `index`, of `bytes` bytes. Asked once for each leaf, and not given to anyone
    /// before the job has landed.
    pub(crate) fn storage(&self, index: usize, bytes: usize, plan: &Plan) -> Storage {
        match self {
            Self::OnDevice { device, blocks } => {
                let region = plan.regions[index];
                let block = Arc::clone(&blocks[region.allocation as usize]);
                Storage::device(device.clone(), block, region.offset as usize)
            }
            Self::OnHost { backend, places } => {
                let HostPlace { ptr, owner } = places[index].clone();
                // SAFETY: the range is this storage's alone, by the layout above, and lives as long as its owner; it is
                // initialised when the job has landed, and nobody gets the storage before.
                unsafe { Storage::host(ptr, bytes, *backend, true, owner) }
            }
        }
    }
}

impl HostPlace {
    fn new(device: &Device, bytes: usize, options: &TransferOptions) -> Result<Self> {
        if options.pinned_result {
            let lease = device
                .require_accelerator("pinning host memory")?
                .running
                .engine()
                .pool
                .lease(bytes)?;
            Ok(Self {
                ptr: lease.ptr(),
                owner: Arc::new(lease),
            })
        } else {
            let buffer = Buffer::uninit(bytes)?;
            Ok(Self {
                ptr: buffer.ptr(),
                owner: Arc::new(buffer),
            })
        }
    }
}
