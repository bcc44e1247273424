//! What does moving a file to the device do to the host's memory?

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
};

use pinlane::{DType, Device, DeviceOptions, Tensor, Tree as _};
use pinlane_driver::sync::Arc;

use crate::{
    context::Context,
    error::{Error, Result},
    experiment::Experiment,
    memory,
    outcome::{
        Figure, Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::{DeviceBlock, Plain},
    report, units,
    verdict::{Judgement, Verdict},
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "disk",
    claim: "Data on disk passes through pinned memory, and non-blocking copies of much of it can exhaust the RAM.",
    shows: "A file four times pinlane's pinned budget: read, pinned and copied at once; then streamed by pinlane.",
    run,
};

/// The file holds this many tensors.
const TENSORS: usize = 16;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let budget: usize = context.pick(8 << 20, 64 << 20);
    let file = write_file(4 * budget)?;
    let (path, each) = (file.path(), 4 * budget / TENSORS);
    let mut ways = context.ways();
    ways.group(format!("a file of {}", units::bytes(4 * budget as u64)));

    // The engine goes first: what the allocator keeps of the other way's memory would hide growth.
    let way = "Tensor::from_file(..).to(device)";
    ways.begin(way);
    let options = DeviceOptions {
        pinned_budget: Some(budget),
        ..DeviceOptions::default()
    };
    let ((device, landed), engine_growth) = memory::peak_growth(|| {
        let device = Device::with_options(Arc::clone(context.driver()), &options)?;
        let tensors = (0..TENSORS)
            .map(|place| Tensor::from_file(path, (place * each) as u64, DType::U8, &[each]))
            .collect::<Result<Vec<_>, _>>()?;
        let landed = tensors.to(&device)?;
        Ok((device, landed))
    })?;
    let engine_pinned = device.stats().map_or(0, |stats| stats.pinned.peak as u64);
    let expected = read_file(path, each)?;
    let expected: Vec<_> = expected.iter().map(Vec::as_slice).collect();
    let figure = Figure::Memory {
        peak_pinned_bytes: engine_pinned,
        peak_growth_bytes: engine_growth,
    };
    ways.add(
        Pinlane,
        way,
        figure,
        Some(context.engine_holds(&landed, &expected)?),
    );
    drop((device, landed));

    let way = "read, pin_memory(), to(device, non_blocking=True)";
    ways.begin(way);
    let plain = Plain::new(context.driver())?;
    let (landed, plain_growth) = memory::peak_growth(|| read_pin_copy(&plain, path, each))?;
    let plain_pinned = plain.pinned_bytes();
    let figure = Figure::Memory {
        peak_pinned_bytes: plain_pinned,
        peak_growth_bytes: plain_growth,
    };
    ways.add(Guide, way, figure, Some(context.plain_holds(&landed, &expected)?));

    let judgement = Judgement::new(
        Verdict::of_parts([
            Verdict::of_fact(engine_pinned > 0 && plain_pinned > 0),
            Verdict::of_fact(plain_pinned >= 4 * budget as u64),
        ]),
        format!(
            "for a file of {}, the plain way pins {}, pinlane {} of its budget of {}{}",
            units::bytes(4 * budget as u64),
            units::bytes(plain_pinned),
            units::bytes(engine_pinned),
            units::bytes(budget as u64),
            match (plain_growth, engine_growth) {
                (Some(plain), Some(engine)) => format!(
                    "; the process grows by {} and {}",
                    units::bytes(plain),
                    units::bytes(engine)
                ),
                _ => String::new(),
            },
        ),
    );
    let outcome = Outcome::new(ways.into_rows(), judgement);
    if context.driver().properties().simulated {
        return Ok(outcome.with_note(format!(
            "{}; the memory of the simulated device is this process's, so its {} count as growth in both",
            report::SIMULATED,
            units::bytes(4 * budget as u64),
        )));
    }
    Ok(outcome)
}

/// What a loop over a checkpoint does: everything is read, then everything is pinned and on its way.
fn read_pin_copy(plain: &Plain, path: &Path, each: usize) -> Result<Vec<DeviceBlock>> {
    let tensors = read_file(path, each)?;
    let blocks = tensors
        .iter()
        .map(|tensor| plain.pin_memory(tensor))
        .collect::<Result<Vec<_>>>()?;
    plain.pinned_to_each_non_blocking(&blocks)
}

fn read_file(path: &Path, each: usize) -> Result<Vec<Vec<u8>>> {
    let read = |source| Error::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    (0..TENSORS)
        .map(|_| {
            let mut tensor = vec![0; each];
            file.read_exact(&mut tensor).map_err(read)?;
            Ok(tensor)
        })
        .collect()
}

/// A file in the system's temporary directory, gone when dropped. No two of its words are equal.
fn write_file(bytes: usize) -> Result<tempfile::NamedTempFile> {
    let directory = std::env::temp_dir();
    let create = |source| Error::File {
        action: "create a file in",
        path: directory.clone(),
        source,
    };
    let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(create)?;
    let content: Vec<u8> = (0..bytes as u64 / 8)
        .flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    file.write_all(&content).map_err(create)?;
    Ok(file)
}
