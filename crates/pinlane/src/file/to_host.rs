//! Reading tensors from files to host memory: by several threads, since one alone copies out of the page cache, and waits for
//! a disk, at a fraction of what the host can do. Elements that are to become others do so on the thread that has read them.

use std::{any::Any, mem, ptr::NonNull, slice};

use pinlane_driver::{Backend, Conversion, Float, sync::Arc};

use super::reading::{FileEnd, Reading};
use crate::{
    DType, Error, HostMemory, Placement, Result, Tensor,
    conversion::Becomes,
    error::Failure,
    landing::landing,
    memory::{
        buffer::{ALIGNMENT, Buffer},
        shared::Batch,
        storage::{Place, Storage},
    },
    parts::{Item, share},
};

/// A tensor in a file and the memory that it is read to.
pub(crate) struct Destined {
    pub(crate) end: FileEnd,
    pub(crate) place: NonNull<u8>,
    /// What becomes of the elements, if anything.
    pub(crate) conversion: Option<Conversion>,
}

// SAFETY: a place is only named here; who has it read to promises that nobody else touches it meanwhile.
unsafe impl Send for Destined {}
// SAFETY: as above.
unsafe impl Sync for Destined {}

/// Tensors in files, each with its number in its tree, read to memory of the host.
pub(crate) fn read_to_host(
    tensors: &[(usize, &Tensor)],
    memory: HostMemory<'_>,
    placement: Placement,
) -> Result<Vec<Tensor>, Failure> {
    read_to_host_as(tensors, |_| Ok(None), memory, placement)
}

/// The same, where `becomes` says for a dtype what elements of it become, if not what they are.
pub(crate) fn read_to_host_as(
    tensors: &[(usize, &Tensor)],
    becomes: impl Fn(DType) -> Result<Option<Becomes>>,
    memory: HostMemory<'_>,
    placement: Placement,
) -> Result<Vec<Tensor>, Failure> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let mut read = Vec::with_capacity(tensors.len());
    let mut ends = Vec::with_capacity(tensors.len());
    for &(leaf, tensor) in tensors {
        let end = end_of(tensor, leaf, false).map_err(|error| Failure::of(leaf, error))?;
        let layout = landing(tensor).map_err(|error| Failure::of(leaf, error))?.0;
        let becomes = becomes(tensor.dtype()).map_err(|error| Failure::of(leaf, error))?;
        let (dtype, bytes) = match becomes {
            None => (tensor.dtype(), end.bytes()),
            Some(Becomes { dtype, .. }) => {
                let bytes = dtype.bytes_for(layout.elements());
                (dtype, bytes.map_err(|error| Failure::of(leaf, error.into()))?)
            }
        };
        let conversion = becomes.map(|becomes| becomes.conversion);
        ends.push((dtype, layout, bytes, end, conversion));
    }
    let sizes: Vec<_> = ends.iter().map(|&(_, _, bytes, ..)| bytes).collect();
    let rooms = rooms(tensors, &sizes, memory, placement)?;
    let mut destined = Vec::with_capacity(tensors.len());
    let mut batch = Batch::with_capacity(tensors.len());
    for ((dtype, layout, bytes, end, conversion), room) in ends.into_iter().zip(rooms) {
        let place = room.place;
        // SAFETY: the room is as long as the tensor, initialised, this storage's alone, and kept by its owner.
        let storage = unsafe { Storage::host(place, bytes, room.pinned, true, room.owner) };
        read.push(Tensor::over(dtype, layout, batch.share(storage)));
        destined.push(Destined {
            end,
            place,
            conversion,
        });
    }
    // SAFETY: the rooms lie apart, and nobody else knows of them before this returns.
    unsafe { read_all(&destined)? };
    Ok(read)
}

/// The bytes of a tensor that lies in a file.
pub(crate) fn end_of(tensor: &Tensor, leaf: usize, packed: bool) -> Result<FileEnd> {
    match tensor.storage().place() {
        Place::File(source) => FileEnd::new(tensor, source, leaf, packed),
        Place::Host(_) | Place::Device(_) => unreachable!("sorted as in a file"),
    }
}

/// Initialised memory for one result.
struct Room {
    place: NonNull<u8>,
    pinned: Option<Backend>,
    owner: Arc<dyn Any + Send + Sync>,
}

