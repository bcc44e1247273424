//! Scattered copies on the simulated device: what it counts, and what shows when their table is not kept.

use std::{ptr::NonNull, sync::Arc, time::Duration};

use pinlane_driver::{
    DeviceMemory, Driver, ErrorKind, MemCopy, PinnedRange, Stream, Timing,
    sim::{DeviceConfig, SimDriver, Step},
};

use crate::{pattern, pin, sim};

const PIECE: usize = 100;
const PIECES: usize = 8;

/// Pieces in pinned memory, with a table and a stream. Fields are dropped in this order: the device's use of the memory
/// ends first.
struct Pieces {
    stream: Stream,
    sim: Arc<SimDriver>,
    device: Arc<dyn Driver>,
    pinned_table: Option<PinnedRange>,
    _pinned_source: PinnedRange,
    memory: DeviceMemory,
    source: Vec<u8>,
    table: NonNull<u8>,
    /// Words, so that it is aligned.
    _table: Vec<u128>,
}

impl Pieces {
    fn on(config: DeviceConfig) -> Self {
        let (sim, device) = sim(config);
        let (mut source, mut words) = (pattern(PIECE * PIECES), vec![0_u128; 16]);
        let table = NonNull::from(words.as_mut_slice()).cast();
        Self {
            stream: Stream::new(&device).unwrap(),
            pinned_table: unsafe { Some(PinnedRange::new(&device, table, 16 * words.len()).unwrap()) },
            _pinned_source: pin(&device, &mut source),
            memory: DeviceMemory::new(&device, source.len()).unwrap(),
            source,
            table,
            _table: words,
            sim,
            device,
        }
    }

    fn enqueue(&self) {
        let copies: Vec<_> = (0..PIECES)
            .map(|piece| {
                let at = piece * PIECE;
                MemCopy::to_device(self.memory.ptr().offset(at), self.source[at..].as_ptr(), PIECE)
            })
            .collect();
        let stream = self.stream.raw();
        unsafe { self.device.copy_scattered(&copies, self.table, stream).unwrap() };
    }
}

#[test]
fn a_table_that_is_used_again_too_early_fails_the_copies() {
    let pieces = Pieces::on(DeviceConfig::default());
    let stall = pieces.sim.stall();
    pieces.enqueue();
    unsafe { pieces.table.write(pieces.table.read() ^ 1) };
    drop(stall);
    let error = pieces.stream.synchronize().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CopyFailed, "{error}");
    assert!(error.to_string().contains("table"), "{error}");
    assert_eq!(pieces.sim.calls(Step::CopyScattered), 1);
}

#[test]
fn a_table_that_is_unpinned_too_early_is_counted() {
    let mut pieces = Pieces::on(DeviceConfig::default());
    let stall = pieces.sim.stall();
    pieces.enqueue();
    pieces.pinned_table = None;
    assert_eq!(pieces.sim.freed_in_use(), 1);
    drop(stall);
    pieces.stream.synchronize().unwrap();
}

#[test]
fn scattered_copies_pay_the_latency_of_one_and_the_links_rate_for_all() {
    let pieces = Pieces::on(DeviceConfig {
        bytes_per_second: Some(1e6),
        copy_latency: Duration::from_millis(2),
        ..DeviceConfig::default()
    });
    let before = pieces.stream.record(Timing::Enabled).unwrap();
    pieces.enqueue();
    let after = pieces.stream.record(Timing::Enabled).unwrap();
    after.synchronize().unwrap();
    // By the device's own clock: 2 ms, and 800 bytes at 1 MB/s.
    let took = after.elapsed_since(&before).unwrap();
    assert!(took >= Duration::from_micros(2800), "{took:?}");
}
