//! What does moving a file to the device do to the host's memory?
//!
//! The process is watched while the file moves. What it grows by is host memory, but for the memory of a simulated
//! device, which is the process's own too: that is subtracted. It is as large as the tensors and full at the peak, as
//! each way starts on a machine of its own and keeps all that it reads or pins until everything has landed.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use pinlane::{DType, Device, DeviceOptions, Tensor, Tree as _};
use pinlane_driver::{Driver, sync::Arc};

use crate::{
    context::Context,
    error::{Error, Result},
    experiment::Experiment,
    memory::{self, Growth},
    outcome::{
        Figure, Landed, MemoryCurve, MemoryPoint, Outcome,
        Owner::{Guide, Pinlane},
    },
    plain::Plain,
    simulated, units,
    verdict::{Judgement, Verdict},
    workload::{Checkpoint, Workload},
};

pub(super) static EXPERIMENT: Experiment = Experiment {
    id: "disk",
    claim: "Data on disk passes through pinned memory, and non-blocking copies of much of it can exhaust the RAM.",
    shows: "A file four times pinlane's pinned budget: read, pinned and copied at once; then streamed by pinlane.",
    run,
};

/// A made-up file holds this many tensors.
const TENSORS: usize = 16;

/// The least budget that leaves the engine room for slots of a useful size.
const LEAST_BUDGET: usize = 64 << 10;

fn run(context: &Context<'_>) -> Result<Outcome> {
    let file = match context.workload {
        Workload::MadeUp { .. } => TensorFile::made_up(context.pick(32 << 20, 256 << 20))?,
        Workload::Checkpoint(checkpoint) => TensorFile::of_checkpoint(checkpoint)?,
    };
    let budget = (file.bytes() / 4).max(LEAST_BUDGET);
    let mut ways = context.ways();
    ways.group(&file.label);

    // The engine goes first: what the allocator keeps of the other way's memory would hide growth.
    let engine_way = "Tensor::from_file(..).to(device)";
    ways.begin(engine_way);
    let engine = stream_through_engine(context, &file, budget)?;
    let plain_way = "read, pin_memory(), to(device, non_blocking=True)";
    ways.begin(plain_way);
    let plain = read_pin_copy(context, &file)?;
    ways.add(Guide, plain_way, plain.figure(), plain.landed);
    ways.add(Pinlane, engine_way, engine.figure(), engine.landed);
    let judgement = judge(&plain, &engine, budget as u64);
    let curve = |way: &str, owner, points| MemoryCurve {
        way: way.to_owned(),
        owner,
        budget_bytes: Some(budget as u64),
        points,
    };
    Ok(Outcome::new(ways.into_rows(), judgement)
        .with_memory_curve(curve(plain_way, Guide, plain.curve))
        .with_memory_curve(curve(engine_way, Pinlane, engine.curve)))
}

/// The claim holds where the file passes through pinned memory even when nobody asks for that, and where the way that
/// takes no care grows beyond what would have been enough: pinlane's budget.
fn judge(plain: &Moved, engine: &Moved, budget: u64) -> Judgement {
    let budget_text = units::bytes(budget);
    let pinned = Judgement::new(
        Verdict::of_fact(engine.pinned > 0),
        format!("to move the file, pinlane pins {}", units::bytes(engine.pinned)),
    );
    let grows = match (plain.growth, engine.growth) {
        (Some(plain), Some(engine)) => Judgement::new(
            Verdict::of_fact(plain > budget),
            format!(
                "host memory grows by {} the plain way and by {} with pinlane, whose pinned budget is {budget_text}",
                units::bytes(plain),
                units::bytes(engine),
            ),
        ),
        _ => Judgement::new(
            Verdict::Depends,
            "this system does not tell how much memory a process takes",
        ),
    };
    Judgement::of_parts(&[pinned, grows])
}

/// What moving the file took.
struct Moved {
    pinned: u64,
    growth: Option<u64>,
    curve: Vec<MemoryPoint>,
    landed: Landed,
}

impl Moved {
    fn figure(&self) -> Figure {
        Figure::Memory {
            peak_pinned_bytes: self.pinned,
            peak_growth_bytes: self.growth,
        }
    }
}

/// The device, a fresh one where it is simulated: on a used one, memory that was freed before is kept, and would not
/// show as growth.
fn driver(context: &Context<'_>) -> Result<Arc<dyn Driver>> {
    let properties = context.driver().properties();
    if properties.simulated {
        Ok(simulated::driver(properties.id.ordinal)?)
    } else {
        Ok(Arc::clone(context.driver()))
    }
}

/// By how much host memory grows at the peak of `work`, which puts the file on the device.
fn host_growth<T>(
    context: &Context<'_>,
    file: &TensorFile,
    driver: &Arc<dyn Driver>,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Growth)> {
    let simulated = context.driver().properties().simulated;
    // What the simulated device has allocated is written at once: the device fills it with garbage.
    let allocated = || match driver.memory_info() {
        Ok(memory) if simulated => memory.total.saturating_sub(memory.free),
        _ => 0,
    };
    let (landed, growth) = memory::growth(work, allocated)?;
    let on_device = if simulated { file.bytes() as u64 } else { 0 };
    let growth = Growth {
        peak: growth.peak.map(|peak| peak.saturating_sub(on_device)),
        ..growth
    };
    Ok((landed, growth))
}

