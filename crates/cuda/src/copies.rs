//! Copies, one at a time, and fills.
//!
//! CUDA finds out by itself whether host memory is pinned, and then copies asynchronously. What it does with pageable
//! memory is "might be synchronous" by its word; the [`Driver`](pinlane_driver::Driver) trait promises more:
//!
//! - *a pageable source is free when the call returns.* The driver copies it into memory of its own before it returns,
//!   except where the device reads pageable memory in place, through the host's page tables (Grace and its kind): there
//!   the call waits for the stream. It does too where the source is managed memory, which the device reads in place.
//! - *a pageable destination is filled when the call returns.* The call waits for the stream, as torch does. Where the
//!   driver has waited already, that costs little.

use std::ffi::c_int;

use pinlane_driver::{Address, Backend, DevicePtr, Error, ErrorKind, MemCopy, Result};

use crate::{
    context::Context,
    devices,
    pinned::{Known, PinnedRanges, known, known_to_cuda},
    streams::wait_until_drained,
};

const ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES: c_int = 100;

/// What a copy needs to know of its device.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(crate) pinned: PinnedRanges,
    reads_pageable_in_place: bool,
}

/// A copy by its direction, with the arguments of CUDA's call for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToDevice { dst: u64, src: *const u8 },
    ToHost { dst: *mut u8, src: u64 },
    OnDevice { dst: u64, src: u64 },
    FromPeer { dst: u64, peer: u32, src: u64 },
    ToPeer { peer: u32, dst: u64, src: u64 },
}

impl Way {
    /// The way of a copy on device `ordinal`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, where it has none.
    pub(crate) fn of(copy: &MemCopy, ordinal: u32) -> Result<Self, &'static str> {
        use Address::{Device, Host, Peer};
        let local = |address: Address| match address {
            // A peer that is no peer.
            Peer(id, ptr) if id.backend == Backend::Cuda && id.ordinal == ordinal => Device(ptr),
            address => address,
        };
        match (local(copy.dst), local(copy.src)) {
            (Device(dst), Host(src)) => Ok(Self::ToDevice { dst: dst.0, src }),
            (Host(dst), Device(src)) => Ok(Self::ToHost { dst, src: src.0 }),
            (Device(dst), Device(src)) => Ok(Self::OnDevice {
                dst: dst.0,
                src: src.0,
            }),
            (Device(dst), Peer(id, src)) if id.backend == Backend::Cuda => Ok(Self::FromPeer {
                dst: dst.0,
                peer: id.ordinal,
                src: src.0,
            }),
            (Peer(id, dst), Device(src)) if id.backend == Backend::Cuda => Ok(Self::ToPeer {
                peer: id.ordinal,
                dst: dst.0,
                src: src.0,
            }),
            (Device(_), Peer(..)) | (Peer(..), Device(_)) => {
                Err("the other device is not of CUDA; go through host memory")
            }
            _ => Err("neither end is memory of this device; use the device that one end belongs to"),
        }
    }
}

impl Copies {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            pinned: PinnedRanges::default(),
            reads_pageable_in_place: devices::attribute(
                context.api,
                context.device,
                ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES,
            ) == Some(1),
        }
    }

    /// Enqueues one copy; see [`Driver::copy`](pinlane_driver::Driver::copy).
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn copy(&self, context: &Context, copy: &MemCopy, stream: usize) -> Result<()> {
        let way = way_of(context, copy)?;
        if copy.bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise; the way names the copy's own ends.
        unsafe { self.enqueue(context, way, copy.bytes, stream) }
    }

    /// # Safety
    ///
    /// As for [`copy`](Self::copy), of the copy that the way is of. `bytes` is not zero.
    pub(crate) unsafe fn enqueue(
        &self,
        context: &Context,
        way: Way,
        bytes: usize,
        stream: usize,
    ) -> Result<()> {
        match way {
            // SAFETY: the caller's promise.
            Way::ToDevice { dst, src } => unsafe { self.to_device(context, dst, src, bytes, stream) },
            // SAFETY: the caller's promise.
            Way::ToHost { dst, src } => unsafe { self.to_host(context, dst, src, bytes, stream) },
            Way::OnDevice { dst, src } => {
                let _current = context.enter_stream(stream)?;
                // SAFETY: both ranges are valid until the copy is done by the caller's promise.
                let status = unsafe { (context.api.copy_on_device)(dst, src, bytes, stream) };
                context.check(status, || format!("copying {bytes} bytes within the device"))
            }
            Way::FromPeer { dst, peer, src } => {
                let other = devices::driver(peer)?;
                let ends = [(context, dst), (other.context(), src)];
                // SAFETY: the caller's promise.
                unsafe { between(context, ends, bytes, stream) }
            }
            Way::ToPeer { peer, dst, src } => {
                let other = devices::driver(peer)?;
                let ends = [(other.context(), dst), (context, src)];
                // SAFETY: the caller's promise.
                unsafe { between(context, ends, bytes, stream) }
            }
        }
    }

    /// # Safety
    ///
    /// As for [`enqueue`](Self::enqueue).
    unsafe fn to_device(
        &self,
        context: &Context,
        dst: u64,
        src: *const u8,
        bytes: usize,
        stream: usize,
    ) -> Result<()> {
        let current = context.enter_stream(stream)?;
        // SAFETY: both ranges are valid until the copy is done by the caller's promise.
        let enqueue = || unsafe { (context.api.copy_to_device)(dst, src.cast(), bytes, stream) };
        let doing = || format!("copying {bytes} bytes to the device");
        if self.pinned.cover(src, bytes) {
            return context.check(enqueue(), doing);
        }
        let _current = current.beside_captures()?;
        context.check(enqueue(), doing)?;
        let is_read_in_place = match known(context, src, bytes) {
            Known::Pinned => false,
            Known::Managed => true,
            Known::Nothing => self.reads_pageable_in_place,
        };
        if is_read_in_place {
            return wait_until_drained(context, stream);
        }
        Ok(())
    }

    /// # Safety
    ///
    /// As for [`enqueue`](Self::enqueue).
    unsafe fn to_host(
        &self,
        context: &Context,
        dst: *mut u8,
        src: u64,
        bytes: usize,
        stream: usize,
    ) -> Result<()> {
        let current = context.enter_stream(stream)?;
        // SAFETY: both ranges are valid until the copy is done by the caller's promise.
        let enqueue = || unsafe { (context.api.copy_to_host)(dst.cast(), src, bytes, stream) };
        let doing = || format!("copying {bytes} bytes to the host");
        if self.pinned.cover(dst, bytes) {
            return context.check(enqueue(), doing);
        }
        let _current = current.beside_captures()?;
        let pinned = known_to_cuda(context, dst, bytes);
        context.check(enqueue(), doing)?;
        if pinned {
            return Ok(());
        }
        wait_until_drained(context, stream)
    }
}

