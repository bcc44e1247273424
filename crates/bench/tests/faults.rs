//! A benchmark on a device where calls fail: nothing is given back while the device still uses it, and nothing stays.

use pinlane_bench::run::{Bench, Observer, Options};
use pinlane_driver::{
    Driver,
    sim::{DeviceConfig, FaultPlan, Machine},
    sync::Arc,
};
use pinlane_guide::device::Accelerator;

struct Silent;

impl Observer for Silent {
    fn started(&self, _id: &str, _done: usize, _all: usize) {}
}

/// The figures that call the driver themselves, beside the link's limit and the checks of the bytes.
const FIGURES: [&str; 2] = ["pinned-any", "d2h-warm-1gib"];

#[test]
fn calls_that_fail_never_have_memory_given_back_while_it_is_in_use() {
    let mut failed = 0;
    for seed in 0..16 {
        let device = Machine::new(DeviceConfig::default()).sim(0).unwrap();
        let accelerator = Accelerator::over(Arc::clone(&device) as Arc<dyn Driver>).unwrap();
        let options = Options {
            quick: true,
            only: FIGURES.map(str::to_owned).to_vec(),
            ..Options::default()
        };
        let bench = Bench::new(accelerator, options).unwrap();
        device.set_faults(FaultPlan::seeded(seed, 0.002));
        let outcome = bench.run(&Silent);
        failed += usize::from(!outcome.is_ok_and(|document| document.is_sound()));
        drop(bench);
        assert_eq!(device.freed_in_use(), 0, "seed {seed}");
        let alive = device.alive();
        assert_eq!(
            (alive.device_allocations, alive.pinned_ranges),
            (0, 0),
            "seed {seed}"
        );
    }
    assert!(failed > 0, "no call failed, so nothing was tried");
}
