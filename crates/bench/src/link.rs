//! The link's own limit: pinned copies and nothing else, timed by the device.
//!
//! The streams are held behind a copy that is not timed until everything is enqueued, so that no call's cost is in the
//! figures. Both directions start behind the same event.

use std::time::Duration;

use pinlane::{DType, Device, HostMemory, Tensor};
use pinlane_driver::{DeviceMemory, Event, MemCopy, Stream, Timing};
use serde::{Deserialize, Serialize};

use crate::{error::Result, rounds::median};

/// Timed copies of one direction.
const COPIES: usize = 6;
/// How often each limit is measured; the median counts.
const ROUNDS: usize = 5;

/// What the link carries, in GB/s (1e9 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkLimit {
    /// Pinned host memory to the device.
    pub h2d: f64,
    /// The device to pinned host memory.
    pub d2h: f64,
    /// Both at once, in total.
    pub both: f64,
    /// The bytes of each copy.
    pub copy_bytes: usize,
}

/// Measures the limit with copies of `bytes` bytes out of the pinned budget of `device`.
///
/// # Errors
///
/// What the engine and the driver say.
pub fn measure(device: &Device, bytes: usize) -> Result<LinkLimit> {
    let lines = [Line::new(device, bytes)?, Line::new(device, bytes)?];
    let [h2d, d2h] = &lines;
    let rate = |ways: &[(&Line, bool)]| -> Result<f64> {
        let mut seconds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            seconds.push(round(ways, h2d)?.as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok((ways.len() * COPIES * bytes) as f64 / median(&seconds) / 1e9)
    };
    Ok(LinkLimit {
        h2d: rate(&[(h2d, true)])?,
        d2h: rate(&[(d2h, false)])?,
        both: rate(&[(h2d, true), (d2h, false)])?,
        copy_bytes: bytes,
    })
}

/// A stream with memory at both of its ends.
struct Line {
    stream: Stream,
    /// On which both directions wait for the copy that holds them.
    gate: Stream,
    memory: DeviceMemory,
    /// The first byte of `pinned`, which nobody else touches.
    host: *mut u8,
    _pinned: Tensor,
    bytes: usize,
}

impl Line {
    fn new(device: &Device, bytes: usize) -> Result<Self> {
        let mut pinned = HostMemory::Pinned(device).zeros(DType::U8, &[bytes])?;
        let driver = device.driver().expect("pinned memory belongs to an accelerator");
        Ok(Self {
            stream: Stream::new(driver)?,
            gate: Stream::new(driver)?,
            memory: DeviceMemory::new(driver, bytes)?,
            host: pinned.as_mut_slice::<u8>()?.as_mut_ptr(),
            _pinned: pinned,
            bytes,
        })
    }

    /// # Safety
    ///
    /// `stream` is synchronised before the line is dropped or its host memory touched.
    unsafe fn copy(&self, stream: &Stream, to_device: bool) -> Result<()> {
        let copy = if to_device {
            MemCopy::to_device(self.memory.ptr(), self.host, self.bytes)
        } else {
            MemCopy::to_host(self.host, self.memory.ptr(), self.bytes)
        };
        // SAFETY: both ends have that many bytes and live until the stream was synchronised, as the caller promises.
        unsafe { stream.copy(copy)? };
        Ok(())
    }
}

/// The time from the gate's opening to the end of the last copy.
fn round(ways: &[(&Line, bool)], holder: &Line) -> Result<Duration> {
    let ends = enqueue(ways, holder);
    // Whether or not all could be enqueued: nothing of a line is given back before its streams are done.
    holder.gate.synchronize()?;
    for (line, _) in ways {
        line.stream.synchronize()?;
    }
    let ends = ends?;
    let times = ends.iter().map(|(start, end)| end.elapsed_since(start));
    let times: Vec<Duration> = times.collect::<Result<_, _>>()?;
    Ok(times.into_iter().max().unwrap_or_default())
}

/// Enqueues the copies behind one that holds them; gives the events before and after them. `round` waits for all.
fn enqueue(ways: &[(&Line, bool)], holder: &Line) -> Result<Vec<(Event, Event)>> {
    // SAFETY: `round` synchronises this stream, and those that wait for it.
    unsafe { holder.copy(&holder.gate, true)? };
    let open = holder.gate.record(Timing::Disabled)?;
    let mut ends = Vec::with_capacity(ways.len());
    for &(line, to_device) in ways {
        line.stream.wait(&open)?;
        let start = line.stream.record(Timing::Enabled)?;
        for _ in 0..COPIES {
            // SAFETY: as above.
            unsafe { line.copy(&line.stream, to_device)? };
        }
        ends.push((start, line.stream.record(Timing::Enabled)?));
    }
    Ok(ends)
}
