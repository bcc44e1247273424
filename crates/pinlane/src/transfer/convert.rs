//! Conversions on a device, for which the caller waits.

use pinlane_driver::{Conversion, DevicePtr, ErrorKind, MemCopy};

use super::engine::Engine;
use crate::{Error, Result, trace::span::engine_span};

/// Elements on a device that become others, or stay what they are, in another place there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recast {
    pub(crate) dst: DevicePtr,
    pub(crate) src: DevicePtr,
    /// How many bytes there are at `src`: whole elements.
    pub(crate) bytes: usize,
    /// What becomes of them; `None` for a copy.
    pub(crate) conversion: Option<Conversion>,
}

const DOING: &str = "converting elements on the device";

/// Refuses a conversion that the engine's driver can't do.
pub(crate) fn check_converts(engine: &Engine, conversion: Conversion) -> Result<()> {
    let stream = engine.take_quiet_stream()?;
    let nowhere = DevicePtr(0);
    let driver = &engine.driver;
    // SAFETY: no elements, so the addresses name nothing.
    let able = unsafe { driver.convert(conversion, nowhere, nowhere, 0, stream.stream().raw()) };
    engine.put_quiet_stream(stream);
    able.map_err(|source| Error::driver(DOING, source))
}

/// Converts and copies, and returns when nothing of that is in flight any more, unless the error says that memory is left in
/// use.
///
/// # Safety
///
/// All ranges are memory of the engine's device that has landed, valid until this returns, and for ever where its error leaves
/// memory in use. What is written overlaps nothing else, and nobody else reads or writes it; nobody writes what is read.
pub(crate) unsafe fn recast_and_wait(engine: &Engine, recasts: &[Recast]) -> Result<()> {
    let bytes: usize = recasts.iter().map(|recast| recast.bytes).sum();
    let _span = engine_span!("convert", bytes);
    let stream = engine.take_quiet_stream()?;
    let enqueued = recasts
        .iter()
        .filter(|recast| recast.bytes > 0)
        .try_for_each(|recast| {
            let Recast {
                dst,
                src,
                bytes,
                conversion,
            } = *recast;
            let Some(conversion) = conversion else {
                // SAFETY: the caller's promise, kept until the wait below is over.
                return unsafe { stream.stream().copy(MemCopy::on_device(dst, src, bytes)) };
            };
            let elements = bytes / conversion.from().bytes();
            // SAFETY: as above.
            unsafe {
                engine
                    .driver
                    .convert(conversion, dst, src, elements, stream.stream().raw())
            }
        });
    match (enqueued, stream.finish()) {
        (_, Err(error)) if error.kind() != ErrorKind::CopyFailed => Err(Error::waiting(DOING, error)),
        (Err(error), _) | (Ok(()), Err(error)) => {
            engine.put_quiet_stream(stream);
            Err(Error::driver(DOING, error))
        }
        (Ok(()), Ok(())) => {
            engine.put_quiet_stream(stream);
            Ok(())
        }
    }
}
