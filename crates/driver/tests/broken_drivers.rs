//! The conformance suite finds drivers out: each flaw here fails at least one case.

#![cfg(not(shuttle))]

use std::{ptr::NonNull, sync::Arc, time::Duration};

use pinlane_driver::{
    Conversion, DevicePtr, Driver, ErrorKind, Float, MemCopy, RawEvent, RawStream, Result, Wrapper,
    conformance::{Report, Subject, run},
    sim::{DeviceConfig, Machine},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    IgnoresWaits,
    CallsEventsFiredAtOnce,
    MovesWholeWordsOnly,
    DropsTheLastOfABatch,
    DropsTheLastScatteredPiece,
    ScattersPageableMemory,
    FillsOneByteTooMany,
    ConvertsAllButTheLast,
    CutsOffInsteadOfRounding,
    ConvertsAtOnce,
    NeverFrees,
    PinsNothing,
}

/// A simulated device with a flaw.
#[derive(Debug)]
struct Broken {
    inner: Arc<dyn Driver>,
    flaw: Flaw,
}

impl Broken {
    fn bytes_moved(&self, copy: MemCopy) -> MemCopy {
        let bytes = match self.flaw {
            Flaw::MovesWholeWordsOnly => copy.bytes & !3,
            _ => copy.bytes,
        };
        MemCopy { bytes, ..copy }
    }
}

// SAFETY: passes every call on to the simulated device, which finds out what is wrong.
unsafe impl Wrapper for Broken {
    type Inner = dyn Driver;

    fn inner(&self) -> &dyn Driver {
        &*self.inner
    }

    unsafe fn free(&self, ptr: DevicePtr, bytes: usize) -> Result<()> {
        match self.flaw {
            Flaw::NeverFrees => Ok(()),
            // SAFETY: the caller's promise, passed on.
            _ => unsafe { self.inner.free(ptr, bytes) },
        }
    }

    unsafe fn pin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        match self.flaw {
            Flaw::PinsNothing => Ok(()),
            // SAFETY: the caller's promise, passed on.
            _ => unsafe { self.inner.pin(ptr, bytes) },
        }
    }

    unsafe fn unpin(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        match self.flaw {
            Flaw::PinsNothing => Ok(()),
            // SAFETY: the caller's promise, passed on.
            _ => unsafe { self.inner.unpin(ptr, bytes) },
        }
    }

    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        match self.flaw {
            Flaw::IgnoresWaits => Ok(()),
            _ => self.inner.stream_wait(stream, event),
        }
    }

    fn query(&self, event: RawEvent) -> Result<bool> {
        match self.flaw {
            Flaw::CallsEventsFiredAtOnce => Ok(true),
            _ => self.inner.query(event),
        }
    }

    fn synchronize_event(&self, event: RawEvent, patience: Duration) -> Result<()> {
        match self.flaw {
            Flaw::CallsEventsFiredAtOnce => Ok(()),
            _ => self.inner.synchronize_event(event, patience),
        }
    }

    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.copy(self.bytes_moved(copy), stream) }
    }

    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()> {
        let copies = match (self.flaw, copies) {
            (Flaw::DropsTheLastOfABatch, [all_but_last @ .., _]) => all_but_last,
            _ => copies,
        };
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.copy_batch(copies, stream) }
    }

    unsafe fn copy_scattered(&self, copies: &[MemCopy], table: NonNull<u8>, stream: RawStream) -> Result<()> {
        let copies = match (self.flaw, copies) {
            (Flaw::DropsTheLastScatteredPiece, [all_but_last @ .., _]) => all_but_last,
            _ => copies,
        };
        // SAFETY: the caller's promise, passed on.
        match unsafe { self.inner.copy_scattered(copies, table, stream) } {
            Err(error)
                if self.flaw == Flaw::ScattersPageableMemory
                    && error.kind() == ErrorKind::InvalidArgument =>
            {
                Ok(())
            }
            result => result,
        }
    }

    unsafe fn memset(&self, dst: DevicePtr, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        let bytes = bytes + usize::from(self.flaw == Flaw::FillsOneByteTooMany);
        // SAFETY: the caller's promise, passed on; for the byte too many there is room, or it is refused.
        unsafe { self.inner.memset(dst, value, bytes, stream) }
    }

    unsafe fn convert(
        &self,
        conversion: Conversion,
        dst: DevicePtr,
        src: DevicePtr,
        elements: usize,
        stream: RawStream,
    ) -> Result<()> {
        let other = self.inner.create_stream()?;
        let (elements, stream) = match self.flaw {
            Flaw::ConvertsAllButTheLast => (elements.saturating_sub(1), stream),
            Flaw::ConvertsAtOnce => (elements, other),
            _ => (elements, stream),
        };
        if self.flaw == Flaw::CutsOffInsteadOfRounding
            && conversion == Conversion::new(Float::F32, Float::BF16).unwrap()
        {
            // The upper half of each element, and nothing else.
            let halves = (0..elements)
                .map(|element| MemCopy::on_device(dst.offset(2 * element), src.offset(4 * element + 2), 2));
            // SAFETY: each half lies inside an element of the caller's, whose promise for both ends is passed on.
            return unsafe { self.inner.copy_batch(&halves.collect::<Vec<_>>(), stream) };
        }
        // SAFETY: the caller's promise, passed on.
        unsafe {
            self.inner.convert(conversion, dst, src, elements, stream)?;
            self.inner.destroy_stream(other)
        }
    }
}

