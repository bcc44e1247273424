//! Plain integers that name things of a driver, and the vocabulary of a copy.

use crate::DeviceId;

/// A stream's handle, as the driver knows it (CUDA: the `CUstream` as an integer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawStream(u64);

impl RawStream {
    /// The handle that a driver, or someone who shares its device, gave out.
    ///
    /// # Safety
    ///
    /// `handle` is one of the driver that it will be given to, and alive whenever it is. Drivers can't all tell.
    #[must_use]
    pub unsafe fn from_raw(handle: u64) -> Self {
        Self(handle)
    }

    /// The integer.
    #[must_use]
    pub fn as_raw(self) -> u64 {
        self.0
    }
}

/// An event's handle, as the driver knows it (CUDA: the `CUevent` as an integer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawEvent(u64);

impl RawEvent {
    /// The handle that a driver, or someone who shares its device, gave out.
    ///
    /// # Safety
    ///
    /// `handle` is one of the driver that it will be given to, and alive whenever it is. Drivers can't all tell.
    #[must_use]
    pub unsafe fn from_raw(handle: u64) -> Self {
        Self(handle)
    }

    /// The integer.
    #[must_use]
    pub fn as_raw(self) -> u64 {
        self.0
    }
}

/// An address in a device's memory, in bytes. Never to be read or written by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// The address `bytes` further on.
    #[must_use]
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// One end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host memory, pinned or pageable; the driver finds out which.
    Host(*mut u8),
    /// Memory of the device that runs the copy.
    Device(DevicePtr),
    /// Memory of another device of the same backend.
    Peer(DeviceId, DevicePtr),
}

// SAFETY: an address is only a name; reading or writing through it is unsafe and says what it needs.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

/// One copy of `bytes` bytes from `src` to `dst`. At least one end is memory of the device that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemCopy {
    /// Where the bytes go.
    pub dst: Address,
    /// Where the bytes come from.
    pub src: Address,
    /// How many bytes; zero is allowed and moves nothing.
    pub bytes: usize,
}

impl MemCopy {
    /// Host to device.
    #[must_use]
    pub fn to_device(dst: DevicePtr, src: *const u8, bytes: usize) -> Self {
        Self {
            dst: Address::Device(dst),
            src: Address::Host(src.cast_mut()),
            bytes,
        }
    }

    /// Device to host.
    #[must_use]
    pub fn to_host(dst: *mut u8, src: DevicePtr, bytes: usize) -> Self {
        Self {
            dst: Address::Host(dst),
            src: Address::Device(src),
            bytes,
        }
    }

    /// Within one device.
    #[must_use]
    pub fn on_device(dst: DevicePtr, src: DevicePtr, bytes: usize) -> Self {
        Self {
            dst: Address::Device(dst),
            src: Address::Device(src),
            bytes,
        }
    }

    /// From another device of the same backend to this one.
    #[must_use]
    pub fn from_peer(dst: DevicePtr, peer: DeviceId, src: DevicePtr, bytes: usize) -> Self {
        Self {
            dst: Address::Device(dst),
            src: Address::Peer(peer, src),
            bytes,
        }
    }
}
