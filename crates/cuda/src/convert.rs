//! Conversions of floating-point elements by a kernel (see `kernels/convert.cu`).

use std::{
    ffi::{CStr, c_uint},
    ptr,
};

use pinlane_driver::{Conversion, DevicePtr, Error, ErrorKind, Float, Result};

use crate::{context::Context, kernels::Kernel};

/// A PTX image ends in a zero.
const IMAGE: &str = concat!(include_str!("../kernels/convert.ptx"), "\0");
const ENTRY: &CStr = c"pinlane_convert";

/// Threads of one block.
const THREADS: c_uint = 256;
/// The most blocks: enough for the largest device to have its memory busy. Each thread takes several elements where there are
/// more.
const MOST_BLOCKS: usize = 2048;

/// The kernel of one device.
#[derive(Debug)]
pub(crate) struct Converter(Kernel);

impl Converter {
    pub(crate) fn new() -> Self {
        Self(Kernel::new(IMAGE, ENTRY))
    }

    /// Enqueues the conversion of so many elements; see [`Driver::convert`](pinlane_driver::Driver::convert).
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn enqueue(
        &self,
        context: &Context,
        conversion: Conversion,
        [dst, src]: [DevicePtr; 2],
        elements: usize,
        stream: usize,
    ) -> Result<()> {
        let function = self.0.load(context).map_err(|error| match error.kind() {
            ErrorKind::Unsupported => {
                let message = format!(
                    "elements were to be converted from {conversion} on the device, and the kernel for that can't be \
                     loaded ({error}); convert them on the host"
                );
                Error::new(ErrorKind::Unsupported, context.id, message)
            }
            _ => error,
        })?;
        let _current = context.enter_stream(stream)?;
        if elements == 0 {
            return Ok(());
        }
        for (ptr, float) in [(dst, conversion.to()), (src, conversion.from())] {
            if !ptr.0.is_multiple_of(float.bytes() as u64) {
                let message = format!(
                    "converting {elements} elements from {conversion}: those of {float} at {:#x} are not aligned to their \
                     {} bytes; copy them to where they are",
                    ptr.0,
                    float.bytes()
                );
                return Err(Error::new(ErrorKind::InvalidArgument, context.id, message));
            }
        }
        let (mut dst, mut src, mut count) = (dst.0, src.0, elements as u64);
        let (mut from, mut to) = (number(conversion.from()), number(conversion.to()));
        let arguments = [&mut dst, &mut src, &mut count, &mut from, &mut to];
        let arguments = arguments.map(|argument| ptr::from_mut(argument).cast());
        let blocks = elements.div_ceil(THREADS as usize).min(MOST_BLOCKS) as c_uint;
        // SAFETY: the kernel takes these five numbers, and touches the two ranges; by the caller's promise.
        let status = unsafe { context.launch(function, [blocks, THREADS], arguments, stream) };
        context.check(status, || {
            format!("starting the kernel that converts {elements} elements from {conversion}")
        })
    }
}

/// What the kernel calls a format: `Format` in `kernels/convert.cu`.
fn number(float: Float) -> u64 {
    match float {
        Float::F64 => 0,
        Float::F32 => 1,
        Float::F16 => 2,
        Float::BF16 => 3,
        Float::F8E4M3 => 4,
        Float::F8E5M2 => 5,
        Float::F8E8M0 => 6,
        Float::F8E4M3Fnuz => 7,
        Float::F8E5M2Fnuz => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::assert_matches;

    const SOURCE: &str = include_str!("../kernels/convert.cu");

    #[test]
    fn the_image_is_of_the_source() {
        assert_matches(IMAGE, SOURCE, ENTRY, 5);
    }

    #[test]
    fn formats_have_the_numbers_that_the_kernel_knows_them_by() {
        let (_, rest) = SOURCE
            .split_once("enum Format : u32 {")
            .expect("the kernel has formats");
        let (listed, _) = rest.split_once('}').expect("a list that ends");
        let listed: Vec<_> = listed.split(',').map(str::trim).collect();
        assert_eq!(listed.len(), Float::ALL.len());
        for float in Float::ALL {
            let name = float.to_string().replacen('_', "", 1);
            assert_eq!(listed[number(float) as usize], name);
        }
    }
}
