//! Streams: in-order queues, which synchronise with no other by themselves.

use std::ffi::c_uint;

use pinlane_driver::{
    Result,
    sync::{Duration, spin},
};

use crate::{context::Context, flags::Flags};

/// Without it, a stream waits for the legacy default stream, and that one for the stream.
const NON_BLOCKING: c_uint = 1;

/// `CUstream` 0: the default stream that waits for every blocking stream of the context, and that they wait for. Torch's
/// current stream unless it was told otherwise.
pub(crate) const LEGACY_DEFAULT: usize = 0;
/// `CU_STREAM_LEGACY`: the same by another name.
pub(crate) const LEGACY: usize = 1;

/// For so long a flag is looked at before CUDA is asked to wait: what takes longer gains nothing by it.
const PATIENCE: Duration = Duration::from_micros(500);

pub(crate) fn create(context: &Context) -> Result<usize> {
    let _current = context.enter()?.beside_captures()?;
    let mut stream = 0;
    // SAFETY: a valid place for the answer, and a flag of the header.
    let status = unsafe { (context.api.stream_create)(&raw mut stream, NON_BLOCKING) };
    context.check(status, || "making a stream".to_owned())?;
    Ok(stream)
}

/// # Safety
///
/// The stream was made by [`create`] and is not used afterwards.
pub(crate) unsafe fn destroy(context: &Context, stream: usize) -> Result<()> {
    let _current = context.enter()?.beside_captures()?;
    // SAFETY: the caller's promise. The driver finishes what is enqueued.
    let status = unsafe { (context.api.stream_destroy)(stream) };
    context.check(status, || format!("destroying stream {stream:#x}"))
}

/// A flag tells of short work sooner than CUDA does.
pub(crate) fn synchronize(context: &Context, flags: &Flags, stream: usize) -> Result<()> {
    let _current = context.enter_stream(stream)?.beside_captures()?;
    if let Some(flag) = flags.take(context) {
        let raised = flags.raise(context, &flag, stream);
        let is_over = matches!(raised, Ok(true)) && spin(PATIENCE, || flag.is_settled());
        flags.put_back(flag);
        if raised.map(|_| is_over)? {
            return Ok(());
        }
    }
    wait_until_drained(context, stream)
}

/// The context is current, and the stream is not under capture.
pub(crate) fn wait_until_drained(context: &Context, stream: usize) -> Result<()> {
    // SAFETY: the stream is live by the contract of the handle that names it.
    let status = unsafe { (context.api.stream_synchronize)(stream) };
    context.check(status, || format!("waiting for the work on stream {stream:#x}"))
}
