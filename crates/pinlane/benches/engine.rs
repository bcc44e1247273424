//! What the engine itself costs, on an unthrottled simulated device, beside the bare work in the same run.
//!
//! - `pack`: 1000 tensors of 4 kB to the device, beside a plain loop of memcpy over the same bytes.
//! - `staged`: 256 MiB to the device, beside the same two memcpys done by as many bare threads.
//! - `plan`: 100,000 tensors, planned only.
//! - `small`: one tensor of 4 kB, beside the same calls made to the driver by hand.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pinlane::{
    DType, Device, DeviceOptions, HostMemory, Tensor, TransferOptions, Tree,
    driver::{
        DeviceMemory, Driver, MemCopy, Stream,
        sim::{DeviceConfig, Machine},
    },
};

/// A device whose link costs nothing and whose memory is not poisoned: what is left is the engine.
fn device() -> (Machine, Device) {
    let machine = Machine::new(DeviceConfig {
        poison: false,
        ..DeviceConfig::default()
    });
    let driver = machine.device(0).expect("the machine has a device");
    let device = Device::with_options(driver, &DeviceOptions::default()).expect("the default options fit");
    (machine, device)
}

fn random(elements: usize, seed: u64) -> Tensor {
    Tensor::rand(DType::F32, &[elements], seed).expect("the host has that much memory")
}

fn pack(criterion: &mut Criterion) {
    let (_machine, device) = device();
    let tensors: Vec<Tensor> = (0..1000).map(|seed| random(1000, seed)).collect();
    let mut group = criterion.benchmark_group("pack/1000x4kB");
    group.throughput(Throughput::Bytes(4_000_000));
    group.bench_function("pinlane", |bencher| {
        bencher.iter(|| tensors.to(&device).expect("the device has that much memory"));
    });
    let mut landed = vec![0u8; 4_096_000];
    group.bench_function("memcpy", |bencher| {
        bencher.iter(|| {
            for (tensor, place) in tensors.iter().zip(landed.chunks_exact_mut(4096)) {
                place[..4000].copy_from_slice(tensor.as_bytes().expect("on the host"));
            }
            black_box(&mut landed);
        });
    });
    group.finish();
}

fn staged(criterion: &mut Criterion) {
    let (_machine, device) = device();
    let source = random(64 << 20, 1);
    let mut group = criterion.benchmark_group("staged/256MiB");
    group.throughput(Throughput::Bytes(256 << 20)).sample_size(20);
    group.bench_function("pinlane", |bencher| {
        bencher.iter(|| source.to(&device).expect("the device has that much memory"));
    });
    // The lanes, and the device's one copy engine in this direction.
    let threads = device.profile().expect("a device has a profile").lanes + 1;
    let mut landed = vec![0u8; 256 << 20];
    group.bench_function(format!("memcpy_by_{threads}_threads"), |bencher| {
        bencher.iter(|| copy_twice(source.as_bytes().expect("on the host"), &mut landed, threads));
    });
    group.finish();
}

/// Copies `from` to `to` through a buffer of a slot's size for each thread.
fn copy_twice(from: &[u8], to: &mut [u8], threads: usize) {
    let share = from.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for (from, to) in from.chunks(share).zip(to.chunks_mut(share)) {
            scope.spawn(move || {
                let mut slot = vec![0u8; 4 << 20];
                for (from, to) in from.chunks(slot.len()).zip(to.chunks_mut(4 << 20)) {
                    let slot = &mut slot[..from.len()];
                    slot.copy_from_slice(from);
                    to.copy_from_slice(black_box(slot));
                }
            });
        }
    });
}

fn plan(criterion: &mut Criterion) {
    let (_machine, device) = device();
    let tensors = vec![random(1000, 1); 100_000];
    let options = TransferOptions::new();
    criterion.bench_function("plan/100000x4kB", |bencher| {
        bencher.iter(|| tensors.plan(&device, &options).expect("nothing is refused"));
    });
}

fn small(criterion: &mut Criterion) {
    let (_machine, device) = device();
    let driver: &Arc<dyn Driver> = device.driver().expect("an accelerator has a driver");
    let stream = Stream::new(driver).expect("the simulator has streams");
    for (kind, tensor) in [
        ("pageable", random(1000, 1)),
        (
            "pinned",
            HostMemory::Pinned(&device)
                .rand(DType::F32, &[1000], 1)
                .expect("the budget has room"),
        ),
    ] {
        let mut group = criterion.benchmark_group(format!("small/4kB/{kind}"));
        group.bench_function("pinlane", |bencher| {
            bencher.iter(|| tensor.to(&device).expect("the device has that much memory"));
        });
        let bytes = tensor.as_bytes().expect("on the host");
        group.bench_function("driver", |bencher| {
            bencher.iter(|| {
                let memory = DeviceMemory::new(driver, bytes.len()).expect("the device has that much memory");
                // SAFETY: both ends outlive the synchronisation below.
                unsafe { stream.copy(MemCopy::to_device(memory.ptr(), bytes.as_ptr(), bytes.len())) }
                    .and_then(|()| stream.synchronize())
                    .expect("the simulator copies");
                memory
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = engine;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    targets = pack, staged, plan, small
}
criterion_main!(engine);
