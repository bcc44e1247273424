//! `pinlane load`

use std::time::Instant;

use pinlane::{Checkpoint, DType, DTypeError, Device, Error, FileAccess, checkpoint::LoadOptions};

use crate::{
    args::{AccessArg, LoadArgs},
    checkpoint::{self, counted, progress},
    output::{Failure, print},
};

/// What to load, checked: the checkpoint and the device are open.
pub(crate) struct Config {
    checkpoint: Checkpoint,
    device: Device,
    /// What floating-point tensors become.
    dtype: Option<DType>,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// As for [`checkpoint::open`]; [`Failure::Usage`] for an unknown device or dtype.
    pub(crate) fn check(args: &LoadArgs) -> Result<Self, Failure> {
        let access = match args.access {
            AccessArg::Auto => FileAccess::Auto,
            AccessArg::Buffered => FileAccess::Buffered,
            AccessArg::Direct => FileAccess::Direct,
        };
        let device = match args.device.as_deref() {
            Some(name) => Device::open(name),
            None => Device::preferred(),
        };
        Ok(Self {
            checkpoint: checkpoint::open(&args.checkpoint, access)?,
            device: device.map_err(Failure::usage)?,
            dtype: args.dtype.as_deref().map(dtype).transpose()?,
        })
    }

    /// Loads everything, shows how far it is, and then how fast it was.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a dtype that no tensor can become; [`Failure::Run`] for a tensor that does not get there, or can't
    /// become what was asked, and when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let options = self
            .dtype
            .map_or_else(LoadOptions::new, |dtype| LoadOptions::new().dtype(dtype));
        let bar = progress(self.checkpoint.bytes());
        let start = Instant::now();
        let mut first = None;
        let (mut bytes, mut became) = (0, 0_usize);
        // The device holds all of them at the end, as it would for their user.
        let mut loaded = Vec::with_capacity(self.checkpoint.len());
        for landed in self
            .checkpoint
            .stream_with(&self.device, &options)
            .map_err(|error| match error {
                // Nothing can become that, whatever the checkpoint.
                Error::DType(_) => Failure::usage(error),
                _ => self.failed(error),
            })?
        {
            let (name, tensor) = landed.map_err(|error| self.failed(error))?;
            first.get_or_insert_with(|| start.elapsed());
            if let Some(entry) = self.checkpoint.get(&name) {
                bar.inc(entry.bytes());
                let is_as_asked = entry.dtype().is_floating_point() && Some(tensor.dtype()) == self.dtype;
                became += usize::from(is_as_asked);
            }
            bytes += tensor.bytes().map_err(|error| Failure::Run(error.into()))?;
            loaded.push(tensor);
        }
        let took = start.elapsed().as_secs_f64();
        let became = self
            .dtype
            .map_or_else(String::new, |dtype| format!(" ({became} as {dtype})"));
        bar.finish_and_clear();
        print(&format!(
            "{}{became}, {bytes} bytes to {} in {took:.3} s: {}",
            counted(loaded.len(), "tensor"),
            self.device,
            rate(bytes as f64 / took),
        ))?;
        if let Some(first) = first {
            print(&format!("the first after {:.1} ms", first.as_secs_f64() * 1e3))?;
        }
        if self
            .device
            .driver()
            .is_some_and(|driver| driver.properties().simulated)
        {
            print("simulated device: shows behaviour, not hardware speed")?;
        }
        Ok(true)
    }
}

impl Config {
    /// What kept a tensor from getting there, and, where that is what it should become, what to do.
    fn failed(&self, error: Error) -> Failure {
        let file = match &error {
            Error::Leaf { path, source }
                if matches!(**source, Error::DType(DTypeError::NoConversion { .. })) =>
            {
                self.checkpoint.get(path).map(|entry| entry.shard().path())
            }
            _ => None,
        };
        let context = match file {
            Some(file) => format!(
                "could not load {} as another dtype; choose the other tensors with --select, or leave out --dtype",
                file.display()
            ),
            None => format!("could not load to {}", self.device),
        };
        Failure::Run(anyhow::Error::new(error).context(context))
    }
}

/// Bytes a second, in the unit in which they are no less than one.
fn rate(bytes_per_second: f64) -> String {
    let (size, unit) = [(1e9, "GB/s"), (1e6, "MB/s")]
        .into_iter()
        .find(|&(size, _)| bytes_per_second >= size)
        .unwrap_or((1e3, "kB/s"));
    format!("{:.2} {unit}", bytes_per_second / size)
}

/// The dtype of that name, in small letters or large ones.
fn dtype(name: &str) -> Result<DType, Failure> {
    let known = name.to_ascii_uppercase().parse();
    // What is none is told as it was written.
    known.or_else(|_| name.parse()).map_err(Failure::usage)
}
