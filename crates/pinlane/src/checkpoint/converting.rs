//! Tensors that become another dtype on their way to a device: they arrive as they lie in their files, a group at a time, and a
//! kernel makes of each group what it becomes.
//!
//! What a group holds is cut so that its bytes are bounded, whatever the size of a tensor: one that is longer than a group
//! comes in parts. Of four groups at most there is memory on the device at once: three on their way, and one that has arrived.
//!
//! | a tensor is | when | its result |
//! | --- | --- | --- |
//! | waiting | no part of it has arrived | none, or the tensor that it is loaded into |
//! | begun | a part has arrived and been converted, and another has not | held here, out of everyone's reach |
//! | whole | its last part was converted, and the device is done with that | handed out |
//! | failed | a part of it did not arrive, or could not be converted | let go; later parts are left out |

use std::{collections::VecDeque, mem, ops::Range, vec};

use pinlane_driver::{Conversion, DeviceMemory, sync::Arc};

use super::{Entry, LoadOptions, named::Named};
use crate::{
    DType, Device, Error, Layout, Prefetch, Result, Tensor,
    memory::{
        shared::Batch,
        storage::{DeviceBlock, DeviceBytes, Place, Storage},
    },
    prefetch,
    transfer::{
        convert::{Recast, check_converts, recast_and_wait},
        engine::Engine,
    },
};

/// The bytes of the first group, as they lie in files. It is small, so that the first tensors are there soon.
const FIRST_GROUP: u64 = 16 << 20;

/// The most bytes of a group; each may have twice as many as the one before up to this.
const LARGEST_GROUP: u64 = 64 << 20;

/// How many groups are on their way while one is converted.
const AHEAD: usize = 3;

/// A place in a new allocation begins at a multiple of so many bytes.
const ALIGNMENT: usize = 256;

/// A tensor that is to be on the device.
struct Incoming {
    name: String,
    /// What it becomes.
    dtype: DType,
    layout: Layout,
    /// How its elements become that, where they are not that already.
    conversion: Option<Conversion>,
    /// Bytes in the file.
    from_bytes: usize,
    /// Bytes on the device.
    bytes: usize,
    /// The memory that it goes to, if there is some already.
    into: Option<DeviceBytes>,
}

/// The part of a tensor that a group holds.
struct Part {
    tensor: usize,
    /// Which bytes of it, as it lies in its file.
    range: Range<usize>,
}

/// Tensors on their way to one device.
pub(super) struct Converting {
    device: Device,
    tensors: Vec<Incoming>,
    groups: Prefetch<vec::IntoIter<Named>>,
    /// What each of the groups holds that have not arrived.
    parts: VecDeque<Vec<Part>>,
    /// The tensor that has begun, and where it goes.
    begun: Option<(usize, DeviceBytes)>,
}

impl Converting {
    /// Tensors that go to `device` and become what `options` say. With each comes the memory that it goes to, where that is not
    /// to be made.
    pub(super) fn new<'a>(
        entries: impl Iterator<Item = (Entry<'a>, Option<DeviceBytes>)>,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self> {
        let engine = engine(device)?;
        let (mut cutting, mut checked) = (Cutting::default(), false);
        let mut tensors = Vec::new();
        for (number, (entry, into)) in entries.enumerate() {
            let incoming = Incoming::new(entry, into, options).map_err(|error| at(entry.name(), error))?;
            // A driver can do all of them, or none.
            if let Some(conversion) = incoming.conversion
                && !checked
            {
                check_converts(engine, conversion)?;
                checked = true;
            }
            cutting.take(entry, number)?;
            tensors.push(incoming);
        }
        let (groups, parts) = cutting.finish();
        Ok(Self {
            device: device.clone(),
            tensors,
            groups: prefetch(groups, device, AHEAD),
            parts,
            begun: None,
        })
    }

    /// Has the first groups on their way.
    pub(super) fn start(&mut self) {
        self.groups.top_up();
    }

