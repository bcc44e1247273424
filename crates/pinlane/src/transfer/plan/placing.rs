//! Where leaves lie on the device: in a slab, each aligned, or in allocations of their own.

use super::{Leaf, Region, build::Refused};
use crate::{
    Error, Placement,
    memory::list::{self, List},
};

/// Alignment of every tensor in a slab, in bytes.
pub(super) const SLAB_ALIGNMENT: usize = 256;

/// The allocations that hold the leaves, and where each lies.
pub(super) fn lay_out(leaves: &[Leaf], placement: Placement) -> Result<(List<u64>, List<Region>), Refused> {
    match placement {
        Placement::Separate => {
            let allocations = list::collect(leaves.iter().map(|leaf| leaf.bytes));
            let regions = (0..leaves.len()).map(|index| Region {
                allocation: index as u32,
                offset: 0,
            });
            Ok((allocations, list::collect(regions)))
        }
        Placement::Slab => {
            let mut end = 0u64;
            let mut regions = list::with_capacity(leaves.len());
            for (index, leaf) in leaves.iter().enumerate() {
                let next = end.checked_next_multiple_of(SLAB_ALIGNMENT as u64);
                let next = next.and_then(|offset| Some((offset, offset.checked_add(leaf.bytes)?)));
                let too_much = || Refused {
                    leaf: index,
                    error: Box::new(Error::HostMemory { bytes: usize::MAX }),
                };
                let (offset, after) = next.ok_or_else(too_much)?;
                regions.push(Region {
                    allocation: 0,
                    offset,
                });
                end = after;
            }
            let slab = (!leaves.is_empty()).then_some(end);
            Ok((list::collect(slab), regions))
        }
    }
}
