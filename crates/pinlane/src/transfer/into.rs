//! Moving into tensors that exist already.
//!
//! Before anything moves, the destinations are *seized*: each tensor's storage is taken out of it, which takes exclusive
//! access and the only reference there is, and another over the same memory is left, out of reach until everything has
//! landed. So nobody can touch a destination while bytes are on their way, however the tree that holds it is made; and
//! where the transfer fails it stays out of reach, because what it holds then is neither the old nor the new. Where the
//! transfer is refused before it began, the destinations are given back.

use std::ptr::NonNull;

use pinlane_driver::sync::Arc;

use super::on_host::{HostCopy, Origin, copy_all};
use crate::{
    Device, Error, Layout, Result, Tensor, Tree,
    conversion::Becomes,
    error::Failure,
    file::to_host::{Destined, end_of, read_all},
    landing::{packing, span_bytes},
    memory::{
        shared::{Batch, Shared},
        storage::{Landing, Place, Storage},
    },
};

/// Tensors that were taken from a tree to be filled.
pub(crate) struct Seized {
    places: Vec<Tensor>,
    /// To be set when all of them have landed.
    landing: Arc<Landing>,
}

impl Seized {
    /// Takes the tensors of `into`, of which there should be `expected`, or none of them.
    pub(crate) fn of<T: Tree>(into: &mut T, expected: usize) -> Result<Self> {
        let landing = Arc::default();
        let mut seized = Self {
            places: Vec::with_capacity(expected),
            landing: Arc::clone(&landing),
        };
        let mut batch = Batch::with_capacity(expected);
        let mut refused = None;
        let visited = into.visit_mut(&mut |tensor| {
            if refused.is_some() {
                return;
            }
            match seize(tensor, &landing, &mut batch) {
                Ok(place) => seized.places.push(place),
                Err(error) => refused = Some((seized.places.len(), error)),
            }
        });
        match refused {
            None if visited => Ok(seized),
            None => {
                seized.give_back(into);
                Err(Error::Unsupported {
                doing: "copying into a tree",
                reason:
                    "this kind of tree does not give its tensors to be changed; implement `Tree::visit_mut`"
                        .to_owned(),
                })
            }
            Some((index, error)) => {
                seized.give_back(into);
                Err(Error::Leaf {
                    path: into.path(index),
                    source: Box::new(error),
                })
            }
        }
    }

    /// Puts the tensors back, of a transfer that has not begun.
    pub(crate) fn give_back<T: Tree>(self, into: &mut T) {
        let mut places = self.places.into_iter();
        into.visit_mut(&mut |tensor| {
            if let Some(place) = places.next() {
                *tensor = place;
            }
        });
    }

    /// The tensors, in order.
    pub(crate) fn places(&self) -> &[Tensor] {
        &self.places
    }

    /// What makes them readable again.
    pub(crate) fn landing(&self) -> &Arc<Landing> {
        &self.landing
    }
}

/// Takes a tensor that nobody else can reach, and leaves one, of `batch`, that nobody can before `landing` is set.
fn seize(tensor: &mut Tensor, landing: &Arc<Landing>, batch: &mut Batch<Storage>) -> Result<Tensor> {
    tensor.check_landed("copying into a tensor")?;
    if !tensor.layout().is_contiguous() {
        return Err(Error::Unsupported {
            doing: "copying into a tensor",
            reason: "the destination is strided; copy into a contiguous tensor".to_owned(),
        });
    }
    let storage = Shared::get_mut(tensor.storage_mut()).ok_or(Error::Shared)?;
    let writable = match storage.place() {
        Place::Host(host) => host.is_writable(),
        Place::Device(_) => true,
        Place::File(_) => false,
    };
    if !writable {
        return Err(Error::Shared);
    }
    let left = storage.again().until(landing);
    let left = Tensor::over(tensor.dtype(), tensor.layout().clone(), batch.share(left));
    Ok(std::mem::replace(tensor, left))
}

/// Leaves a tensor whose bytes are neither the old nor the new out of reach for ever.
pub(crate) fn put_out_of_reach(tensor: &mut Tensor) {
    let storage = tensor.storage().again().until(&Arc::default());
    *tensor = Tensor::new(tensor.dtype(), tensor.layout().clone(), storage);
}

