//! Handing a group's bytes to the engine, as pieces of memory.

use std::{any::Any, ptr, sync::Arc};

use pinlane::{Direction, Error, Pieces, Profile, driver::DevicePtr};
use pyo3::{intern, prelude::*};

use super::{
    Group, Leaf, Start,
    rooms::{ALIGNMENT, Place, Room, pointer},
};
use crate::{
    errors,
    flight::{Part, Source},
    kept::Kept,
};

/// Memory shorter than this is not asked whether it is pinned: copying it costs less than the question.
const ASK_WHETHER_PINNED: usize = 16 << 10;

/// Of neighbours on a device, so many have to have shared a storage for the next to be asked about theirs.
const WORTH_ASKING_AGAIN: usize = 8;

/// Memory of the host by who reads it: addresses and bytes.
#[derive(Default)]
struct Readers {
    /// Lanes, which copy it into slots.
    host: Vec<(usize, usize)>,
    /// The device, where it lies; but what is short may be packed with others.
    device: Vec<(usize, usize)>,
}

impl<'py> Start<'_, 'py> {
    /// Has the engine move a group into its rooms.
    pub(super) fn send(
        &self,
        group: &Group,
        rooms: &[Room<'py>],
        places: &[Place],
        sources: &Arc<Vec<Source>>,
    ) -> PyResult<Part> {
        let py = self.py;
        let failed = |error: Error| errors::from_engine(py, &error);
        let recorded = self.what_to_wait_for(&group.from)?;
        let (device, direction) = match (group.from.is_host(), self.target.is_host()) {
            (true, _) => (&self.target, Direction::ToDevice),
            (false, true) => (&group.from, Direction::ToHost),
            (false, false) => (&self.target, Direction::OnDevice),
        };
        let mut pieces = Pieces::new(device, direction, group.leaves.len()).map_err(failed)?;
        // What tensors of others lie in is not known; results share a room where there is but one.
        if direction == Direction::ToHost || rooms.len() != 1 {
            pieces = pieces.apart();
        }
        let readers = match direction {
            Direction::ToDevice => Some(self.push_uploads(&mut pieces, group, rooms, places)?),
            _ => {
                self.push_from_device(&mut pieces, group, rooms, places)?;
                None
            }
        };
        let mut after = recorded.map_or(Ok(None), |event| self.unfired(event))?;
        if let (Some(event), Some(readers)) = (&after, &readers)
            && self.may_be_written(readers)
        {
            self.wait_for(event)?;
            after = None;
        }
        // The tree keeps the leaves; what was moved instead of some of them is kept beside it.
        let mut kept = vec![self.tree.clone().into_any().unbind()];
        kept.extend(self.replacements.iter().map(|object| object.clone_ref(py)));
        let rooms: Vec<_> = rooms.iter().map(|room| Arc::clone(&room.owner)).collect();
        // Tensors may be given other memory while theirs is read, which sources keep. What is kept goes last: it has references
        // given up that are let go of on a thread of the engine.
        let owner: Arc<dyn Any + Send + Sync> = Arc::new((Arc::clone(sources), Kept::new(kept), rooms));
        let blocking = !self.wishes.watch;
        let reads_in_place = readers.is_none_or(|readers| !readers.device.is_empty());
        // SAFETY: leaves and rooms are kept by the owner. The rooms are the results' alone, where these do not overlap, and
        // nobody gets them before they have landed, or on a stream that comes after. Who writes a leaf meanwhile, from
        // another thread or while the transfer is in flight, breaks the package's rule for sources: the copy then has some
        // of both, and is refused where torch's version counter tells. What the streams still do with either is waited for.
        let transfer = py.detach(|| unsafe { pieces.start(after, owner, blocking) });
        Ok(Part::new(transfer.map_err(failed)?, &self.target, reads_in_place))
    }

    /// Pushes what comes from a device.
    fn push_from_device(
        &self,
        pieces: &mut Pieces,
        group: &Group,
        rooms: &[Room<'py>],
        places: &[Place],
    ) -> PyResult<()> {
        if self.target.is_host() {
            return self.push_to_host(pieces, &group.leaves, rooms, places);
        }
        for (leaf, &(room, offset)) in group.leaves.iter().zip(places) {
            let (at, bytes) = (rooms[room].device_ptr(offset), self.forms.get(leaf.form).bytes);
            let pushed = pieces.push_peer(at, &group.from, DevicePtr(leaf.address as u64), bytes);
            pushed.map_err(|error| self.at(leaf.number, error))?;
        }
        Ok(())
    }

    /// Pushes what comes to the host.
    ///
    /// Leaves that lie next to each other in one storage as they will on the host, as those that came to the device together
    /// do, are one piece. Torch is asked little: where neighbours turn out to have storages of their own, the others next to
    /// them are taken to have so too.
    fn push_to_host(
        &self,
        pieces: &mut Pieces,
        mut leaves: &[Leaf],
        rooms: &[Room<'py>],
        mut places: &[Place],
    ) -> PyResult<()> {
        // How many of the leaves are known to be neighbours of others that share no storage.
        let mut loose = 0;
        while let (Some(leaf), Some(&(room, offset))) = (leaves.first(), places.first()) {
            let (mut count, mut bytes) = (1, self.forms.get(leaf.form).bytes);
            if loose == 0 {
                let (neighbours, _) = self.neighbours(leaves, places);
                if neighbours > 1 {
                    (count, bytes) = self.in_one_storage(&leaves[..neighbours])?;
                }
                if count < WORTH_ASKING_AGAIN {
                    loose = neighbours;
                }
            }
            loose = loose.saturating_sub(count);
            let (from, room) = (DevicePtr(leaf.address as u64), &rooms[room]);
            pieces.push(from, room.host_ptr(offset)?, bytes, room.pinned.is_some());
            (leaves, places) = (&leaves[count..], &places[count..]);
        }
        Ok(())
    }

    /// How many of the leaves, from the first on, lie in the memory that torch knows as the first one's, and so in one
    /// allocation; and the bytes from its beginning to the end of the last of them.
    fn in_one_storage(&self, leaves: &[Leaf]) -> PyResult<(usize, usize)> {
        let (py, first) = (self.py, &leaves[0]);
        let alone = (1, self.forms.get(first.form).bytes);
        let tensor = self.tree.get().leaves()[first.number].bind(py);
        let Some(storage) = tensor.getattr_opt(intern!(py, "untyped_storage"))? else {
            return Ok(alone);
        };
        let storage = storage.call0()?;
        let start: usize = storage.call_method0(intern!(py, "data_ptr"))?.extract()?;
        let end = start + storage.call_method0(intern!(py, "nbytes"))?.extract::<usize>()?;
        if !(start..end).contains(&first.address) {
            // What is moved instead of a leaf lies elsewhere.
            return Ok(alone);
        }
        let ends = leaves
            .iter()
            .map(|leaf| leaf.address + self.forms.get(leaf.form).bytes);
        let inside = ends.take_while(|&leaf_end| leaf_end <= end);
        let (count, last) = inside.fold((0, first.address), |(count, _), leaf_end| (count + 1, leaf_end));
        Ok((count.max(1), (last - first.address).max(alone.1)))
    }

    /// Pushes what goes from the host to a device; says what reads it there.
    ///
    /// Neighbours in pinned memory that are neighbours on the device too are one piece.
    fn push_uploads(
        &self,
        pieces: &mut Pieces,
        group: &Group,
        rooms: &[Room<'py>],
        places: &[Place],
    ) -> PyResult<Readers> {
        let mut readers = Readers::default();
        let (mut leaves, mut places) = (&group.leaves[..], places);
        while let (Some(leaf), Some(&(room, offset))) = (leaves.first(), places.first()) {
            let (count, bytes) = self.neighbours(leaves, places);
            let (these, those) = leaves.split_at(count);
            if count > 1 && self.is_pinned(leaf.address, bytes) {
                let at = rooms[room].device_ptr(offset);
                pieces.push(at, pointer(leaf.address)?, bytes, true);
                readers.device.push((leaf.address, bytes));
            } else {
                for (leaf, &(room, offset)) in these.iter().zip(places) {
                    let at = rooms[room].device_ptr(offset);
                    self.push_upload(pieces, leaf, at, &mut readers)?;
                }
            }
            (leaves, places) = (those, &places[count..]);
        }
        Ok(readers)
    }

    /// Pushes one leaf.
    fn push_upload(
        &self,
        pieces: &mut Pieces,
        leaf: &Leaf,
        at: DevicePtr,
        readers: &mut Readers,
    ) -> PyResult<()> {
        let form = self.forms.get(leaf.form);
        if form.bytes == 0 {
            return Ok(());
        }
        let from = pointer(leaf.address)?;
        if let Some(copy) = &form.gathered {
            readers.host.push((leaf.address, form.bytes));
            let pushed = pieces.push_strided(at, from, copy.clone());
            return pushed.map_err(|error| self.at(leaf.number, error));
        }
        let is_pinned = self.is_pinned(leaf.address, form.bytes);
        pieces.push(at, from, form.bytes, is_pinned);
        if is_pinned {
            readers.device.push((leaf.address, form.bytes));
        } else {
            readers.host.push((leaf.address, form.bytes));
        }
        Ok(())
    }

    /// Whether the caller's stream, which is not done, may still be writing something that the engine reads by itself, and
    /// not in the stream's order: that is short memory, or strided, and pinned.
    fn may_be_written(&self, readers: &Readers) -> bool {
        let packed_below = self.target.profile().map_or(0, Profile::direct_bytes);
        let by_the_host = readers.host.iter();
        let packed = readers
            .device
            .iter()
            .filter(|(_, bytes)| (*bytes as u64) < packed_below);
        by_the_host
            .chain(packed)
            .any(|&(address, bytes)| self.is_known_as_pinned(address, bytes))
    }

    /// How many of the leaves, from the first on, lie as far from each other as their places do, with no more than padding
    /// between; and the bytes from the beginning of the first to the end of the last.
    fn neighbours(&self, leaves: &[Leaf], places: &[Place]) -> (usize, usize) {
        let (first, (room, start)) = (&leaves[0], places[0]);
        let mut bytes = self.forms.get(first.form).bytes;
        let follows = |bytes: usize, leaf: &Leaf, place: Place| {
            let offset = leaf.address.wrapping_sub(first.address);
            let in_place = place.0 == room && place.1 - start == offset;
            in_place && (bytes..bytes + ALIGNMENT).contains(&offset)
        };
        let mut count = 1;
        for (leaf, &place) in leaves.iter().zip(places).skip(1) {
            let form = self.forms.get(leaf.form);
            if !self.forms.get(first.form).is_dense() || !form.is_dense() || !follows(bytes, leaf, place) {
                break;
            }
            bytes = place.1 - start + form.bytes;
            count += 1;
        }
        (count, bytes)
    }

    /// Whether the target reads all of this memory of the host by itself.
    fn is_pinned(&self, address: usize, bytes: usize) -> bool {
        bytes >= ASK_WHETHER_PINNED && self.is_known_as_pinned(address, bytes)
    }

    fn is_known_as_pinned(&self, address: usize, bytes: usize) -> bool {
        let from = ptr::with_exposed_provenance(address);
        self.target
            .driver()
            .is_some_and(|driver| driver.is_pinned(from, bytes))
    }
}
