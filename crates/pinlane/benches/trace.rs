//! What tracing costs by itself.
//!
//! - `span/off`, `span/on`: one step of a thread, while nobody asks and while a session is open.
//! - `small/off`, `small/on`: one tensor of 4 kB to an unthrottled simulated device: the steps of the short way are all that
//!   differs.
//! - `write/100000`: the file of so many spans.
//!
//! The figure `trace-on` of `pinlane bench` is what it adds to whole transfers.

use std::{hint::black_box, io, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use pinlane::{
    DType, Device, DeviceOptions, Tensor, Tree,
    driver::sim::{DeviceConfig, Machine},
    trace,
};

/// As many spans as the file of `write` has.
const SPANS: usize = 100_000;
/// So many steps are one session: a thread keeps a million.
const STEPS: u64 = 100_000;

fn span(criterion: &mut Criterion) {
    let step = || drop(black_box(trace::span("a step")));
    let mut group = criterion.benchmark_group("span");
    group.bench_function("off", |bencher| bencher.iter(step));
    group.bench_function("on", |bencher| {
        bencher.iter_custom(|mut steps| {
            let mut took = Duration::ZERO;
            while steps > 0 {
                let session = trace::start();
                let now = steps.min(STEPS);
                let began = std::time::Instant::now();
                (0..now).for_each(|_| step());
                took += began.elapsed();
                drop(session);
                steps -= now;
            }
            took
        });
    });
    group.finish();
}

fn small(criterion: &mut Criterion) {
    let machine = Machine::new(DeviceConfig {
        poison: false,
        ..DeviceConfig::default()
    });
    let driver = machine.device(0).expect("the machine has a device");
    let device = Device::with_options(driver, &DeviceOptions::default()).expect("the default options fit");
    let tensor = Tensor::rand(DType::F32, &[1000], 1).expect("the host has that much memory");
    let mut group = criterion.benchmark_group("small");
    let mut bench = |name| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| tensor.to(&device).expect("the device has that much memory"));
        });
    };
    bench("off");
    let session = trace::start();
    bench("on");
    drop(session);
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let session = trace::start();
    (0..SPANS).for_each(|_| drop(trace::span("a step").moving(4 << 20, "staged")));
    let trace = session.finish();
    criterion.bench_function("write/100000", |bencher| {
        bencher.iter(|| trace.write_to(io::sink()).expect("a sink takes what is written"));
    });
}

criterion_group! {
    name = tracing;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = span, small, write
}
criterion_main!(tracing);
