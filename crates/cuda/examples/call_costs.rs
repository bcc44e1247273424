//! What calls cost through the trait, beside the same calls made of the driver library itself: medians of many rounds,
//! on one GPU, all in one run.
//!
//! ```text
//! cargo run --release -p pinlane-cuda --example call_costs
//! ```

use std::{
    error::Error,
    ffi::{c_int, c_void},
    hint::black_box,
    time::{Duration, Instant},
};

use libloading::Library;
use pinlane_driver::{
    DeviceMemory, DevicePtr, Driver, Event, MemCopy, PinnedRange, Stream, Timing, sync::Arc,
};

const MOST: usize = 256 << 20;
const BLOCK: usize = 16 << 10;
const PAIRS: usize = 101;
/// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`: what the stream-ordered allocator keeps when a stream is waited for.
const RELEASE_THRESHOLD: c_int = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let driver = pinlane_cuda::open(0)?;
    println!("{:?}", driver.properties());
    let mut host = vec![1_u8; MOST];
    let start = std::ptr::NonNull::new(host.as_mut_ptr()).ok_or("an empty vector")?;
    // SAFETY: the vector outlives the pin, and every copy below is waited for.
    let pin = unsafe { PinnedRange::new(&driver, start, MOST)? };
    let memory = DeviceMemory::new(&driver, MOST)?;
    let bare = Bare::load()?;
    let there = MemCopy::to_device(memory.ptr(), start.as_ptr(), MOST);

    println!("\n1 copy to the device and the wait for it, pinned, in microseconds");
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "bytes", "bare", "stream", "event", "no context", "its event"
    );
    for bytes in [
        4,
        4 << 10,
        64 << 10,
        1 << 20,
        4 << 20,
        16 << 20,
        64 << 20,
        256 << 20,
    ] {
        let copy = MemCopy { bytes, ..there };
        bare.set_current(bare.context);
        let row = [
            bare.copy_and_wait(copy, memory.ptr(), start.as_ptr(), &driver)?,
            through_stream(&driver, copy)?,
            through_event(&driver, copy)?,
        ];
        // Threads that have no context of their own: each call sets ours and takes it off again.
        bare.set_current(0);
        let foreign = through_stream(&driver, copy)?;
        let foreign_event = through_event(&driver, copy)?;
        bare.set_current(bare.context);
        print!("{bytes:>10}");
        for time in row.into_iter().chain([foreign, foreign_event]) {
            print!(" {:>10.2}", time.as_secs_f64() * 1e6);
        }
        println!();
    }

    println!("\n{} blocks of {BLOCK} bytes, pinned, in GB/s", MOST / BLOCK);
    let blocks = |to_device: bool| -> Vec<MemCopy> {
        let places = (0..MOST / BLOCK).map(|block| block * 7 % (MOST / BLOCK) * BLOCK);
        let pairs = places.enumerate().map(|(block, place)| {
            let host = start.as_ptr().wrapping_add(block * BLOCK);
            match to_device {
                true => MemCopy::to_device(memory.ptr().offset(place), host, BLOCK),
                false => MemCopy::to_host(host, memory.ptr().offset(place), BLOCK),
            }
        });
        pairs.collect()
    };
    for (name, copies) in [("to the device", blocks(true)), ("to the host", blocks(false))] {
        let stream = Stream::new(&driver)?;
        let batch = median(10, || {
            // SAFETY: the blocks are apart, and everything outlives the wait.
            unsafe { driver.copy_batch(&copies, stream.raw())? };
            stream.synchronize()
        })?;
        let single = median(10, || {
            for copy in &copies {
                // SAFETY: as above.
                unsafe { stream.copy(*copy)? };
            }
            stream.synchronize()
        })?;
        let rate = |time: Duration| MOST as f64 / time.as_secs_f64() / 1e9;
        println!(
            "{name:>14}: batch {:.1}, one by one {:.1}",
            rate(batch),
            rate(single)
        );
    }

    drop(memory);
    allocations(&driver, &bare)?;

    println!("\nother calls, in nanoseconds");
    let stream = Stream::new(&driver)?;
    let event = stream.record(Timing::Disabled)?;
    event.synchronize()?;
    let pageable = [0_u8; 64];
    let calls: [(&str, &dyn Fn() -> pinlane_driver::Result<()>); 7] = [
        ("record", &|| event.record(&stream)),
        ("query", &|| event.query().map(drop)),
        ("an event made and destroyed", &|| {
            Event::new(&driver, Timing::Disabled).map(drop)
        }),
        ("a stream waits", &|| stream.wait(&event)),
        ("4 MiB allocated and freed", &|| {
            DeviceMemory::new(&driver, 4 << 20).map(drop)
        }),
        ("is_pinned, own", &|| {
            black_box(driver.is_pinned(start.as_ptr(), 64));
            Ok(())
        }),
        ("is_pinned, pageable", &|| {
            black_box(driver.is_pinned(pageable.as_ptr(), 64));
            Ok(())
        }),
    ];
    for (name, call) in calls {
        let time = median(101, || (0..100).try_for_each(|_| call()))?;
        println!("{name:>28}: {:.0}", time.as_secs_f64() * 1e7);
        stream.synchronize()?;
    }
    drop(pin);
    Ok(())
}

