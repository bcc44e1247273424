//! The link's own limit: pinned copies and nothing else, timed by the device.
//!
//! The streams are held behind copies that are not timed until everything is enqueued, so that no call's cost is in the
//! figures. Both directions start behind the same event, the gate. Whether it was still closed when all was enqueued is asked
//! each time: a limit that has calls in it would be too low, and what is held against it would look too good.

use std::time::Duration;

use pinlane::{DType, Device, HostMemory, Tensor};
use pinlane_driver::{DeviceMemory, Event, MemCopy, Stream, Timing};
use serde::{Deserialize, Serialize};

use crate::{
    cell::Direction::{self, D2h, H2d},
    error::{Error, Result},
    lent::Lent,
    rounds::median,
};

/// Timed copies of one direction.
const COPIES: usize = 6;
/// The most copies that hold the streams. One is long enough unless the host is busy; each is milliseconds on hardware.
const LONGEST_HOLD: usize = 128;
/// How often so many are tried.
const TRIES_OF_LONGEST: usize = 10;
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
/// [`Error::NotHeld`], and what the engine and the driver say.
pub fn measure(device: &Device, bytes: usize) -> Result<LinkLimit> {
    let driver = device.driver().expect("pinned memory belongs to an accelerator");
    let ends = [Ends::new(device, bytes)?, Ends::new(device, bytes)?];
    let streams = [Stream::new(driver)?, Stream::new(driver)?, Stream::new(driver)?];
    let mut lines = Lent::new(ends, streams);
    let mut hold = 1;
    let mut rate = |directions: &[Direction]| -> Result<f64> {
        let mut seconds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let took = until_held(&mut hold, |hold| round(&mut lines, directions, hold))?;
            seconds.push(took.as_secs_f64());
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

/// Has a round measured with `hold` copies at the gate, and with twice as many as long as they do not hold it. The most are tried
/// several times: a thread that lost its processor meanwhile is late by chance.
fn until_held<T>(hold: &mut usize, mut round: impl FnMut(usize) -> Result<Option<T>>) -> Result<T> {
    let mut late = 0;
    loop {
        if let Some(measured) = round(*hold)? {
            return Ok(measured);
        }
        if *hold < LONGEST_HOLD {
            *hold *= 2;
            continue;
        }
        late += 1;
        if late == TRIES_OF_LONGEST {
            return Err(Error::NotHeld { copies: *hold });
        }
    }
}

/// The time from the gate's opening to the end of the last copy; `None` where it opened too early.
fn round(lines: &mut Lines, directions: &[Direction], hold: usize) -> Result<Option<Duration>> {
    let spans = lines.during(|ends, streams| enqueue(ends, streams, directions, hold))?;
    let Some(spans) = spans else {
        return Ok(None);
    };
    let times = spans.iter().map(|(start, end)| end.elapsed_since(start));
    let times: Vec<Duration> = times.collect::<Result<_, _>>()?;
    Ok(times.into_iter().max())
}

/// Enqueues the copies behind those that hold them; gives the events before and after them, or `None` where the gate was
/// open before the last was enqueued.
fn enqueue(
    [up, down]: &[Ends; 2],
    [gate, up_stream, down_stream]: &[Stream; 3],
    directions: &[Direction],
    hold: usize,
) -> Result<Option<Vec<(Event, Event)>>> {
    for _ in 0..hold {
        // SAFETY: for these copies and those below: `Lent` waits for its streams before it gives the memory back, and
        // nobody touches the host ends.
        unsafe { up.copy(gate, H2d)? };
    }
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
    Ok((!open.query()?).then_some(spans))
}

#[cfg(test)]
mod tests {
    use pinlane::DeviceOptions;
    use pinlane_driver::sim::{DeviceConfig, Machine};

    use super::*;

    #[test]
    fn a_gate_that_opens_too_early_is_held_for_longer_and_in_the_end_an_error() {
        let mut hold = 1;
        let mut tried = Vec::new();
        let held = until_held(&mut hold, |hold| {
            tried.push(hold);
            Ok((hold >= 4).then_some("held"))
        });
        assert_eq!((held.unwrap(), tried, hold), ("held", vec![1, 2, 4], 4));
        let mut late = 0;
        let at_last = until_held(&mut hold, |hold| {
            late += usize::from(hold == LONGEST_HOLD);
            Ok((late == TRIES_OF_LONGEST).then_some("held"))
        });
        assert_eq!(at_last.unwrap(), "held");
        let never = until_held(&mut hold, |_| Ok(None::<()>)).unwrap_err();
        assert!(never.to_string().contains("128 copies"), "{never}");
    }

    #[test]
    fn what_is_enqueued_behind_an_open_gate_is_not_measured() {
        let config = DeviceConfig {
            copy_latency: Duration::from_millis(100),
            ..DeviceConfig::default()
        };
        let driver = Machine::new(config).device(0).unwrap();
        let device = Device::with_options(driver, &DeviceOptions::default()).unwrap();
        let driver = device.driver().unwrap();
        let ends = [
            Ends::new(&device, 4096).unwrap(),
            Ends::new(&device, 4096).unwrap(),
        ];
        let streams = [(); 3].map(|()| Stream::new(driver).unwrap());
        let mut lines = Lent::new(ends, streams);
        assert_eq!(round(&mut lines, &[H2d], 0).unwrap(), None);
        let held = until_held(&mut 1, |hold| round(&mut lines, &[H2d], hold));
        assert!(held.unwrap() >= Duration::from_millis(100));
    }
}
