//! Host memory, pageable and pinned, and what a tensor's bytes lie in.
//!
//! - [`adopted`]: memory of others, pinned within the budget.
//! - [`buffer`]: one pageable allocation.
//! - [`copying`]: copying large ranges, several pages side by side.
//! - [`lease`]: a piece of the pinned pool.
//! - [`list`]: what is noted about the tensors of a transfer, in memory that is kept for the next.
//! - [`mapping`]: pages straight from the kernel, for what is to be pinned.
//! - [`numa`]: which part of the host pages come from.
//! - [`pool`]: the pinned pool, its byte budget and its leases.
//! - [`recycled`]: large pageable memory that is kept for the next result.
//! - [`region`]: pages that are pinned as a whole.
//! - [`residency`]: whether memory has pages yet.
//! - [`shared`]: counted references, here to storages, of which many lie in one allocation.
//! - [`shortage`]: what there is too little of when memory can't be pinned.
//! - [`slots`]: the pieces of pinned memory that lanes fill, shared by all lanes of a device.
//! - [`storage`]: what a tensor shares: bytes on the host, on a device or in a file, with whatever keeps them alive.
//! - [`walk`]: walks over what lies here and there, with the next of it on its way into the caches.

pub(crate) mod adopted;
pub(crate) mod buffer;
pub(crate) mod copying;
pub(crate) mod lease;
pub(crate) mod list;
pub(crate) mod mapping;
mod numa;
pub(crate) mod pool;
pub(crate) mod recycled;
mod region;
pub(crate) mod residency;
pub(crate) mod shared;
pub(crate) mod shortage;
pub(crate) mod slots;
pub(crate) mod storage;
pub(crate) mod walk;