fn stream_through_engine(context: &Context<'_>, file: &TensorFile, budget: usize) -> Result<Moved> {
    let driver = driver(context)?;
    let options = DeviceOptions {
        pinned_budget: Some(budget),
        ..DeviceOptions::default()
    };
    let ((device, landed), growth) = host_growth(context, file, &driver, || {
        let device = Device::with_options(Arc::clone(&driver), &options)?;
        let landed = file.tensors()?.to(&device)?;
        Ok((device, landed))
    })?;
    let pinned = device.stats().map_or(0, |stats| stats.pinned.peak as u64);
    let expected = file.read()?;
    Ok(Moved {
        pinned,
        growth: growth.peak,
        curve: growth.curve,
        landed: Landed::of_check(context.engine_holds(&landed, &slices(&expected))?),
    })
}

/// What a loop over a checkpoint does: everything is read, then everything is pinned, then everything is on its way.
fn read_pin_copy(context: &Context<'_>, file: &TensorFile) -> Result<Moved> {
    let driver = driver(context)?;
    let plain = Plain::new(&driver)?;
    let (landed, growth) = host_growth(context, file, &driver, || {
        let tensors = file.read()?;
        let blocks = plain.pin_each(&slices(&tensors))?;
        plain.pinned_to_each_non_blocking(&blocks)
    })?;
    let expected = file.read()?;
    let mut right = landed.len() == expected.len();
    for (block, tensor) in landed.iter().zip(&expected) {
        right &= plain.holds(block, tensor)?;
    }
    Ok(Moved {
        pinned: plain.pinned_bytes(),
        growth: growth.peak,
        curve: growth.curve,
        landed: Landed::of_check(right),
    })
}

fn slices(tensors: &[Vec<u8>]) -> Vec<&[u8]> {
    tensors.iter().map(Vec::as_slice).collect()
}

/// A tensor in a file.
struct Part {
    offset: u64,
    bytes: usize,
    dtype: DType,
    shape: Vec<usize>,
}

/// A file of tensors.
struct TensorFile {
    /// What it is, for people.
    label: String,
    path: PathBuf,
    parts: Vec<Part>,
    /// Removes a made-up file when dropped.
    _made_up: Option<tempfile::NamedTempFile>,
}

impl TensorFile {
    fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let places = checkpoint.all.tensors.iter().zip(&checkpoint.offsets);
        let parts = places.map(|(tensor, &offset)| {
            Ok(Part {
                offset,
                bytes: tensor.bytes()?,
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
            })
        });
        Ok(Self::new(
            &checkpoint.name(),
            checkpoint.path.clone(),
            parts.collect::<Result<_>>()?,
        ))
    }

    /// A file of `bytes` bytes in the system's temporary directory. No two of its words are equal.
    fn made_up(bytes: usize) -> Result<Self> {
        let directory = std::env::temp_dir();
        let error = |source| Error::File {
            action: "create a file in",
            path: directory.clone(),
            source,
        };
        let content: Vec<u8> = (0..bytes as u64 / 8)
            .flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            .collect();
        let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(error)?;
        file.write_all(&content).map_err(error)?;
        let each = content.len() / TENSORS;
        let parts = (0..TENSORS).map(|place| Part {
            offset: (place * each) as u64,
            bytes: each,
            dtype: DType::U8,
            shape: vec![each],
        });
        let path = file.path().to_owned();
        Ok(Self {
            _made_up: Some(file),
            ..Self::new("a made-up file", path, parts.collect())
        })
    }

    fn new(name: &str, path: PathBuf, parts: Vec<Part>) -> Self {
        let mut file = Self {
            label: String::new(),
            path,
            parts,
            _made_up: None,
        };
        let size = units::bytes(file.bytes() as u64);
        file.label = format!("{name}, {} tensors of {size} in all", file.parts.len());
        file
    }

    /// The bytes of all tensors.
    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The tensors where they are.
    fn tensors(&self) -> Result<Vec<Tensor>> {
        let tensors = self
            .parts
            .iter()
            .map(|part| Tensor::from_file(&self.path, part.offset, part.dtype, &part.shape));
        Ok(tensors.collect::<Result<_, _>>()?)
    }

    /// The tensors' bytes, in pageable memory.
    fn read(&self) -> Result<Vec<Vec<u8>>> {
        self.read_parts().map_err(|source| Error::File {
            action: "read",
            path: self.path.clone(),
            source,
        })
    }

    fn read_parts(&self) -> std::io::Result<Vec<Vec<u8>>> {
        let mut file = fs::File::open(&self.path)?;
        let read = |part: &Part| {
            let mut tensor = vec![0; part.bytes];
            file.seek(SeekFrom::Start(part.offset))?;
            file.read_exact(&mut tensor)?;
            Ok(tensor)
        };
        self.parts.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(growth: u64) -> Moved {
        Moved {
            pinned: 5,
            growth: Some(growth),
            curve: Vec::new(),
            landed: Landed::Right,
        }
    }

    #[test]
    fn the_claim_holds_when_the_plain_way_grows_beyond_the_budget() {
        assert_eq!(judge(&moved(80), &moved(9), 10).verdict, Verdict::Holds);
        assert_eq!(judge(&moved(10), &moved(9), 10).verdict, Verdict::Depends);
        let unknown = Moved {
            growth: None,
            ..moved(0)
        };
        assert_eq!(judge(&unknown, &moved(9), 10).verdict, Verdict::Depends);
    }
}
