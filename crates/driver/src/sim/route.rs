//! What a copy's two addresses are, and so how it goes.

use super::{
    allocations::RangeError,
    state::{State, device_id, error},
    work::{Direction, End, Home, Work},
};
use crate::{Address, Error, ErrorKind, MemCopy, Result};

/// How a copy goes.
#[derive(Debug)]
pub(super) enum Route {
    /// It has no bytes.
    Nothing,
    /// An engine does it, later.
    Asynchronous(Work),
    /// The caller stages it from pageable memory to the device, through bounce buffers.
    StageToDevice { dst: End, src: *const u8, bytes: usize },
    /// The caller stages it from the device to pageable memory, through bounce buffers.
    StageToHost { dst: *mut u8, src: End, bytes: usize },
}

enum Place {
    Ready(End),
    Pageable(*mut u8),
}

impl State {
    /// Finds out how `copy` goes on `device`, or what is wrong with it.
    pub(super) fn route(&self, device: usize, copy: &MemCopy) -> Result<Route> {
        let bytes = copy.bytes;
        let own = |address| match address {
            Address::Host(_) => false,
            Address::Device(_) => true,
            Address::Peer(peer, _) => peer == device_id(device),
        };
        if !own(copy.dst) && !own(copy.src) {
            return Err(error(
                device,
                ErrorKind::InvalidArgument,
                format!(
                    "a copy of {bytes} bytes has no end on this device; give it to a device that it touches"
                ),
            ));
        }
        if bytes == 0 {
            return Ok(Route::Nothing);
        }
        let direction = match (copy.dst, copy.src) {
            (_, Address::Host(_)) => Direction::Up,
            (Address::Host(_), _) => Direction::Down,
            _ => Direction::Across,
        };
        let dst = self.place(device, copy.dst, bytes)?;
        let src = self.place(device, copy.src, bytes)?;
        Ok(match (dst, src) {
            (Place::Ready(dst), Place::Ready(src)) => {
                if dst.address() < src.address() + bytes && src.address() < dst.address() + bytes {
                    return Err(error(
                        device,
                        ErrorKind::InvalidArgument,
                        format!(
                            "copying {bytes} bytes from {:p} to {:p}: the ranges overlap; copy through a third",
                            src.ptr, dst.ptr
                        ),
                    ));
                }
                Route::Asynchronous(Work::Copy {
                    dst,
                    src,
                    bytes,
                    direction,
                })
            }
            (Place::Ready(dst), Place::Pageable(src)) => Route::StageToDevice { dst, src, bytes },
            (Place::Pageable(dst), Place::Ready(src)) => Route::StageToHost { dst, src, bytes },
            (Place::Pageable(_), Place::Pageable(_)) => unreachable!("one end is on the device"),
        })
    }

    fn place(&self, device: usize, address: Address, bytes: usize) -> Result<Place> {
        match address {
            Address::Device(ptr) => self.device_range(device, device, ptr.0, bytes).map(Place::Ready),
            Address::Peer(peer, ptr) => {
                let known = (0..self.devices.len()).find(|ordinal| device_id(*ordinal) == peer);
                let peer = known.ok_or_else(|| {
                    error(
                        device,
                        ErrorKind::NoSuchDevice,
                        format!("a copy names the peer {peer}, which this machine has not"),
                    )
                })?;
                self.device_range(device, peer, ptr.0, bytes).map(Place::Ready)
            }
            Address::Host(ptr) if ptr.is_null() || ptr.addr().checked_add(bytes).is_none() => Err(error(
                device,
                ErrorKind::InvalidArgument,
                format!("a copy names {bytes} bytes of host memory at {ptr:p}, which can't be"),
            )),
            Address::Host(ptr) if self.pinned.covers(ptr.addr(), bytes) => Ok(Place::Ready(End {
                ptr,
                home: Home::Pinned,
            })),
            Address::Host(ptr) => Ok(Place::Pageable(ptr)),
        }
    }

    /// `bytes` bytes of the memory of `owner`, for work on `device`.
    pub(super) fn device_range(
        &self,
        device: usize,
        owner: usize,
        address: u64,
        bytes: usize,
    ) -> Result<End> {
        let resolved = self.devices[owner].memory.resolve(address, bytes);
        let ptr = resolved.map_err(|why| range_error(device, owner, address, bytes, &why))?;
        Ok(End {
            ptr,
            home: Home::Device(owner),
        })
    }
}

fn range_error(device: usize, owner: usize, address: u64, bytes: usize, why: &RangeError) -> Error {
    let owner = device_id(owner);
    match why {
        RangeError::Unknown => error(
            device,
            ErrorKind::InvalidHandle,
            format!("{bytes} bytes at {address:#x} are named, which is in no live allocation of {owner}"),
        ),
        RangeError::TooLong { base, bytes: all } => error(
            device,
            ErrorKind::InvalidArgument,
            format!(
                "{bytes} bytes at {address:#x} are named, past the end of the {all} allocated at {base:#x} on {owner}"
            ),
        ),
    }
}