impl Room {
    fn new(bytes: usize, memory: HostMemory<'_>) -> Result<Self> {
        let leased = match memory {
            HostMemory::Pageable => None,
            HostMemory::Pinned(device) | HostMemory::PinnedIfRoom(device) => {
                let accelerator = device.require_accelerator("pinning host memory")?;
                let engine = accelerator.running.engine();
                let lease = match memory {
                    HostMemory::Pinned(_) => Some(engine.pool.lease(bytes)?),
                    _ => engine.pool.lease_for_result(bytes),
                };
                lease.map(|lease| (lease, engine.driver.properties().id.backend))
            }
        };
        Ok(match leased {
            Some((lease, backend)) => Self {
                place: lease.ptr(),
                pinned: Some(backend),
                owner: Arc::new(lease),
            },
            None => {
                let buffer = Buffer::initialised(bytes)?;
                Self {
                    place: buffer.ptr(),
                    pinned: None,
                    owner: Arc::new(buffer),
                }
            }
        })
    }
}

/// Memory for results of these sizes, of the tensors with their numbers.
fn rooms(
    tensors: &[(usize, &Tensor)],
    sizes: &[usize],
    memory: HostMemory<'_>,
    placement: Placement,
) -> Result<Vec<Room>, Failure> {
    if placement == Placement::Separate {
        let room = |(&(leaf, _), &bytes): (&(usize, &Tensor), &usize)| {
            Room::new(bytes, memory).map_err(|error| Failure::of(leaf, error))
        };
        return tensors.iter().zip(sizes).map(room).collect();
    }
    let mut end = 0_usize;
    let mut offsets = Vec::with_capacity(sizes.len());
    for bytes in sizes {
        let offset = end.next_multiple_of(ALIGNMENT);
        offsets.push(offset);
        let after = offset
            .checked_add(*bytes)
            .filter(|&end| end <= isize::MAX as usize);
        end = after.ok_or(Error::HostMemory { bytes: usize::MAX })?;
    }
    let slab = Room::new(end, memory)?;
    let room = |offset| Room {
        // SAFETY: the slab is as long as what is laid out in it.
        place: unsafe { slab.place.add(offset) },
        pinned: slab.pinned,
        owner: Arc::clone(&slab.owner),
    };
    Ok(offsets.into_iter().map(room).collect())
}

/// Reads every tensor to its place, as what becomes of it.
///
/// # Safety
///
/// The places have room for what the tensors become, are initialised, lie apart, and nobody else touches them meanwhile.
pub(crate) unsafe fn read_all(tensors: &[Destined]) -> Result<(), Failure> {
    share(
        tensors.iter().map(|tensor| tensor.end.bytes()),
        <(Reading, Bounce)>::default,
        |(reading, bounce), items| {
            // Each item that is converted has its own place there.
            let mut room = bounce.for_items(tensors, items);
            for Item { index, range } in items {
                let Destined {
                    end,
                    place,
                    conversion,
                } = &tensors[*index];
                let to = match conversion {
                    // SAFETY: the caller's promise for all places; each item is one thread's.
                    None => unsafe { place.as_ptr().add(range.start) },
                    Some(_) => {
                        let (own, rest) = mem::take(&mut room).split_at_mut(range.len());
                        room = rest;
                        own.as_mut_ptr()
                    }
                };
                // SAFETY: as above, and the bounce is this thread's.
                unsafe { reading.push(end, range.clone(), to)? };
            }
            // SAFETY: as above.
            unsafe { reading.finish()? };
            let mut read = &*bounce.0;
            for Item { index, range } in items {
                let Destined {
                    place, conversion, ..
                } = &tensors[*index];
                let Some(conversion) = conversion else { continue };
                let (own, rest) = read.split_at(range.len());
                read = rest;
                let [from, to] = [conversion.from(), conversion.to()].map(Float::bytes);
                // SAFETY: items begin and end where elements do, for a part is a whole number of elements of any dtype; the
                // caller's promise for what they become, initialised and this thread's.
                let place = unsafe {
                    let start = place.as_ptr().add(range.start / from * to);
                    slice::from_raw_parts_mut(start, range.len() / from * to)
                };
                conversion.convert(own, place);
            }
            Ok(())
        },
    )
}

/// Where a thread reads what it then converts.
#[derive(Default)]
struct Bounce(Vec<u8>);

impl Bounce {
    /// Room for those of the items that are converted.
    fn for_items(&mut self, tensors: &[Destined], items: &[Item]) -> &mut [u8] {
        let converted = items
            .iter()
            .filter(|item| tensors[item.index].conversion.is_some());
        let bytes: usize = converted.map(|item| item.range.len()).sum();
        if self.0.len() < bytes {
            self.0.resize(bytes, 0);
        }
        &mut self.0
    }
}