    /// Converts the next group, and gives the tensors that are whole with it, each with its number. An error stands for what
    /// has a part in the group; the groups after it still come.
    pub(super) fn next_group(&mut self) -> Option<Result<Vec<(usize, Tensor)>>> {
        let landed = self.groups.next()?;
        let parts = self.parts.pop_front().unwrap_or_default();
        let begun = self.begun.take();
        Some(landed.and_then(|landed| self.convert(landed, &parts, begun)))
    }

    /// What a tensor is called.
    pub(super) fn name(&self, tensor: usize) -> &str {
        &self.tensors[tensor].name
    }

    fn convert(
        &mut self,
        landed: Named,
        parts: &[Part],
        begun: Option<(usize, DeviceBytes)>,
    ) -> Result<Vec<(usize, Tensor)>> {
        let landed: Vec<Tensor> = landed.into_iter().map(|(_, tensor)| tensor).collect();
        let places = self.places(parts, begun)?;
        let mut recasts = Vec::with_capacity(parts.len());
        for ((part, place), tensor) in parts.iter().zip(&places).zip(&landed) {
            let (Some(place), Place::Device(from)) = (place, tensor.storage().place()) else {
                continue;
            };
            let incoming = &self.tensors[part.tensor];
            recasts.push(Recast {
                dst: place.ptr().offset(incoming.becomes(part.range.start)),
                src: from.ptr(),
                bytes: part.range.len(),
                conversion: incoming.conversion,
            });
        }
        let engine = engine(&self.device)?;
        // SAFETY: the group has landed, so nobody writes it, and it is kept here; the places are new, or seized, and each is one
        // tensor's alone. Both are kept for ever where the end can't be known.
        if let Err(error) = unsafe { recast_and_wait(engine, &recasts) } {
            if error.leaves_memory_in_use() {
                engine
                    .leaks
                    .add(recasts.iter().map(|recast| recast.bytes as u64).sum());
                landed.iter().for_each(|tensor| tensor.storage().leak());
                let places = places.into_iter().flatten();
                places.for_each(|place| mem::forget(place.memory));
            }
            return Err(error);
        }
        let mut whole = Vec::with_capacity(parts.len());
        let mut batch = Batch::with_capacity(parts.len());
        for (part, place) in parts.iter().zip(places) {
            let Some(place) = place else { continue };
            let incoming = &self.tensors[part.tensor];
            if part.range.end < incoming.from_bytes {
                self.begun = Some((part.tensor, place));
                continue;
            }
            let storage = Storage::device(self.device.clone(), place.memory, place.offset);
            let tensor = Tensor::over(incoming.dtype, incoming.layout.clone(), batch.share(storage));
            whole.push((part.tensor, tensor));
        }
        Ok(whole)
    }

    /// Where each of these parts' tensors goes; `None` for the rest of one that has failed. Those that are whole here share an
    /// allocation, and one that is not has its own.
    fn places(
        &self,
        parts: &[Part],
        begun: Option<(usize, DeviceBytes)>,
    ) -> Result<Vec<Option<DeviceBytes>>> {
        let mut end = 0_usize;
        let shares = |part: &Part| {
            let incoming = &self.tensors[part.tensor];
            (incoming.into.is_none() && part.range == (0..incoming.from_bytes)).then_some(incoming.bytes)
        };
        let offsets = parts.iter().map(|part| {
            let bytes = shares(part)?;
            let offset = end;
            end = (end + bytes).next_multiple_of(ALIGNMENT);
            Some(offset)
        });
        let offsets: Vec<_> = offsets.collect();
        let slab = match offsets.iter().any(Option::is_some) {
            true => Some(self.allocate(end)?),
            false => None,
        };
        let mut begun = begun;
        let mut places = Vec::with_capacity(parts.len());
        for (part, offset) in parts.iter().zip(offsets) {
            let incoming = &self.tensors[part.tensor];
            places.push(match (offset, &slab, &incoming.into) {
                (Some(offset), Some(slab), _) => Some(DeviceBytes {
                    offset,
                    ..slab.clone()
                }),
                _ if part.range.start > 0 => begun
                    .take_if(|(tensor, _)| *tensor == part.tensor)
                    .map(|(_, place)| place),
                (_, _, Some(into)) => Some(into.clone()),
                _ => Some(self.allocate(incoming.bytes)?),
            });
        }
        Ok(places)
    }

