//! Device memory in stream order: where blocks come from, and where they go back to.
//!
//! `cuMemFree` waits until the device has nothing to do, and whoever drops the last tensor of a block would wait with it. So
//! blocks come from a pool of CUDA's, of our own beside the device's default one, whose settings are its users' affair; they
//! are taken and given back on a stream of the pool's, on which nothing else ever is. A block is free for every stream when
//! [`Context::take`] returns, and nothing uses it any more when it comes back: so that stream is always as good as idle, and
//! waits for nobody.
//!
//! The pool keeps nothing for later: that is what the [cache](crate::memory) in front of it is for. But what is given back stays
//! with it until its stream is waited for, and nobody else can have it before: [`Context::settle`] does that. It takes as long as
//! the memory takes to be unmapped (2 ms for each GB, on an H100), whatever the device is doing. Where the device has no pools, blocks
//! come from CUDA's plain allocator.

use std::ffi::{c_int, c_uint, c_void};

use pinlane_driver::Result;

use crate::{
    context::Context,
    devices::attribute,
    library::{Api, Location},
    memory::Source,
    status::Status,
    streams,
};

const ATTRIBUTE_MEMORY_POOLS_SUPPORTED: c_int = 115;
const ALLOCATION_PINNED: c_uint = 1;
const LOCATION_DEVICE: c_uint = 1;
const READ_AND_WRITE: c_uint = 3;
/// `CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT`, and `..._USED_MEM_CURRENT`.
const RESERVED: c_int = 5;
const USED: c_int = 7;

/// `CUmemPoolProps`: what follows the location is zero for memory of this process alone.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct PoolProperties {
    allocation: c_uint,
    handles: c_uint,
    location: Location,
    security: *mut c_void,
    most: usize,
    rest: [u64; 7],
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Access {
    location: Location,
    flags: c_uint,
}

/// A pool of one device's memory, and the stream that its calls are on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    handle: usize,
    stream: usize,
}

impl Pool {
    /// A pool of the context's device; `None` where it can have none.
    pub(crate) fn new(context: &Context) -> Option<Self> {
        if attribute(context.api, context.device, ATTRIBUTE_MEMORY_POOLS_SUPPORTED) != Some(1) {
            return None;
        }
        let made = Self::make(context);
        made.inspect_err(|error| tracing::debug!(%error, "device memory comes from CUDA's plain allocator"))
            .ok()
    }

    fn make(context: &Context) -> Result<Self> {
        let stream = streams::create(context)?;
        let properties = PoolProperties {
            allocation: ALLOCATION_PINNED,
            handles: 0,
            location: on(context.device),
            security: std::ptr::null_mut(),
            most: 0,
            rest: [0; 7],
        };
        let mut handle = 0;
        // SAFETY: a valid place for the answer, and properties as the header has them.
        let status = unsafe { (context.api.pool_create)(&raw mut handle, &raw const properties) };
        context.check(status, || "making a pool of device memory".to_owned())?;
        Ok(Self { handle, stream })
    }

    /// Bytes that it holds and has not given out: what is left of pieces that are in use.
    pub(crate) fn unused(self, context: &Context) -> Result<usize> {
        let bytes = |attribute| {
            let mut bytes = 0_u64;
            // SAFETY: a live pool, and a valid place for the answer, which is a number of bytes.
            let status = unsafe { (context.api.pool_attribute)(self.handle, attribute, &raw mut bytes) };
            context.check(status, || "asking what a pool of device memory holds".to_owned())?;
            Ok(bytes)
        };
        let unused = bytes(RESERVED)?.saturating_sub(bytes(USED)?);
        Ok(usize::try_from(unused).unwrap_or(usize::MAX))
    }

    /// Lets another device, which can reach this one, read and write what the pool has given out and will.
    pub(crate) fn open_to(self, api: &Api, device: c_int) -> Status {
        let access = Access {
            location: on(device),
            flags: READ_AND_WRITE,
        };
        // SAFETY: a live pool, and one description as the header has it.
        unsafe { (api.pool_set_access)(self.handle, &raw const access, 1) }
    }
}

fn on(device: c_int) -> Location {
    Location {
        kind: LOCATION_DEVICE,
        id: device,
    }
}

/// The context is current, beside captures.
impl Source for Context {
    fn take(&self, bytes: usize) -> Result<u64> {
        let doing = || format!("allocating {bytes} bytes of device memory");
        let mut block = 0;
        let Some(pool) = self.pool else {
            // SAFETY: a valid place for the answer.
            let status = unsafe { (self.api.allocate)(&raw mut block, bytes) };
            self.check(status, doing)?;
            return Ok(block);
        };
        // SAFETY: a valid place for the answer; the pool and its stream live as long as the process.
        let status = unsafe { (self.api.allocate_in_order)(&raw mut block, bytes, pool.handle, pool.stream) };
        self.check(status, doing)?;
        // Other streams may have it from here on.
        streams::wait_until_drained(self, pool.stream)?;
        Ok(block)
    }

    fn give_back(&self, block: u64) -> Result<()> {
        let status = match self.pool {
            // SAFETY: `block` came from `take`, and nothing uses it any more.
            Some(pool) => unsafe { (self.api.free_in_order)(block, pool.stream) },
            // SAFETY: as above. The call waits for the device all the same.
            None => unsafe { (self.api.free)(block) },
        };
        self.check(status, || format!("giving device memory at {block:#x} back"))
    }

    fn settle(&self) -> Result<()> {
        let Some(pool) = self.pool else {
            return Ok(());
        };
        streams::wait_until_drained(self, pool.stream)?;
        // SAFETY: a live pool.
        let status = unsafe { (self.api.pool_trim)(pool.handle, 0) };
        self.check(status, || "giving idle device memory back".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn what_describes_a_pool_is_laid_out_as_in_the_header() {
        assert_eq!(size_of::<PoolProperties>(), 88);
        assert_eq!(offset_of!(PoolProperties, security), 16);
        assert_eq!(size_of::<Access>(), 12);
    }
}