fn run_with(flaw: Flaw) -> Report {
    let config = DeviceConfig {
        memory_bytes: 1 << 30,
        ..DeviceConfig::default()
    };
    let inner = Machine::new(config)
        .device(0)
        .expect("the machine has one device");
    run(&Subject::new(Arc::new(Broken { inner, flaw })))
}

#[test]
fn a_driver_without_a_flaw_passes_through_the_same_wrapper() {
    let report = run_with(Flaw::None);
    assert!(report.failed().is_empty(), "{report}");
}

/// How often the suite runs with one flaw at most.
const TRIES: usize = 5;

#[test]
fn every_flaw_fails_a_case_that_names_it() {
    for (flaw, case) in [
        (
            Flaw::IgnoresWaits,
            "order::a_stream_that_waits_for_an_event_starts_after_the_work_before_it",
        ),
        (
            Flaw::CallsEventsFiredAtOnce,
            "events::synchronising_with_an_event_waits_for_the_work_before_it",
        ),
        (
            Flaw::MovesWholeWordsOnly,
            "copies::pinned_bytes_of_any_size_survive_the_round_trip",
        ),
        (
            Flaw::DropsTheLastOfABatch,
            "batches::every_copy_of_a_batch_arrives",
        ),
        (
            Flaw::DropsTheLastScatteredPiece,
            "scattered::five_thousand_pieces_arrive",
        ),
        (
            Flaw::ScattersPageableMemory,
            "scattered::what_a_kernel_can_not_reach_is_refused",
        ),
        (
            Flaw::FillsOneByteTooMany,
            "copies::memset_fills_its_range_and_nothing_else",
        ),
        (
            Flaw::ConvertsAllButTheLast,
            "conversions::elements_begin_anywhere_and_their_neighbours_stay",
        ),
        (
            Flaw::CutsOffInsteadOfRounding,
            "conversions::every_format_becomes_every_other_bit_by_bit_as_on_the_host",
        ),
        (
            Flaw::ConvertsAtOnce,
            "conversions::a_conversion_keeps_its_place_in_the_stream",
        ),
        (Flaw::NeverFrees, "allocations::memory_info_follows_an_allocation"),
        (
            Flaw::PinsNothing,
            "pinning::a_pinned_range_is_pinned_in_all_its_parts",
        ),
    ] {
        // Where a host that lost its processor for long enough can't tell, it is asked again.
        let mut report = run_with(flaw);
        for _ in 1..TRIES {
            if report.failed().contains(&case) {
                break;
            }
            report = run_with(flaw);
        }
        assert!(
            report.failed().contains(&case),
            "{flaw:?} passed {case} {TRIES} times:\n{report}"
        );
    }
}