/// Seized tensors to move into, one for each that moves.
#[derive(Clone, Copy)]
pub(crate) struct Destinations<'a> {
    places: &'a [Tensor],
    /// What a tree calls each, where that says which goes into which.
    path: Option<&'a dyn Fn(usize) -> String>,
}

impl<'a> Destinations<'a> {
    /// `places`, where there are as many as `leaves`.
    pub(crate) fn new(
        leaves: &[&Tensor],
        places: &'a [Tensor],
        path: Option<&'a dyn Fn(usize) -> String>,
    ) -> Result<Self> {
        if leaves.len() == places.len() {
            return Ok(Self { places, path });
        }
        Err(Error::Unsupported {
            doing: "copying into a tree",
            reason: format!(
                "the source has {} tensors and the destination {}; both need the same number, in the same order",
                leaves.len(),
                places.len()
            ),
        })
    }

    /// The device that all of them are on; the host where there are none.
    pub(crate) fn device(self) -> Result<Device> {
        let first = self
            .places
            .first()
            .map_or_else(Device::host, |tensor| tensor.device());
        match self
            .places
            .iter()
            .map(Tensor::device)
            .find(|device| *device != first)
        {
            None => Ok(first),
            Some(other) => Err(Error::Unsupported {
                doing: "copying into a tree",
                reason: format!(
                    "the destination's tensors are on {first} and on {other}; copy into one device's at a time"
                ),
            }),
        }
    }

    pub(crate) fn get(self, index: usize) -> &'a Tensor {
        &self.places[index]
    }

    /// Refuses a destination that `source`, which its tree calls `name`, does not fit.
    pub(crate) fn check(self, index: usize, source: &Tensor, name: impl FnOnce() -> String) -> Result<()> {
        let into = &self.places[index];
        if let Some(path) = self.path {
            let (name, path) = (name(), path(index));
            if name != path {
                return Err(Error::Unsupported {
                    doing: "copying into a tensor",
                    reason: format!(
                        "the destination has {path} in the place of {name}; both trees must have the same names in the \
                         same order"
                    ),
                });
            }
        }
        if source.dtype() == into.dtype() && source.shape() == into.shape() {
            return Ok(());
        }
        Err(Error::Unsupported {
            doing: "copying into a tensor",
            reason: format!(
                "the source is {} {:?} and the destination {} {:?}; dtype and shape must be the same",
                source.dtype(),
                source.shape(),
                into.dtype(),
                into.shape()
            ),
        })
    }

    /// Copies tensors that are on the host, or in files, into their destinations there; each comes with its number. Those in files
    /// become what their destinations are.
    pub(crate) fn fill_on_host(self, sources: &[(usize, &Tensor)]) -> Result<(), Failure> {
        let (mut copies, mut in_files) = (Vec::with_capacity(sources.len()), Vec::new());
        for &(index, source) in sources {
            self.collect(index, source, &mut copies, &mut in_files)
                .map_err(|error| Failure::of(index, error))?;
        }
        // SAFETY: the destinations were seized, each by itself; they are there until they are given back, and those of tensors in
        // files fit these.
        unsafe {
            copy_all(&copies)?;
            read_all(&in_files)
        }
    }

    /// Adds the copy of a tensor that is on the host to its destination, or the reading of one that lies in a file.
    fn collect<'s>(
        self,
        index: usize,
        source: &'s Tensor,
        copies: &mut Vec<HostCopy<'s>>,
        in_files: &mut Vec<Destined>,
    ) -> Result<()> {
        let into = &self.places[index];
        let mut storage = into.storage().again();
        let bytes = &mut storage.bytes_mut().ok_or(Error::Shared)?[span_bytes(into)?];
        if let Place::File(_) = source.storage().place() {
            let end = end_of(source, index, true)?;
            let place = NonNull::from(bytes).cast();
            let becomes = match source.dtype() == into.dtype() {
                true => None,
                false => Becomes::of(source.dtype(), into.dtype())?,
            };
            in_files.push(Destined {
                end,
                place,
                conversion: becomes.map(|becomes| becomes.conversion),
            });
            return Ok(());
        }
        let from = Origin::new(source, packing(source)?.1, "copying a tensor")?;
        copies.push(HostCopy::new(from, bytes));
        Ok(())
    }
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
