//! The link's own limit: pinned copies and nothing else, timed by the device.
//!
//! The streams are held behind a copy that is not timed until everything is enqueued, so that no call's cost is in the
//! figures. Both directions start behind the same event.

use std::time::Duration;

use pinlane::{DType, Device, HostMemory, Tensor};
use pinlane_driver::{DeviceMemory, Event, MemCopy, Stream, Timing};
use serde::{Deserialize, Serialize};

use crate::{
    cell::Direction::{self, D2h, H2d},
    error::Result,
    lent::Lent,
    rounds::median,
};

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
    let driver = device.driver().expect("pinned memory belongs to an accelerator");
    let ends = [Ends::new(device, bytes)?, Ends::new(device, bytes)?];
    let streams = [Stream::new(driver)?, Stream::new(driver)?, Stream::new(driver)?];
    let mut lines = Lent::new(ends, streams);
    let mut rate = |directions: &[Direction]| -> Result<f64> {
        let mut seconds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            seconds.push(round(&mut lines, directions)?.as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok((directions.len() * COPIES * bytes) as f64 / median(&seconds) / 1e9)
    };
    Ok(LinkLimit {
        h2d: rate(&[H2d])?,
        d2h: rate(&[D2h])?,
        both: rate(&[H2d, D2h])?,
        copy_bytes: bytes,
    })
}

/// The memory of each direction, and the streams: the gate, on which both directions wait for the copy that holds them,
/// and one for each direction.
type Lines = Lent<[Ends; 2], 3>;

/// Memory at both ends of the link.
struct Ends {
    memory: DeviceMemory,
    /// The first byte of `pinned`, which nobody else touches.
    host: *mut u8,
    _pinned: Tensor,
    bytes: usize,
}

impl Ends {
    fn new(device: &Device, bytes: usize) -> Result<Self> {
        let mut pinned = HostMemory::Pinned(device).zeros(DType::U8, &[bytes])?;
        let driver = device.driver().expect("pinned memory belongs to an accelerator");
        Ok(Self {
            memory: DeviceMemory::new(driver, bytes)?,
            host: pinned.as_mut_slice::<u8>()?.as_mut_ptr(),
            _pinned: pinned,
            bytes,
        })
    }

    /// # Safety
    ///
    /// `stream` is synchronised before the memory is dropped or its host end touched.
    unsafe fn copy(&self, stream: &Stream, direction: Direction) -> Result<()> {
        let copy = match direction {
            H2d => MemCopy::to_device(self.memory.ptr(), self.host, self.bytes),
            D2h => MemCopy::to_host(self.host, self.memory.ptr(), self.bytes),
        };
        // SAFETY: both ends have that many bytes and live until the stream was synchronised, as the caller promises.
        unsafe { stream.copy(copy)? };
        Ok(())
    }
}

/// The time from the gate's opening to the end of the last copy.
fn round(lines: &mut Lines, directions: &[Direction]) -> Result<Duration> {
    let spans = lines.during(|ends, streams| enqueue(ends, streams, directions))?;
    let times = spans.iter().map(|(start, end)| end.elapsed_since(start));
    let times: Vec<Duration> = times.collect::<Result<_, _>>()?;
    Ok(times.into_iter().max().unwrap_or_default())
}

/// Enqueues the copies behind one that holds them; gives the events before and after them.
fn enqueue(
    [up, down]: &[Ends; 2],
    [gate, up_stream, down_stream]: &[Stream; 3],
    directions: &[Direction],
) -> Result<Vec<(Event, Event)>> {
    // SAFETY: for this copy and those below: `Lent` waits for its streams before it gives the memory back, and nobody
    // touches the host ends.
    unsafe { up.copy(gate, H2d)? };
    let open = gate.record(Timing::Disabled)?;
    let mut spans = Vec::with_capacity(directions.len());
    for &direction in directions {
        let (ends, stream) = match direction {
            H2d => (up, up_stream),
            D2h => (down, down_stream),
        };
        stream.wait(&open)?;
        let start = stream.record(Timing::Enabled)?;
        for _ in 0..COPIES {
            // SAFETY: as above.
            unsafe { ends.copy(stream, direction)? };
        }
        spans.push((start, stream.record(Timing::Enabled)?));
    }
    Ok(spans)
}