/// Copies from the second end to the first, each with the context of its device, on a stream of `context`.
///
/// # Safety
///
/// Both ranges are valid until the copy is done.
unsafe fn between(
    context: &Context,
    [dst, src]: [(&Context, u64); 2],
    bytes: usize,
    stream: usize,
) -> Result<()> {
    let _current = context.enter_stream(stream)?;
    let peer = if dst.0.id == context.id { src.0 } else { dst.0 };
    context.reach(peer);
    // SAFETY: both contexts are retained for ever; the ranges are valid by the caller's promise.
    let status =
        unsafe { (context.api.copy_from_peer)(dst.1, dst.0.handle, src.1, src.0.handle, bytes, stream) };
    context.check(status, || {
        format!("copying {bytes} bytes from {} to {}", src.0.id, dst.0.id)
    })
}

/// The copy's way on the context's device, or an error that says why there is none.
pub(crate) fn way_of(context: &Context, copy: &MemCopy) -> Result<Way> {
    Way::of(copy, context.id.ordinal).map_err(|why| {
        let message = format!("a copy of {} bytes was refused: {why}", copy.bytes);
        Error::new(ErrorKind::InvalidArgument, context.id, message)
    })
}

/// Enqueues a fill; see [`Driver::memset`](pinlane_driver::Driver::memset).
///
/// # Safety
///
/// As there.
pub(crate) unsafe fn memset(
    context: &Context,
    dst: DevicePtr,
    value: u8,
    bytes: usize,
    stream: usize,
) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let _current = context.enter_stream(stream)?;
    // SAFETY: the range is device memory, valid until the write is done, by the caller's promise.
    let status = unsafe { (context.api.memset)(dst.0, value, bytes, stream) };
    context.check(status, || format!("filling {bytes} bytes of the device"))
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use pinlane_driver::DeviceId;

    use super::*;

    const HOST: *mut u8 = ptr::without_provenance_mut(0x1000);
    const HERE: DevicePtr = DevicePtr(0x10);
    const THERE: DevicePtr = DevicePtr(0x20);

    fn peer(backend: Backend, ordinal: u32) -> Address {
        Address::Peer(DeviceId { backend, ordinal }, THERE)
    }

    fn way(dst: Address, src: Address) -> Result<Way, &'static str> {
        Way::of(&MemCopy { dst, src, bytes: 1 }, 0)
    }

    #[test]
    fn each_pair_of_ends_goes_its_way() {
        let device = Address::Device(HERE);
        let host = Address::Host(HOST);
        assert_eq!(way(device, host), Ok(Way::ToDevice { dst: 0x10, src: HOST }));
        assert_eq!(way(host, device), Ok(Way::ToHost { dst: HOST, src: 0x10 }));
        assert_eq!(way(device, device), Ok(Way::OnDevice { dst: 0x10, src: 0x10 }));
        let other = peer(Backend::Cuda, 1);
        assert_eq!(
            way(device, other),
            Ok(Way::FromPeer {
                dst: 0x10,
                peer: 1,
                src: 0x20
            })
        );
        assert_eq!(
            way(other, device),
            Ok(Way::ToPeer {
                peer: 1,
                dst: 0x20,
                src: 0x10
            })
        );
    }

    #[test]
    fn a_peer_that_is_the_device_itself_is_the_device() {
        let same = peer(Backend::Cuda, 0);
        assert_eq!(
            way(same, Address::Host(HOST)),
            Ok(Way::ToDevice { dst: 0x20, src: HOST })
        );
        assert_eq!(way(same, same), Ok(Way::OnDevice { dst: 0x20, src: 0x20 }));
    }

    #[test]
    fn a_copy_that_is_not_this_devices_own_is_refused_with_a_reason() {
        let (host, other) = (Address::Host(HOST), peer(Backend::Cuda, 1));
        for (dst, src) in [(host, host), (other, other), (host, other), (other, host)] {
            assert!(
                way(dst, src).unwrap_err().contains("neither end"),
                "{dst:?} from {src:?}"
            );
        }
        let foreign = way(Address::Device(HERE), peer(Backend::Sim, 0));
        assert!(foreign.unwrap_err().contains("not of CUDA"));
    }
}
