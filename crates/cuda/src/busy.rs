//! The busy task: a kernel that keeps one thread of the device waiting for a span of time.

use std::{
    ffi::{c_int, c_uint, c_void},
    ptr,
};

use pinlane_driver::{
    Result,
    sync::{Duration, OnceLock},
};

use crate::{context::Context, status::Status};

/// See `kernels/busy.cu`. A PTX image ends in a zero.
const IMAGE: &str = concat!(include_str!("../kernels/busy.ptx"), "\0");
const ENTRY: &std::ffi::CStr = c"pinlane_busy";

const JIT_ERROR_LOG: c_int = 5;
const JIT_ERROR_LOG_BYTES: c_int = 6;

/// The kernel, compiled by the driver at the first use.
#[derive(Debug, Default)]
pub(crate) struct BusyKernel(OnceLock<Result<usize>>);

impl BusyKernel {
    /// Enqueues a task of about `duration`.
    pub(crate) fn enqueue(&self, context: &Context, duration: Duration, stream: usize) -> Result<()> {
        let kernel = self.0.get_or_init(|| load(context)).clone()?;
        let _current = context.enter_stream(stream)?;
        let mut nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let mut arguments: [*mut c_void; 1] = [ptr::from_mut(&mut nanoseconds).cast()];
        // SAFETY: one block of one thread; the kernel takes one u64, which the driver reads before the call returns.
        let status = unsafe {
            (context.api.launch)(
                kernel,
                1,
                1,
                1,
                1,
                1,
                1,
                0,
                stream,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        context.check(status, || format!("starting a busy task of {duration:?}"))
    }
}

/// Compiles and loads the kernel. It stays loaded as long as the context, which is as long as the process.
fn load(context: &Context) -> Result<usize> {
    let _current = context.enter()?.beside_captures()?;
    let mut log = [0_u8; 1024];
    let mut options: [c_int; 2] = [JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES];
    // The second value is a number in a pointer's place.
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(log.len())];
    let mut module = 0;
    // SAFETY: an image that ends in zero, and two options with a buffer and its size.
    let status = unsafe {
        (context.api.module_load)(
            &raw mut module,
            IMAGE.as_ptr().cast(),
            options.len() as c_uint,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    context.check(status, || {
        let log = log.split(|byte| *byte == 0).next().unwrap_or_default();
        let log = String::from_utf8_lossy(log);
        format!("loading the kernel of the busy task {}", log.trim())
    })?;
    let mut kernel = 0;
    // SAFETY: the module that was just loaded, and a name that ends in zero.
    let status: Status = unsafe { (context.api.module_function)(&raw mut kernel, module, ENTRY.as_ptr()) };
    context.check(status, || format!("finding {ENTRY:?} in its module"))?;
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_ends_in_one_zero_and_has_the_kernel() {
        assert_eq!(IMAGE.find('\0'), Some(IMAGE.len() - 1));
        let entry = ENTRY.to_str().unwrap();
        assert!(IMAGE.contains(&format!(".visible .entry {entry}(.param .u64 ")));
        assert!(include_str!("../kernels/busy.cu").contains(&format!("void {entry}(unsigned long long ")));
    }
}
