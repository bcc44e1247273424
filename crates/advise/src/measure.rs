//! Doing what was predicted: the guide's ways by the driver's calls, pinlane's by its engine. The bytes that each lands are
//! checked before it is timed.

use pinlane::{DType, Device, Direction, HostEnd, HostMemory, Placement, Tensor, TransferOptions, Tree as _};
use pinlane_guide::{
    device::Accelerator,
    plain::{DeviceBlock, PinnedBlock, Plain as Guide},
    timer::{self, Budget},
};

use crate::{Description, Error, Result, ways::Plain};

/// Why some are not measured.
const PLANNED_ONLY: &str = "they are planned only; `pinlane load` and `pinlane bench` measure such";

/// Tensors as they were described, and what moves them.
pub(crate) struct Bench<'a> {
    description: &'a Description,
    device: &'a Device,
    guide: Guide,
    /// The content, in pageable memory.
    host: Vec<Tensor>,
    /// Those that pinlane moves.
    tensors: Vec<Tensor>,
    /// On the device, for what comes from there.
    blocks: Vec<DeviceBlock>,
    /// How long each way is timed.
    budget: Budget,
}

impl<'a> Bench<'a> {
    /// Makes the tensors.
    ///
    /// # Errors
    ///
    /// [`Error::NotMeasured`] for strided memory and files; what the engine and the driver say, such as that there is not so
    /// much memory.
    pub(crate) fn new(
        description: &'a Description,
        accelerator: &'a Accelerator,
        budget: Budget,
    ) -> Result<Self> {
        let what = match description.memory() {
            HostEnd::Pageable | HostEnd::Pinned => None,
            HostEnd::File => Some("in files"),
            _ => Some("strided"),
        };
        if let Some(what) = what {
            return Err(Error::NotMeasured {
                what,
                reason: PLANNED_ONLY,
            });
        }
        let device = &accelerator.device;
        // Refuses what the device can't hold before the host is filled with it.
        description.workload()?.plan(device, None)?;
        let guide = Guide::new(&accelerator.driver)?;
        let make = |memory: HostMemory<'_>| -> Result<Vec<Tensor>> {
            let sizes = description
                .groups()
                .iter()
                .flat_map(|group| std::iter::repeat_n(group.bytes() as usize, group.count()));
            let tensors = sizes.enumerate().map(|(number, bytes)| {
                let value = u8::try_from(number % 251).expect("it is below 251") + 1;
                memory.full(DType::U8, &[bytes], value)
            });
            Ok(tensors.collect::<pinlane::Result<_>>()?)
        };
        let host = make(HostMemory::Pageable)?;
        let mut bench = Self {
            description,
            device,
            guide,
            tensors: Vec::new(),
            blocks: Vec::new(),
            host,
            budget,
        };
        match (description.direction(), description.memory()) {
            (Direction::ToHost, _) => {
                let apart = TransferOptions::new().placement(Placement::Separate);
                bench.tensors = bench.host.to_with(device, &apart)?;
                bench.blocks = bench.guide.to_each(&bench.sources()?)?;
            }
            (_, HostEnd::Pinned) => bench.tensors = make(HostMemory::Pinned(device))?,
            _ => bench.tensors.clone_from(&bench.host),
        }
        Ok(bench)
    }

    fn sources(&self) -> Result<Vec<&[u8]>> {
        let sources = self.host.iter().map(Tensor::as_bytes);
        Ok(sources.collect::<pinlane::Result<_>>()?)
    }

    /// The median time of one of the guide's ways, in seconds.
    pub(crate) fn guide(&self, way: Plain) -> Result<f64> {
        let sources = self.sources()?;
        let guide = &self.guide;
        let to_device = |run: &dyn Fn() -> pinlane_guide::Result<Vec<DeviceBlock>>| {
            self.time(way.name(), run, |landed| self.blocks_hold(landed))
        };
        let pinned = || guide.pin_each(&sources);
        match way {
            Plain::To => to_device(&|| guide.to_each(&sources)),
            Plain::ToNonBlocking => to_device(&|| guide.to_each_non_blocking(&sources)),
            Plain::PinThenTo => to_device(&|| guide.pin_then_to_each(&sources)),
            Plain::PinThenToNonBlocking => to_device(&|| guide.pin_then_to_each_non_blocking(&sources)),
            Plain::PinInThreads(threads) => {
                to_device(&|| guide.pin_in_threads_then_to_each(&sources, threads))
            }
            Plain::Shuttle => to_device(&|| guide.shuttle_each(&sources)),
            Plain::ReadThenPin => Err(Error::NotMeasured {
                what: "in files",
                reason: PLANNED_ONLY,
            }),
            Plain::PinnedTo => {
                let pinned = pinned()?;
                to_device(&|| guide.pinned_to_each(&pinned))
            }
            Plain::PinnedToNonBlocking => {
                let pinned = pinned()?;
                to_device(&|| guide.pinned_to_each_non_blocking(&pinned))
            }
            Plain::ToHost => self.time(
                way.name(),
                || guide.to_host_each(&self.blocks),
                |landed: &Vec<Vec<u8>>| Ok(landed.iter().zip(&sources).all(|(host, source)| host == source)),
            ),
            Plain::ToHostNonBlocking => self.time(
                way.name(),
                || guide.to_host_each_non_blocking(&self.blocks),
                |landed: &Vec<PinnedBlock>| {
                    Ok(landed
                        .iter()
                        .zip(&sources)
                        .all(|(host, source)| !host.differs_now(source)))
                },
            ),
        }
    }

    /// The median time of pinlane's way, in seconds.
    pub(crate) fn pinlane(&self, name: &'static str) -> Result<f64> {
        let host = Device::host();
        let (to, options) = match (self.description.direction(), self.description.memory()) {
            (Direction::ToHost, HostEnd::Pinned) => (&host, Some(TransferOptions::new().pinned_result())),
            (Direction::ToHost, _) => (&host, None),
            _ => (self.device, None),
        };
        let run = || -> Result<Vec<Tensor>> {
            Ok(match &options {
                Some(options) => self.tensors.to_with(to, options)?,
                None => self.tensors.to(to)?,
            })
        };
        self.time(name, run, |landed| {
            let sources = self.sources()?;
            let back = landed.to(&Device::host())?;
            let mut holds = back.len() == sources.len();
            for (tensor, source) in back.iter().zip(sources) {
                holds &= tensor.as_bytes()? == source;
            }
            Ok(holds)
        })
    }

    fn blocks_hold(&self, landed: &[DeviceBlock]) -> Result<bool> {
        let sources = self.sources()?;
        let mut holds = landed.len() == sources.len();
        for (block, source) in landed.iter().zip(sources) {
            holds &= self.guide.holds(block, source)?;
        }
        Ok(holds)
    }

    /// The median time of `run`, whose first result `holds` checks.
    fn time<T, E: Into<Error>>(
        &self,
        way: &'static str,
        run: impl Fn() -> Result<T, E>,
        holds: impl FnOnce(&T) -> Result<bool>,
    ) -> Result<f64> {
        if !holds(&run().map_err(Into::into)?)? {
            return Err(Error::WrongBytes { way });
        }
        let measured = timer::measure(self.budget, run).map_err(Into::into)?;
        Ok(measured.median_seconds)
    }
}
