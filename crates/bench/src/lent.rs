//! Memory that streams may still be using: it is given back when they are done with it, whatever goes wrong before.
//!
//! Work is enqueued inside [`Lent::during`], which waits for the streams whether or not all of it could be enqueued. So
//! nothing is in flight when it returns, and what the closure borrowed is free again too. Only a lost device never says
//! whether it is done: the memory is leaked then.

use std::mem::ManuallyDrop;

use pinlane_driver::{ErrorKind, Stream};

use crate::error::Result;

/// How often a driver that refuses to wait is asked.
const ATTEMPTS: usize = 8;

/// `T` owns what the streams use beside borrowed memory.
#[derive(Debug)]
pub(crate) struct Lent<T, const N: usize> {
    memory: ManuallyDrop<T>,
    streams: [Stream; N],
}

impl<T, const N: usize> Lent<T, N> {
    pub(crate) fn new(memory: T, streams: [Stream; N]) -> Self {
        Self {
            memory: ManuallyDrop::new(memory),
            streams,
        }
    }

    /// The memory, which no stream uses between two calls of [`during`](Self::during).
    pub(crate) fn memory(&mut self) -> &mut T {
        &mut self.memory
    }

    /// Runs `enqueue`, and waits for everything that it enqueued on the streams.
    pub(crate) fn during<R>(&mut self, enqueue: impl FnOnce(&mut T, &[Stream; N]) -> Result<R>) -> Result<R> {
        let enqueued = enqueue(&mut self.memory, &self.streams);
        let done = self.wait();
        let enqueued = enqueued?;
        done?;
        Ok(enqueued)
    }

    /// Waits for all streams, whatever each of them says; gives the first error.
    fn wait(&self) -> Result<(), pinlane_driver::Error> {
        let waited = self.streams.each_ref().map(wait);
        waited.into_iter().collect()
    }
}

impl<T, const N: usize> Drop for Lent<T, N> {
    fn drop(&mut self) {
        // A panic may have cut `during` short.
        let in_use = self.streams.iter().any(|stream| match wait(stream) {
            Err(error) => error.kind() != ErrorKind::CopyFailed,
            Ok(()) => false,
        });
        if !in_use {
            // SAFETY: dropped here alone, once, and never used again.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}

/// Waits, again and again where the driver refuses. After [`ErrorKind::CopyFailed`] nothing is in flight either.
fn wait(stream: &Stream) -> Result<(), pinlane_driver::Error> {
    let ends =
        |error: &pinlane_driver::Error| matches!(error.kind(), ErrorKind::CopyFailed | ErrorKind::DeviceLost);
    let mut result = stream.synchronize();
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if !ends(error) => result = stream.synchronize(),
            _ => break,
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        ptr::NonNull,
        time::Duration,
    };

    use pinlane_driver::{
        DeviceMemory, Driver, MemCopy, PinnedRange,
        sim::{DeviceConfig, Fault, FaultPlan, Machine, SimDriver, Step},
        sync::Arc,
    };

    use super::*;

    const BYTES: usize = 4096;
    const LATE: Fault = Fault::Late(Duration::from_millis(50));

    /// A pinned page and device memory, given back on drop.
    struct Ends {
        range: PinnedRange,
        there: DeviceMemory,
        page: Box<[u8]>,
    }

    /// The simulator counts what is given back while it is in use.
    fn lent(faults: FaultPlan) -> (Arc<SimDriver>, Lent<Ends, 1>) {
        let device = Machine::new(DeviceConfig::default()).sim(0).unwrap();
        let driver: Arc<dyn Driver> = Arc::clone(&device) as _;
        let mut page = vec![7; BYTES].into_boxed_slice();
        let start = NonNull::from(&mut page[..]).cast();
        // SAFETY: the page lives as long as the range: fields drop in their order.
        let range = unsafe { PinnedRange::new(&driver, start, BYTES).unwrap() };
        let ends = Ends {
            range,
            there: DeviceMemory::new(&driver, BYTES).unwrap(),
            page,
        };
        let stream = Stream::new(&driver).unwrap();
        device.set_faults(faults);
        (device, Lent::new(ends, [stream]))
    }

    fn copy_back(ends: &mut Ends, stream: &Stream) -> Result<()> {
        let copy = MemCopy::to_host(ends.page.as_mut_ptr(), ends.there.ptr(), ends.range.bytes());
        // SAFETY: `Lent` keeps both ends until the stream is done with them.
        unsafe { stream.copy(copy)? };
        Ok(())
    }

    fn copy_twice(lent: &mut Lent<Ends, 1>) -> Result<()> {
        lent.during(|ends, [stream]| {
            copy_back(ends, stream)?;
            copy_back(ends, stream)
        })
    }

    #[test]
    fn what_was_enqueued_before_an_error_is_over_when_the_memory_is_given_back() {
        let second_is_refused = FaultPlan::new()
            .at(Step::Copy, 0, LATE)
            .at(Step::Copy, 1, Fault::Refused);
        let (device, mut lent) = lent(second_is_refused);
        assert!(copy_twice(&mut lent).is_err());
        drop(lent);
        assert_eq!((device.freed_in_use(), device.alive().pinned_ranges), (0, 0));
    }

    #[test]
    fn a_wait_that_is_refused_is_asked_for_again() {
        let faults =
            FaultPlan::new()
                .at(Step::Copy, 0, LATE)
                .repeated(Step::SynchronizeStream, 0, 3, Fault::Refused);
        let (device, mut lent) = lent(faults);
        assert!(copy_twice(&mut lent).is_ok());
        drop(lent);
        assert_eq!((device.freed_in_use(), device.alive().pinned_ranges), (0, 0));
    }

    #[test]
    fn a_copy_that_fails_is_told_and_its_memory_is_given_back() {
        let (device, mut lent) = lent(FaultPlan::new().at(Step::Copy, 0, Fault::CopyFailed));
        assert!(copy_twice(&mut lent).is_err());
        drop(lent);
        assert_eq!((device.freed_in_use(), device.alive().pinned_ranges), (0, 0));
    }

    #[test]
    fn a_panic_between_enqueuing_and_waiting_gives_nothing_back_too_early() {
        let (device, mut lent) = lent(FaultPlan::new().at(Step::Copy, 0, LATE));
        let work = AssertUnwindSafe(|| {
            lent.during(|ends, [stream]| -> Result<()> {
                copy_back(ends, stream)?;
                panic!("cut short");
            })
        });
        assert!(catch_unwind(work).is_err());
        drop(lent);
        assert_eq!((device.freed_in_use(), device.alive().pinned_ranges), (0, 0));
    }

    #[test]
    fn what_a_lost_device_may_still_use_is_never_given_back() {
        let (device, mut lent) = lent(FaultPlan::new().at(Step::Copy, 1, Fault::DeviceLost));
        assert!(copy_twice(&mut lent).is_err());
        drop(lent);
        assert_eq!(device.calls(Step::Unpin), 0);
    }
}
