//! What does moving a file to the device do to the host's memory?

use std::{
    fs,
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
    plain::Plain,
    units,
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
    let file = TensorFile::four_times(budget)?;
    let mut ways = context.ways();
    ways.group(format!("a file of {}", units::bytes(file.bytes())));

    // The engine goes first: what the allocator keeps of the other way's memory would hide growth.
    let engine_way = "Tensor::from_file(..).to(device)";
    ways.begin(engine_way);
    let engine = stream_through_engine(context, &file, budget)?;
    let plain_way = "read, pin_memory(), to(device, non_blocking=True)";
    ways.begin(plain_way);
    let plain = read_pin_copy(context, &file)?;
    ways.add(Guide, plain_way, plain.figure(), Some(plain.verified));
    ways.add(Pinlane, engine_way, engine.figure(), Some(engine.verified));

    let mut reason = format!(
        "for a file of {}, the plain way pins {}, pinlane {} of its budget of {}",
        units::bytes(file.bytes()),
        units::bytes(plain.pinned),
        units::bytes(engine.pinned),
        units::bytes(budget as u64),
    );
    if let (Some(plain), Some(engine)) = (plain.growth, engine.growth) {
        let (plain, engine) = (units::bytes(plain), units::bytes(engine));
        reason = format!("{reason}; the process grows by {plain} and {engine}");
    }
    let verdict = Verdict::of_parts([
        Verdict::of_fact(engine.pinned > 0 && plain.pinned > 0),
        Verdict::of_fact(plain.pinned >= file.bytes()),
    ]);
    let outcome = Outcome::new(ways.into_rows(), Judgement::new(verdict, reason));
    if context.driver().properties().simulated {
        return Ok(outcome.with_note(format!(
            "the memory of the simulated device is this process's own: its {} count as growth in both ways",
            units::bytes(file.bytes()),
        )));
    }
    Ok(outcome)
}

/// What moving the file took.
struct Moved {
    pinned: u64,
    growth: Option<u64>,
    verified: bool,
}

impl Moved {
    fn figure(&self) -> Figure {
        Figure::Memory {
            peak_pinned_bytes: self.pinned,
            peak_growth_bytes: self.growth,
        }
    }
}

fn stream_through_engine(context: &Context<'_>, file: &TensorFile, budget: usize) -> Result<Moved> {
    let options = DeviceOptions {
        pinned_budget: Some(budget),
        ..DeviceOptions::default()
    };
    let ((device, landed), growth) = memory::peak_growth(|| {
        let device = Device::with_options(Arc::clone(context.driver()), &options)?;
        let tensors = (0..TENSORS)
            .map(|place| Tensor::from_file(file.path(), (place * file.each) as u64, DType::U8, &[file.each]))
            .collect::<Result<Vec<_>, _>>()?;
        let landed = tensors.to(&device)?;
        Ok((device, landed))
    })?;
    let pinned = device.stats().map_or(0, |stats| stats.pinned.peak as u64);
    let expected = file.read()?;
    let verified = context.engine_holds(&landed, &slices(&expected))?;
    Ok(Moved {
        pinned,
        growth,
        verified,
    })
}

/// What a loop over a checkpoint does: everything is read, then everything is pinned, then everything is on its way.
fn read_pin_copy(context: &Context<'_>, file: &TensorFile) -> Result<Moved> {
    let plain = Plain::new(context.driver())?;
    let (landed, growth) = memory::peak_growth(|| {
        let tensors = file.read()?;
        let blocks = plain.pin_each(&slices(&tensors))?;
        plain.pinned_to_each_non_blocking(&blocks)
    })?;
    let expected = file.read()?;
    let mut verified = landed.len() == expected.len();
    for (block, tensor) in landed.iter().zip(&expected) {
        verified &= plain.holds(block, tensor)?;
    }
    Ok(Moved {
        pinned: plain.pinned_bytes(),
        growth,
        verified,
    })
}

fn slices(tensors: &[Vec<u8>]) -> Vec<&[u8]> {
    tensors.iter().map(Vec::as_slice).collect()
}

/// A file of tensors in the system's temporary directory, gone when dropped.
struct TensorFile {
    file: tempfile::NamedTempFile,
    /// Bytes of each tensor.
    each: usize,
}

impl TensorFile {
    /// A file of four times `budget` bytes. No two of its words are equal.
    fn four_times(budget: usize) -> Result<Self> {
        let directory = std::env::temp_dir();
        let error = |source| Error::File {
            action: "create a file in",
            path: directory.clone(),
            source,
        };
        let content: Vec<u8> = (0..budget as u64 / 2)
            .flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            .collect();
        let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(error)?;
        file.write_all(&content).map_err(error)?;
        Ok(Self {
            file,
            each: content.len() / TENSORS,
        })
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn bytes(&self) -> u64 {
        (TENSORS * self.each) as u64
    }

    /// The tensors, in pageable memory.
    fn read(&self) -> Result<Vec<Vec<u8>>> {
        let error = |source| Error::File {
            action: "read",
            path: self.path().to_owned(),
            source,
        };
        let mut file = fs::File::open(self.path()).map_err(error)?;
        (0..TENSORS)
            .map(|_| {
                let mut tensor = vec![0; self.each];
                file.read_exact(&mut tensor).map_err(error)?;
                Ok(tensor)
            })
            .collect()
    }
}
