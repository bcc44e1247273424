//! Memory for results, and where in it each lies.

use std::{any::Any, ptr::NonNull, sync::Arc};

use pinlane::{
    Device, HostMemory,
    driver::{Backend, DevicePtr},
};
use pyo3::{exceptions::PyValueError, intern, prelude::*};

use super::{Group, Leaf, Start};
use crate::{
    errors,
    kept::Kept,
    memory::{Memory, made_or_drained},
};

/// Where each leaf begins in memory that they share, in bytes. `pinlane._collate` lays out its slabs so too.
pub(super) const ALIGNMENT: usize = 256;

/// Where a result begins: the number of a room, and bytes in it.
pub(super) type Place = (usize, usize);

/// Memory that results lie in.
pub(super) struct Room<'py> {
    /// Torch's memory as one run of bytes, or ours.
    pub(super) object: Bound<'py, PyAny>,
    address: usize,
    /// The family of drivers that has pinned it.
    pub(super) pinned: Option<Backend>,
    pub(super) owner: Arc<dyn Any + Send + Sync>,
}

impl Room<'_> {
    /// An address in it, of a device.
    pub(super) fn device_ptr(&self, offset: usize) -> DevicePtr {
        DevicePtr((self.address + offset) as u64)
    }

    /// An address in it, of the host.
    pub(super) fn host_ptr(&self, offset: usize) -> PyResult<NonNull<u8>> {
        pointer(self.address + offset)
    }
}

/// Memory of the host at an address.
pub(super) fn pointer(address: usize) -> PyResult<NonNull<u8>> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(address))
        .ok_or_else(|| PyValueError::new_err("a tensor has elements and no memory"))
}

impl<'py> Start<'_, 'py> {
    /// Takes memory for a group's results; says where each lies.
    pub(super) fn make_room(&self, group: &Group) -> PyResult<(Vec<Room<'py>>, Vec<Place>)> {
        let mut places = Vec::with_capacity(group.leaves.len());
        if !self.wishes.slab {
            let mut rooms = Vec::with_capacity(group.leaves.len());
            for (index, leaf) in group.leaves.iter().enumerate() {
                let room = self.room(&group.from, self.forms.get(leaf.form).bytes);
                rooms.push(room.map_err(|error| self.no_room(&error, std::slice::from_ref(leaf)))?);
                places.push((index, 0));
            }
            return Ok((rooms, places));
        }
        let mut end = 0usize;
        for leaf in &group.leaves {
            places.push((0, end));
            let bytes = self.forms.get(leaf.form).bytes;
            end = end
                .checked_add(bytes)
                .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
                .ok_or_else(|| {
                    PyValueError::new_err("these tensors are larger together than memory can be")
                })?;
        }
        let room = self.room(&group.from, end);
        let room = room.map_err(|error| self.no_room(&error, &group.leaves))?;
        Ok((vec![room], places))
    }

    /// The exception where there is no room for some leaves: it names the largest.
    fn no_room(&self, error: &PyErr, leaves: &[Leaf]) -> PyErr {
        let largest = leaves.iter().max_by_key(|leaf| self.forms.get(leaf.form).bytes);
        let path = largest.map_or_else(String::new, |leaf| self.tree.get().path_of(self.py, leaf.number));
        let path = match leaves.len() {
            1 => path,
            count => format!("{count} tensors, the largest of them {path}"),
        };
        errors::of_room(self.py, error, &path)
    }

    /// Memory on the target, for what comes from `from`.
    fn room(&self, from: &Device, bytes: usize) -> PyResult<Room<'py>> {
        let py = self.py;
        let is_gpu = |device: &Device| {
            device
                .driver()
                .is_some_and(|driver| !driver.properties().simulated)
        };
        if is_gpu(&self.target) {
            let (object, address): (Bound<'py, PyAny>, usize) =
                self.plan.call_method1(intern!(py, "room"), (bytes,))?.extract()?;
            return Ok(Room {
                owner: Arc::new(Kept::new(vec![object.clone().unbind()])),
                object,
                address,
                pinned: None,
            });
        }
        let target = &self.target;
        let on_host = match self.wishes.pin {
            Some(true) => HostMemory::Pinned(from),
            Some(false) => HostMemory::Pageable,
            None => HostMemory::PinnedIfRoom(from),
        };
        let device = if target.is_host() { from } else { target };
        let made = made_or_drained(py, device, || match target.is_host() {
            true => Memory::on_host(bytes, on_host),
            false => Memory::on_simulated(target, bytes),
        });
        let memory = made.map_err(|error| errors::from_engine(py, &error))?;
        Ok(Room {
            address: memory.ptr().addr().get(),
            pinned: memory.pinned(),
            owner: Arc::clone(memory.owner()),
            object: Bound::new(py, memory)?.into_any(),
        })
    }
}
