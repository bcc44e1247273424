//! What a tensor shares: bytes on the host, on a device, or in a file, with whatever keeps them alive.
//!
//! The storage of a result can't be touched before its job has landed: a tree of the caller's own sees its new tensors
//! when it is rebuilt, which is while they are on their way.
//!
//! A storage is immutable while it is shared. The only way to write is [`Storage::bytes_mut`], which needs the one
//! `&mut` there is; a transfer [holds a share of it](super::shared) for as long as the device may use the bytes, and so
//! nobody can write to what a copy still reads.

use std::{any::Any, ptr::NonNull};

use pinlane_driver::{
    Backend, DevicePtr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{buffer::Buffer, lease::PinnedLease};
use crate::{Device, FileSource, Result, file::source::OpenFile};

/// A run of bytes somewhere, and what keeps it alive.
#[derive(Debug)]
pub(crate) struct Storage {
    place: Place,
    /// For the result of a transfer, whether it has landed.
    landing: Option<Arc<Landing>>,
}

/// Whether the results of one job have landed. Set once, by the job; until then nobody reads or writes their bytes, and
/// where the job failed, nobody ever does.
#[derive(Debug, Default)]
pub(crate) struct Landing(AtomicBool);

impl Landing {
    /// The bytes are there, and the device no longer uses them.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Host(HostBytes),
    Device(DeviceBytes),
    File(FileBytes),
}

/// Bytes on the host.
#[derive(Clone)]
pub(crate) struct HostBytes {
    ptr: NonNull<u8>,
    bytes: usize,
    pinned: Option<Backend>,
    /// Whether the bytes may be written by the storage's only holder.
    writable: bool,
    owner: Arc<dyn Any + Send + Sync>,
}

/// Bytes on a device: a part of memory that several tensors may share.
#[derive(Clone, Debug)]
pub(crate) struct DeviceBytes {
    pub(crate) device: Device,
    pub(crate) memory: Arc<DeviceBlock>,
    pub(crate) offset: usize,
}

/// One allocation on a device.
#[derive(Debug)]
pub(crate) struct DeviceBlock(pub(crate) pinlane_driver::DeviceMemory);

impl DeviceBytes {
    /// The first byte's address.
    pub(crate) fn ptr(&self) -> DevicePtr {
        self.memory.0.ptr().offset(self.offset)
    }
}

/// Bytes of a file, read when they are moved.
#[derive(Clone, Debug)]
pub(crate) struct FileBytes {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) offset: u64,
}

// SAFETY: the bytes are only read while shared, and only written through `&mut Storage` (see `bytes_mut`); what keeps
// them alive is `Send + Sync` itself.
unsafe impl Send for HostBytes {}
// SAFETY: as above.
unsafe impl Sync for HostBytes {}

impl std::fmt::Debug for HostBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostBytes")
            .field("ptr", &self.ptr)
            .field("pinned", &self.pinned)
            .finish_non_exhaustive()
    }
}

impl HostBytes {
    /// The first byte.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Whether the storage's only holder may write the bytes.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// What keeps the bytes alive.
    pub(crate) fn owner(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.owner
    }

    /// The family of drivers that knows the bytes as pinned, if any does.
    pub(crate) fn pinned(&self) -> Option<Backend> {
        self.pinned
    }
}

impl Storage {
    /// Fresh pageable bytes that read as zeros.
    pub(crate) fn zeroed(bytes: usize) -> Result<Self> {
        Ok(Self::pageable(Buffer::zeroed(bytes)?, bytes))
    }

    /// Pageable bytes that read as zeros, or as what their last user left there.
    pub(crate) fn initialised(bytes: usize) -> Result<Self> {
        Ok(Self::pageable(Buffer::initialised(bytes)?, bytes))
    }

    /// The bytes of a buffer, which are initialised.
    fn pageable(buffer: Buffer, bytes: usize) -> Self {
        let ptr = buffer.ptr();
        // SAFETY: the buffer holds `bytes` initialised bytes and lives in the storage.
        unsafe { Self::host(ptr, bytes, None, true, Arc::new(buffer)) }
    }