/// Memory taken and given back: by the driver's cache of freed blocks, by CUDA's stream-ordered allocator (as it is, and told to
/// keep what is freed), and by its plain one. The stream is waited for between two pairs, as a program does now and then: that
/// is where a pool that keeps nothing gives its memory back.
fn allocations(driver: &Arc<dyn Driver>, bare: &Bare) -> pinlane_driver::Result<()> {
    println!("\ndevice memory allocated and freed, in microseconds");
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>10}",
        "bytes", "cache", "async", "async kept", "plain"
    );
    let stream = Stream::new(driver)?;
    for bytes in [512, 4 << 10, 256 << 10, 4 << 20, 64 << 20, 1 << 30] {
        let pair = |allocate_and_free: &dyn Fn() -> pinlane_driver::Result<()>| {
            let mut times = Vec::with_capacity(PAIRS);
            for _ in 0..PAIRS {
                let start = Instant::now();
                allocate_and_free()?;
                times.push(start.elapsed());
                stream.synchronize()?;
            }
            times.sort_unstable();
            Ok(times[PAIRS / 2])
        };
        let cached = pair(&|| DeviceMemory::new(driver, bytes).map(drop))?;
        let in_order = || {
            bare.allocate_and_free_in_order(bytes, stream.raw().as_raw() as usize);
            Ok(())
        };
        bare.keep_freed(0);
        let given_back = pair(&in_order)?;
        bare.keep_freed(u64::MAX);
        let kept = pair(&in_order)?;
        let plain = pair(&|| {
            bare.allocate_and_free(bytes);
            Ok(())
        })?;
        print!("{bytes:>10}");
        for time in [cached, given_back, kept, plain] {
            print!(" {:>10.2}", time.as_secs_f64() * 1e6);
        }
        println!();
    }
    bare.keep_freed(0);
    stream.synchronize()
}

/// The median time of a round, after a tenth of the rounds as warm-up.
fn median(
    rounds: usize,
    mut round: impl FnMut() -> pinlane_driver::Result<()>,
) -> pinlane_driver::Result<Duration> {
    for _ in 0..rounds.div_ceil(10) {
        round()?;
    }
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        round()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[rounds / 2])
}

fn rounds(bytes: usize) -> usize {
    (MOST / bytes.max(256 << 10)).clamp(9, 501)
}

fn through_stream(driver: &Arc<dyn Driver>, copy: MemCopy) -> pinlane_driver::Result<Duration> {
    let stream = Stream::new(driver)?;
    median(rounds(copy.bytes), || {
        // SAFETY: both ends outlive the wait.
        unsafe { stream.copy(copy)? };
        stream.synchronize()
    })
}

fn through_event(driver: &Arc<dyn Driver>, copy: MemCopy) -> pinlane_driver::Result<Duration> {
    let stream = Stream::new(driver)?;
    let event = Event::new(driver, Timing::Disabled)?;
    median(rounds(copy.bytes), || {
        // SAFETY: both ends outlive the wait.
        unsafe { stream.copy(copy)? };
        event.record(&stream)?;
        event.synchronize()
    })
}

