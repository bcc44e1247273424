//! Conversions of elements: one piece of work of the compute engine, done by the host's own loop.

use super::{
    state::{State, error},
    work::{End, Work},
};
use crate::{Conversion, DevicePtr, ErrorKind, Result};

/// Elements that are to be converted.
#[derive(Debug)]
pub(super) struct Elements {
    pub(super) conversion: Conversion,
    pub(super) dst: End,
    pub(super) src: End,
    pub(super) elements: usize,
}

impl Elements {
    /// Bytes of the elements as they are.
    pub(super) fn src_bytes(&self) -> usize {
        self.elements * self.conversion.from().bytes()
    }

    /// Bytes of what they become.
    pub(super) fn dst_bytes(&self) -> usize {
        self.elements * self.conversion.to().bytes()
    }

    /// Converts them all.
    pub(super) fn convert(&self) {
        // SAFETY: the simulator keeps the device memory mapped while the job holds it, resolved each range within one
        // allocation, and found them apart.
        unsafe {
            self.conversion
                .convert_at(self.src.ptr, self.dst.ptr, self.elements)
        };
    }
}

impl State {
    /// Finds the elements in the device's memory; nothing where there are none.
    pub(super) fn conversion(
        &self,
        device: usize,
        conversion: Conversion,
        [dst, src]: [DevicePtr; 2],
        elements: usize,
    ) -> Result<Option<Work>> {
        if elements == 0 {
            return Ok(None);
        }
        let refuse = |why: String| {
            let message = format!("converting {elements} elements, {conversion}: {why}");
            error(device, ErrorKind::InvalidArgument, message)
        };
        let range = |ptr: DevicePtr, width: usize| {
            if !ptr.0.is_multiple_of(width as u64) {
                return Err(refuse(format!(
                    "elements of {width} bytes at {:#x} are not aligned to that; copy them to where they are",
                    ptr.0
                )));
            }
            let bytes = elements.checked_mul(width).ok_or_else(|| {
                refuse(format!(
                    "they are more than memory can hold, at {width} bytes each"
                ))
            })?;
            Ok((self.device_range(device, device, ptr.0, bytes)?, bytes))
        };
        let (dst, dst_bytes) = range(dst, conversion.to().bytes())?;
        let (src, src_bytes) = range(src, conversion.from().bytes())?;
        if dst.address() < src.address() + src_bytes && src.address() < dst.address() + dst_bytes {
            return Err(refuse(format!(
                "from {:p} to {:p} the ranges overlap; convert to another place",
                src.ptr, dst.ptr
            )));
        }
        Ok(Some(Work::Convert(Elements {
            conversion,
            dst,
            src,
            elements,
        })))
    }
}