    fn allocate(&self, bytes: usize) -> Result<DeviceBytes> {
        let memory = DeviceMemory::new(&engine(&self.device)?.driver, bytes)
            .map_err(|source| Error::driver("making room for tensors on the device", source))?;
        Ok(DeviceBytes {
            device: self.device.clone(),
            memory: Arc::new(DeviceBlock(memory)),
            offset: 0,
        })
    }
}

fn engine(device: &Device) -> Result<&Engine> {
    Ok(device.require_accelerator("converting tensors")?.running.engine())
}

/// The error with the tensor's name.
pub(super) fn at(name: &str, error: Error) -> Error {
    Error::Leaf {
        path: name.to_owned(),
        source: Box::new(error),
    }
}

impl Incoming {
    fn new(entry: Entry<'_>, into: Option<DeviceBytes>, options: &LoadOptions) -> Result<Self> {
        let becomes = options.becomes(entry.dtype())?;
        let dtype = becomes.map_or(entry.dtype(), |becomes| becomes.dtype);
        let layout = Layout::contiguous(entry.shape())?;
        Ok(Self {
            name: entry.name().to_owned(),
            dtype,
            conversion: becomes.map(|becomes| becomes.conversion),
            from_bytes: entry.dtype().bytes_for(layout.elements())?,
            bytes: dtype.bytes_for(layout.elements())?,
            layout,
            into,
        })
    }

    /// How many bytes so many become: whole elements.
    fn becomes(&self, bytes: usize) -> usize {
        self.conversion.map_or(bytes, |conversion| {
            bytes / conversion.from().bytes() * conversion.to().bytes()
        })
    }
}

/// Tensors on their way into groups.
struct Cutting {
    groups: Vec<Named>,
    parts: VecDeque<Vec<Part>>,
    group: Vec<(String, Tensor)>,
    group_parts: Vec<Part>,
    /// Bytes that the group has room for, and how many it had in the beginning.
    room: u64,
    limit: u64,
}

impl Default for Cutting {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            parts: VecDeque::new(),
            group: Vec::new(),
            group_parts: Vec::new(),
            room: FIRST_GROUP,
            limit: FIRST_GROUP,
        }
    }
}

impl Cutting {
    /// Puts a tensor in the group, or in groups of its own where it is too long. Cuts are between elements: a group's limit is
    /// a whole number of any.
    fn take(&mut self, entry: Entry<'_>, tensor: usize) -> Result<()> {
        let data = entry.file_range();
        let mut at = data.start;
        loop {
            let rest = data.end - at;
            if rest > self.room && !self.group.is_empty() {
                self.close();
            }
            let bytes = rest.min(self.room);
            let source = entry.shard().range(at..at + bytes)?;
            self.group.push((entry.name().to_owned(), source));
            let start = at - data.start;
            self.group_parts.push(Part {
                tensor,
                range: start as usize..(start + bytes) as usize,
            });
            self.room -= bytes;
            at += bytes;
            if at == data.end {
                return Ok(());
            }
        }
    }

    /// Goes on with a new group.
    fn close(&mut self) {
        self.groups.push(Named::new(mem::take(&mut self.group)));
        self.parts.push_back(mem::take(&mut self.group_parts));
        self.limit = (self.limit * 2).min(LARGEST_GROUP);
        self.room = self.limit;
    }

    fn finish(mut self) -> (Vec<Named>, VecDeque<Vec<Part>>) {
        if !self.group.is_empty() {
            self.close();
        }
        (self.groups, self.parts)
    }
}