/// The driver library itself, with the primary context of device 0.
struct Bare {
    context: usize,
    set_current: unsafe extern "system" fn(usize) -> c_int,
    copy: unsafe extern "system" fn(u64, *const c_void, usize, usize) -> c_int,
    synchronize: unsafe extern "system" fn(usize) -> c_int,
    allocate: unsafe extern "system" fn(*mut u64, usize) -> c_int,
    free: unsafe extern "system" fn(u64) -> c_int,
    allocate_in_order: unsafe extern "system" fn(*mut u64, usize, usize) -> c_int,
    free_in_order: unsafe extern "system" fn(u64, usize) -> c_int,
    default_pool: unsafe extern "system" fn(*mut usize, c_int) -> c_int,
    set_pool_attribute: unsafe extern "system" fn(usize, c_int, *mut c_void) -> c_int,
    _library: Library,
}

impl Bare {
    fn load() -> Result<Self, Box<dyn Error>> {
        // SAFETY: it is loaded already; the types below are those of `cuda.h`.
        unsafe {
            let library = Library::new("libcuda.so.1")?;
            let retain: libloading::Symbol<'_, unsafe extern "system" fn(*mut usize, c_int) -> c_int> =
                library.get(b"cuDevicePrimaryCtxRetain\0")?;
            let mut context = 0;
            if retain(&raw mut context, 0) != 0 {
                return Err("device 0 has no primary context".into());
            }
            Ok(Self {
                context,
                set_current: *library.get(b"cuCtxSetCurrent\0")?,
                copy: *library.get(b"cuMemcpyHtoDAsync_v2\0")?,
                synchronize: *library.get(b"cuStreamSynchronize\0")?,
                allocate: *library.get(b"cuMemAlloc_v2\0")?,
                free: *library.get(b"cuMemFree_v2\0")?,
                allocate_in_order: *library.get(b"cuMemAllocAsync\0")?,
                free_in_order: *library.get(b"cuMemFreeAsync\0")?,
                default_pool: *library.get(b"cuDeviceGetDefaultMemPool\0")?,
                set_pool_attribute: *library.get(b"cuMemPoolSetAttribute\0")?,
                _library: library,
            })
        }
    }

    fn set_current(&self, context: usize) {
        // SAFETY: the retained context, or none.
        assert_eq!(unsafe { (self.set_current)(context) }, 0);
    }

    fn allocate_and_free(&self, bytes: usize) {
        let mut memory = 0;
        // SAFETY: a valid place for the answer, and memory that nothing uses.
        let statuses = unsafe { [(self.allocate)(&raw mut memory, bytes), (self.free)(memory)] };
        assert_eq!(statuses, [0, 0]);
    }

    fn allocate_and_free_in_order(&self, bytes: usize, stream: usize) {
        let mut memory = 0;
        // SAFETY: as above, and a live stream.
        let statuses = unsafe {
            [
                (self.allocate_in_order)(&raw mut memory, bytes, stream),
                (self.free_in_order)(memory, stream),
            ]
        };
        assert_eq!(statuses, [0, 0]);
    }

    /// Has device 0's stream-ordered allocator keep up to so many bytes of what is freed.
    fn keep_freed(&self, mut bytes: u64) {
        let mut pool = 0;
        // SAFETY: a valid place for the answer, and a value of the attribute's type.
        let statuses = unsafe {
            [
                (self.default_pool)(&raw mut pool, 0),
                (self.set_pool_attribute)(pool, RELEASE_THRESHOLD, (&raw mut bytes).cast()),
            ]
        };
        assert_eq!(statuses, [0, 0]);
    }

    fn copy_and_wait(
        &self,
        copy: MemCopy,
        dst: DevicePtr,
        src: *const u8,
        driver: &Arc<dyn Driver>,
    ) -> pinlane_driver::Result<Duration> {
        let stream = Stream::new(driver)?;
        median(rounds(copy.bytes), || {
            // SAFETY: both ends outlive the wait.
            let statuses = unsafe {
                [
                    (self.copy)(dst.0, src.cast(), copy.bytes, stream.raw().as_raw() as usize),
                    (self.synchronize)(stream.raw().as_raw() as usize),
                ]
            };
            assert_eq!(statuses, [0, 0]);
            Ok(())
        })
    }
}
