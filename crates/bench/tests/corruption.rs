//! Bytes that land wrong are found, whichever way they go, and named.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use pinlane_bench::{
    Error,
    cell::{Cell, Direction, Memory},
    document::{Document, FailureKind},
    figures::{self, Context, Scale},
    link::LinkLimit,
    peers::Peers,
    rig::Rig,
    rounds::Effort,
    run::{AxesOptions, Bench, Observer, Options},
};
use pinlane_driver::{
    Address, Driver, MemCopy, RawStream, Result, ScatterTable, Wrapper,
    sim::{DeviceConfig, Machine},
    sync::Arc,
};
use pinlane_guide::device::Accelerator;

/// The flawed device leaves out the last bytes of every copy of exactly one of these sizes. The larger is checked by
/// several threads.
const VICTIMS: [usize; 2] = [12_344, 5_000_004];

/// What a tensor of a figure comes to at [`SCALE`]: one copy from or to a slot.
const FIGURE_BYTES: usize = 64 << 10;
const SCALE: Scale = Scale((1 << 30) / FIGURE_BYTES);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    ToDevice,
    ToHost,
    /// Of the copies of [`FIGURE_BYTES`] bytes from and to pinned memory, those with these numbers end in wrong bytes.
    Garbled(Range<u64>),
}

/// A simulated device that forgets the last bytes of some copies, or takes others for them.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<dyn Driver>,
    flaw: Flaw,
    /// The copies of [`FIGURE_BYTES`] bytes from and to pinned memory so far.
    copies: AtomicU64,
}

impl Forgetful {
    fn new(flaw: Flaw) -> Arc<Self> {
        Arc::new(Self {
            inner: Machine::new(DeviceConfig::default()).device(0).unwrap(),
            flaw,
            copies: AtomicU64::new(0),
        })
    }

    /// The copy that spoils the end of this one.
    fn garbling(&self, copy: MemCopy) -> Option<MemCopy> {
        const END: usize = 9;
        let ((Address::Host(host), _) | (_, Address::Host(host))) = (copy.src, copy.dst) else {
            return None;
        };
        if copy.bytes != FIGURE_BYTES || !self.inner.is_pinned(host, copy.bytes) {
            return None;
        }
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let Flaw::Garbled(numbers) = &self.flaw else {
            return None;
        };
        let end = match copy.dst {
            Address::Host(dst) => Address::Host(dst.wrapping_add(copy.bytes - END)),
            Address::Device(dst) => Address::Device(dst.offset(copy.bytes - END)),
            Address::Peer(..) => return None,
        };
        numbers.contains(&number).then_some(MemCopy {
            dst: end,
            bytes: END,
            ..copy
        })
    }
}

impl Forgetful {
    fn shortened(&self, copy: MemCopy) -> MemCopy {
        let hit = VICTIMS.contains(&copy.bytes)
            && match self.flaw {
                Flaw::None | Flaw::Garbled(_) => false,
                Flaw::ToDevice => matches!(copy.src, Address::Host(_)),
                Flaw::ToHost => matches!(copy.dst, Address::Host(_)),
            };
        MemCopy {
            bytes: copy.bytes - if hit { 9 } else { 0 },
            ..copy
        }
    }
}

// SAFETY: passes every call on to the simulated device; what it forgets is what the tests are about.
unsafe impl Wrapper for Forgetful {
    type Inner = dyn Driver;

    fn inner(&self) -> &dyn Driver {
        &*self.inner
    }

    /// Pieces go by copies, which are forgotten.
    fn scatter_table(&self) -> Option<ScatterTable> {
        None
    }

    unsafe fn copy(&self, copy: MemCopy, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.copy(self.shortened(copy), stream)? };
        match self.garbling(copy) {
            // SAFETY: parts of the caller's copy.
            Some(garbling) => unsafe { self.inner.copy(garbling, stream) },
            None => Ok(()),
        }
    }

    unsafe fn copy_batch(&self, copies: &[MemCopy], stream: RawStream) -> Result<()> {
        let copies: Vec<_> = copies.iter().map(|copy| self.shortened(*copy)).collect();
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.copy_batch(&copies, stream) }
    }
}

struct Silent;

impl Observer for Silent {
    fn started(&self, _id: &str, _done: usize, _all: usize) {}
}

