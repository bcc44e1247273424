//! The leaves of a tree, by the way they go.

use super::{into::Destinations, outputs::Outputs, plan::Direction};
use crate::{
    Device, Result, Tensor,
    error::Failure,
    file::reading::order_by_file,
    memory::{
        list::{self, List},
        shared::Shared,
        storage::Place,
        walk,
    },
};

/// The leaves of a tree, by what has to be done with them.
pub(super) struct Sorted<'a> {
    pub(super) groups: Vec<Group<'a>>,
    /// Leaves that are on the host, as their destinations are, with their numbers in the tree.
    pub(super) on_host: List<(usize, &'a Tensor)>,
    /// Leaves in files that new tensors on the host are made of, with their numbers in the tree.
    pub(super) in_files: List<(usize, &'a Tensor)>,
    /// Room for all results; filled for leaves that need no copy.
    pub(super) outputs: Outputs,
}

/// Tensors that move between the same two places.
pub(super) struct Group<'a> {
    pub(super) way: Way<'a>,
    /// Each with its number in the tree.
    pub(super) members: List<(usize, &'a Tensor)>,
}

/// Where tensors come from, and where they go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way<'a> {
    Upload,
    Download(&'a Device),
    Between(&'a Device),
}

impl Way<'_> {
    pub(super) fn direction(self) -> Direction {
        match self {
            Way::Upload => Direction::ToDevice,
            Way::Between(_) => Direction::OnDevice,
            Way::Download(_) => Direction::ToHost,
        }
    }
}

impl<'a> Sorted<'a> {
    /// Sorts leaves that go to `to`, or `into` tensors that are there; `path` is what to call one in errors. Those that need
    /// no copy are results already.
    pub(super) fn new(
        leaves: &[&'a Tensor],
        to: &Device,
        into: Option<Destinations<'_>>,
        path: &dyn Fn(usize) -> String,
    ) -> Result<Self> {
        let results = if into.is_some() { 0 } else { leaves.len() };
        let mut sorted = Self {
            groups: Vec::new(),
            on_host: list::empty(),
            in_files: list::empty(),
            outputs: Outputs::with_capacity(results),
        };
        let mut some_in_files = false;
        let in_turn = walk::scattered(leaves, |tensor| Shared::address(tensor.storage()));
        for (index, &tensor) in in_turn.enumerate() {
            tensor
                .check_landed("moving a tensor")
                .and_then(|()| {
                    let check = |into: Destinations<'_>| into.check(index, tensor, || path(index));
                    into.map_or(Ok(()), check)
                })
                .map_err(|error| Failure::of(index, error).named(path))?;
            let place = tensor.storage().place();
            some_in_files |= matches!(place, Place::File(_));
            let way = match (place, to.is_host()) {
                (Place::Host(_) | Place::File(_), true) if into.is_some() => {
                    sorted.on_host.push((index, tensor));
                    continue;
                }
                (Place::Host(_), true) => {
                    sorted.outputs.put(index, tensor.clone());
                    continue;
                }
                (Place::File(_), true) => {
                    sorted.in_files.push((index, tensor));
                    continue;
                }
                (Place::Device(from), _) if from.device == *to && into.is_none() => {
                    sorted.outputs.put(index, tensor.clone());
                    continue;
                }
                (Place::Host(_) | Place::File(_), false) => Way::Upload,
                (Place::Device(from), true) => Way::Download(&from.device),
                (Place::Device(from), false) => Way::Between(&from.device),
            };
            sorted.add(way, index, tensor, leaves.len() - index);
        }
        if some_in_files {
            let groups = sorted.groups.iter_mut().map(|group| &mut group.members);
            groups
                .chain([&mut sorted.in_files, &mut sorted.on_host])
                .for_each(|members| order_by_file(members));
        }
        Ok(sorted)
    }

    /// Adds the leaf of number `index` to those that go the same way; `rest` leaves are to come, with this one.
    #[inline]
    fn add(&mut self, way: Way<'a>, index: usize, tensor: &'a Tensor, rest: usize) {
        // Trees come from one place mostly, so the last group is the one.
        match self.groups.iter_mut().rev().find(|group| group.way == way) {
            Some(group) => group.members.push((index, tensor)),
            None => {
                let mut members = list::with_capacity(rest);
                members.push((index, tensor));
                self.groups.push(Group { way, members });
            }
        }
    }
}
