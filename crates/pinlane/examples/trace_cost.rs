//! What a trace adds to transfers: the same with and without a session, turn and turn about, on the device that is named
//! (`cuda:0`; without a name a simulated one with a link of 20 GB/s).
//!
//! `cargo run --release -p pinlane --example trace_cost -- cuda:0`

use std::{
    env,
    error::Error,
    time::{Duration, Instant},
};

use pinlane::{
    DType, Device, DeviceOptions, HostMemory, Tensor, Tree,
    driver::sim::{DeviceConfig, Machine},
    trace,
};

/// How often each is done.
const ROUNDS: usize = 61;
/// A round lasts at least this long.
const ROUND: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn Error>> {
    let device = match env::args().nth(1) {
        Some(name) => Device::open(&name)?,
        None => {
            let machine = Machine::new(DeviceConfig {
                bytes_per_second: Some(20e9),
                poison: false,
                ..DeviceConfig::default()
            });
            Device::with_options(machine.device(0)?, &DeviceOptions::default())?
        }
    };
    if let Some(driver) = device.driver() {
        println!("{} ({})", driver.properties().name, device);
    }
    let pageable = |count: usize, bytes: usize| -> pinlane::Result<Vec<Tensor>> {
        let tensor = |seed| Tensor::rand(DType::F32, &[bytes / 4], seed as u64);
        (0..count).map(tensor).collect()
    };
    let pinned = HostMemory::Pinned(&device).rand(DType::F32, &[16 << 18], 1)?;
    compare("256 MiB, pageable", &device, &pageable(1, 256 << 20)?)?;
    compare("16 MiB, pageable", &device, &pageable(1, 16 << 20)?)?;
    compare("16 MiB, pinned", &device, &vec![pinned])?;
    compare("1000 x 4 kB, pageable", &device, &pageable(1000, 4000)?)?;
    compare("1 x 4 kB, pageable", &device, &pageable(1, 4000)?)?;
    Ok(())
}

/// Moves `tensors` to the device, now with a session and now without, and prints how the medians compare.
fn compare(what: &str, device: &Device, tensors: &Vec<Tensor>) -> pinlane::Result<()> {
    let once = || -> pinlane::Result<Duration> {
        let began = Instant::now();
        // A lone tensor goes by itself: a list of one would not take the short way.
        match tensors.as_slice() {
            [lone] => drop(lone.to(device)?),
            _ => drop(tensors.to(device)?),
        }
        Ok(began.elapsed())
    };
    once()?;
    let times = (ROUND.as_secs_f64() / once()?.as_secs_f64()).ceil().max(1.0) as usize;
    let round = || -> pinlane::Result<f64> {
        let mut took: Vec<_> = (0..times).map(|_| once()).collect::<Result<_, _>>()?;
        took.sort_unstable();
        Ok(took[times / 2].as_secs_f64())
    };
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        off.push(round()?);
        let session = trace::start();
        on.push(round()?);
        drop(session);
    }
    let mut ratios: Vec<f64> = on.iter().zip(&off).map(|(on, off)| on / off).collect();
    let (off, on, ratio) = (median(&mut off), median(&mut on), median(&mut ratios));
    println!(
        "{what:<24} off {:>9.2} us  on {:>9.2} us  ratio {ratio:.4}",
        off * 1e6,
        on * 1e6
    );
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
