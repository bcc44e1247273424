//! Many small copies by one kernel, by the batch call and by one DMA of as many bytes, which no way can beat: medians
//! on one GPU, all in one run, from the call until the copies are done. Every row's bytes are checked.
//!
//! ```text
//! cargo run --release -p pinlane-cuda --example scattered
//! ```

use std::{
    error::Error,
    ptr::NonNull,
    time::{Duration, Instant},
};

use pinlane_driver::{DeviceMemory, MemCopy, PinnedRange, Stream};

/// Pieces and their bytes.
const ROWS: [(usize, usize); 9] = [
    (8, 4000),
    (64, 4000),
    (1000, 40),
    (1000, 4000),
    (1000, 4001),
    (10_000, 4000),
    (4096, 16 << 10),
    (1024, 64 << 10),
    (256, 256 << 10),
];
const ROUNDS: usize = 20;
/// What device memory between two pieces stays untouched.
const GAP: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let driver = pinlane_cuda::open(0)?;
    println!("{:?}", driver.properties());
    let rule = driver
        .scatter_table()
        .ok_or("this driver has no kernel for scattered pieces")?;
    println!(
        "{:>8} {:>8} {:>14} {:>20} {:>20} {:>20}",
        "pieces", "bytes", "", "kernel", "batch call", "one DMA"
    );
    for (pieces, bytes) in ROWS {
        let stride = (bytes + GAP).next_multiple_of(256);
        let total = pieces * bytes;
        // Words, so that both are aligned.
        let mut host = vec![0_u128; total.div_ceil(16)];
        let mut table = vec![0_u128; rule.bytes(pieces, total).div_ceil(16)];
        let data = NonNull::from(host.as_mut_slice()).cast::<u8>();
        let entries = NonNull::from(table.as_mut_slice()).cast::<u8>();
        // SAFETY: both outlive their pins, and every copy below is waited for.
        let _pins = unsafe {
            [
                PinnedRange::new(&driver, data, total)?,
                PinnedRange::new(&driver, entries, table.len() * 16)?,
            ]
        };
        let memory = DeviceMemory::new(&driver, pieces * stride)?;
        let stream = Stream::new(&driver)?;
        // 7 shares no factor with the numbers of pieces, which have no others than 2 and 5.
        let place = |piece: usize| memory.ptr().offset(piece * 7 % pieces * stride);
        let here = |piece: usize| data.as_ptr().wrapping_add(piece * bytes);
        let there: Vec<_> = (0..pieces)
            .map(|piece| MemCopy::to_device(place(piece), here(piece), bytes))
            .collect();
        let back: Vec<_> = (0..pieces)
            .map(|piece| MemCopy::to_host(here(piece), place(piece), bytes))
            .collect();
        let whole = [
            MemCopy::to_device(memory.ptr(), data.as_ptr(), total),
            MemCopy::to_host(data.as_ptr(), memory.ptr(), total),
        ];
        for (name, copies, whole) in [
            ("to the device", &there, whole[0]),
            ("to the host", &back, whole[1]),
        ] {
            let batch = median(|| {
                // SAFETY: the pieces are apart, and everything outlives the wait.
                unsafe { driver.copy_batch(copies, stream.raw())? };
                stream.synchronize()
            })?;
            let dma = median(|| {
                // SAFETY: as above.
                unsafe { stream.copy(whole)? };
                stream.synchronize()
            })?;
            let kernel = median(|| {
                // SAFETY: as above, and the table has the room that the rule says.
                unsafe { driver.copy_scattered(copies, entries, stream.raw())? };
                stream.synchronize()
            })?;
            print!("{pieces:>8} {bytes:>8} {name:>14}");
            for time in [kernel, batch, dma] {
                let rate = total as f64 / time.as_secs_f64() / 1e9;
                print!(" {:>8.1} us {rate:>5.1} GB/s", time.as_secs_f64() * 1e6);
            }
            println!();
        }
        // There and back by the kernel alone, over memory that is cleared in between.
        let byte = |index: usize| (index.wrapping_mul(0x9E37_79B9) >> 13) as u8;
        let fill = |value: &dyn Fn(usize) -> u8| {
            // SAFETY: the vector's own bytes, which no copy uses now.
            (0..total).for_each(|index| unsafe { data.add(index).write(value(index)) });
        };
        fill(&byte);
        // SAFETY: as above; each is waited for before the host's bytes are touched again.
        unsafe {
            driver.copy_scattered(&there, entries, stream.raw())?;
            stream.synchronize()?;
            fill(&|_| 0);
            driver.copy_scattered(&back, entries, stream.raw())?;
        }
        stream.synchronize()?;
        // SAFETY: as above.
        if !(0..total).all(|index| unsafe { data.add(index).read() } == byte(index)) {
            return Err(format!("{pieces} pieces of {bytes} bytes came back with other bytes").into());
        }
    }
    Ok(())
}

/// The median time of a few rounds, after one that does not count.
fn median(mut round: impl FnMut() -> pinlane_driver::Result<()>) -> pinlane_driver::Result<Duration> {
    round()?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}