fn run(flaw: Flaw, only: &str) -> Document {
    let accelerator = Accelerator::over(Forgetful::new(flaw)).unwrap();
    let options = Options {
        quick: true,
        only: vec![only.to_owned()],
        axes: AxesOptions {
            sizes: vec![VICTIMS[0], VICTIMS[0] + 4, VICTIMS[1]],
            counts: vec![1],
            max_bytes: Some(8 << 20),
            ..AxesOptions::default()
        },
        ..Options::default()
    };
    Bench::new(accelerator, options).unwrap().run(&Silent).unwrap()
}

#[test]
fn a_device_without_a_flaw_passes_through_the_same_wrapper() {
    let document = run(Flaw::None, "grid");
    assert_eq!(document.failures, []);
    assert_eq!(document.cells.len(), 2 * 2 * 3);
}

#[test]
fn bytes_that_land_wrong_fail_their_cell_by_name_and_no_other() {
    for (flaw, direction) in [(Flaw::ToDevice, "h2d"), (Flaw::ToHost, "d2h")] {
        let document = run(flaw, direction);
        for bytes in VICTIMS {
            let victim = format!("{direction}-pageable-{bytes}B-x1");
            let failure = document.failures.iter().find(|failure| failure.id == victim);
            let failure = failure.expect("the cell has failed");
            assert_eq!(failure.kind, FailureKind::WrongBytes);
            // Whoever reads the results refuses them by this word.
            assert_eq!(serde_json::to_value(failure).unwrap()["kind"], "wrong-bytes");
            let error = &failure.error;
            assert!(
                error.contains("wrong bytes") && error.contains(&victim),
                "{error}"
            );
        }
        assert_eq!(
            document.cells.len(),
            2,
            "pageable and pinned of the size that is no victim"
        );
        assert!(!document.is_sound());
    }
}

/// Measures one figure with one timed round; gives the first error, and how many copies there were.
fn figure(id: &str, flaw: Flaw) -> (Result<(), Error>, u64) {
    let driver = Forgetful::new(flaw);
    let accelerator = Accelerator::over(Arc::clone(&driver) as Arc<dyn Driver>).unwrap();
    let spec = figures::ALL.iter().find(|spec| spec.id == id).unwrap();
    let largest = Cell {
        direction: Direction::H2d,
        memory: Memory::Pageable,
        bytes: FIGURE_BYTES,
        count: 1,
    };
    let context = Context {
        rig: &Rig::new(&accelerator, &[largest]).unwrap(),
        link: &LinkLimit {
            h2d: 1.0,
            d2h: 1.0,
            both: 1.0,
            copy_bytes: 1,
        },
        peers: &Peers::default(),
        effort: Effort {
            budget: Duration::ZERO,
            least: 1,
            most: 1,
            hopeless: None,
        },
        scale: SCALE,
        peak_bytes: 8 * FIGURE_BYTES as u64,
    };
    let measured = spec.measure(&context).map(|figure| assert!(figure.is_some()));
    (measured, driver.copies.load(Ordering::Relaxed))
}

#[test]
fn not_one_copy_of_what_is_timed_in_both_directions_lands_wrong_unseen() {
    let (flawless, copies) = figure("bidirectional", Flaw::None);
    flawless.unwrap();
    // Two kinds of rounds, one of each timed and one not, both ways.
    assert!(copies >= 8, "{copies}");
    for number in 0..copies {
        let (measured, _) = figure("bidirectional", Flaw::Garbled(number..number + 1));
        assert!(
            matches!(measured, Err(Error::WrongBytes { .. })),
            "copy {number} of {copies} was garbled: {measured:?}"
        );
    }
}

#[test]
fn figures_that_move_much_check_what_they_began_and_ended_with() {
    for id in ["cpu-per-gb", "pinned-peak"] {
        let (flawless, copies) = figure(id, Flaw::None);
        flawless.unwrap();
        assert!(copies >= 8, "{id}: {copies}");
        for numbers in (0..copies).flat_map(|number| [0..number + 1, number..copies]) {
            let (measured, _) = figure(id, Flaw::Garbled(numbers.clone()));
            assert!(
                matches!(measured, Err(Error::WrongBytes { .. })),
                "{id}: copies {numbers:?} of {copies} were garbled: {measured:?}"
            );
        }
    }
}
