//! The busy task: a kernel that keeps one thread of the device waiting for a span of time.

use std::{ffi::CStr, ptr};

use pinlane_driver::{Result, sync::Duration};

use crate::{context::Context, kernels::Kernel};

/// See `kernels/busy.cu`. A PTX image ends in a zero.
const IMAGE: &str = concat!(include_str!("../kernels/busy.ptx"), "\0");
const ENTRY: &CStr = c"pinlane_busy";

/// The kernel of one device.
#[derive(Debug)]
pub(crate) struct Busy(Kernel);

impl Busy {
    pub(crate) fn new() -> Self {
        Self(Kernel::new(IMAGE, ENTRY))
    }

    /// Enqueues a task of about `duration`.
    pub(crate) fn enqueue(&self, context: &Context, duration: Duration, stream: usize) -> Result<()> {
        let function = self.0.load(context)?;
        let _current = context.enter_stream(stream)?;
        let mut nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let arguments = [ptr::from_mut(&mut nanoseconds).cast()];
        // SAFETY: the kernel takes one u64, and touches no memory.
        let status = unsafe { context.launch(function, [1, 1], arguments, stream) };
        context.check(status, || format!("starting a busy task of {duration:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::assert_matches;

    #[test]
    fn the_image_is_of_the_source() {
        assert_matches(IMAGE, include_str!("../kernels/busy.cu"), ENTRY, 1);
    }
}