    /// Fresh pinned bytes: zeros, or what an earlier lease left there.
    pub(crate) fn pinned(lease: PinnedLease, bytes: usize, backend: Backend) -> Self {
        let ptr = lease.ptr();
        // SAFETY: the lease holds at least `bytes` bytes of a zeroed mapping, alone, and lives in the storage.
        unsafe { Self::host(ptr, bytes, Some(backend), true, Arc::new(lease)) }
    }

    /// The elements of a vector, where they are.
    pub(crate) fn from_vec<T: bytemuck::NoUninit + Send + Sync>(mut vec: Vec<T>) -> Self {
        let bytes = size_of_val(vec.as_slice());
        let ptr = NonNull::new(vec.as_mut_ptr().cast()).unwrap_or(NonNull::dangling());
        // SAFETY: the vector holds `bytes` initialised bytes on the heap, does not move them, and lives in the storage.
        unsafe { Self::host(ptr, bytes, None, true, Arc::new(vec)) }
    }

    /// Host bytes that someone else owns.
    ///
    /// # Safety
    ///
    /// `ptr` is good for reads of `bytes` initialised bytes while `owner` lives; nobody writes them meanwhile, except,
    /// if `writable`, through this storage, which then is their only name. Pinned means pinned until `owner` is dropped.
    pub(crate) unsafe fn host(
        ptr: NonNull<u8>,
        bytes: usize,
        pinned: Option<Backend>,
        writable: bool,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self::landed(Place::Host(HostBytes {
            ptr,
            bytes,
            pinned,
            writable,
            owner,
        }))
    }

    /// A device's memory from `offset` of a block on.
    pub(crate) fn device(device: Device, memory: Arc<DeviceBlock>, offset: usize) -> Self {
        Self::landed(Place::Device(DeviceBytes {
            device,
            memory,
            offset,
        }))
    }

    /// An open file from `offset` on.
    pub(crate) fn file(source: &FileSource, offset: u64) -> Self {
        Self::landed(Place::File(FileBytes {
            file: Arc::clone(source.opened()),
            offset,
        }))
    }

    /// Keeps the memory from ever being let go: a lost device may still use it.
    pub(crate) fn leak(&self) {
        match &self.place {
            Place::Host(host) => std::mem::forget(Arc::clone(&host.owner)),
            Place::Device(device) => std::mem::forget(Arc::clone(&device.memory)),
            Place::File(_) => {}
        }
    }

    fn landed(place: Place) -> Self {
        Self { place, landing: None }
    }

    /// The same as the result of a job: out of reach until `landing` is set.
    pub(crate) fn until(mut self, landing: &Arc<Landing>) -> Self {
        self.landing = Some(Arc::clone(landing));
        self
    }

    /// Another storage over the same bytes, for who is about to drop this one, its only holder.
    pub(crate) fn again(&self) -> Self {
        Self::landed(self.place.clone())
    }

    /// Whether the bytes may be touched.
    pub(crate) fn has_landed(&self) -> bool {
        self.landing.as_ref().is_none_or(|landing| landing.is_set())
    }

    /// Where the bytes are.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The bytes, where they are on the host and have landed.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Host(host) if self.has_landed() => {
                // SAFETY: landed, and so initialised; alive and not written while borrowed: the promises of `host`.
                Some(unsafe { std::slice::from_raw_parts(host.ptr.as_ptr(), host.bytes) })
            }
            _ => None,
        }
    }

    /// The bytes to write, where they are on the host, have landed, and the storage is their only name.
    pub(crate) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if !self.has_landed() {
            return None;
        }
        match &mut self.place {
            Place::Host(host) if host.writable => {
                // SAFETY: as in `bytes`; `writable` says that this storage, borrowed mutably, is the only name.
                Some(unsafe { std::slice::from_raw_parts_mut(host.ptr.as_ptr(), host.bytes) })
            }
            _ => None,
        }
    }
}
