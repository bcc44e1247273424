//! The ways that race in a cell: pinlane's own choice, each route that can be forced, and the plain way.
//!
//! The plain way is torch's, over the raw driver (see [`pinlane_guide::plain`]): one call for each tensor and one
//! synchronisation at the end. Towards the host that is `.to("cpu", non_blocking=True)`, which lands in pinned memory, or
//! the blocking `.to("cpu")`, where pageable memory is wanted.

use pinlane::{Device, Placement, Plan, Route, Tensor, TransferOptions, Tree};
use pinlane_driver::sync::Arc;
use pinlane_guide::plain::{DeviceBlock, Plain};

use crate::{
    cell::{Cell, Direction},
    error::{Error, Result},
    landed::Landed,
};

/// The routes that race. One that cannot carry a cell is left out of it.
pub const ROUTES: [Route; 5] = [
    Route::Direct,
    Route::Staged,
    Route::Packed,
    Route::Gathered,
    Route::Plain,
];

/// The name of pinlane's own choice.
pub const PINLANE: &str = "pinlane";
/// The name of the plain way.
pub const PLAIN: &str = "plain";

/// The name of a route that is forced.
#[must_use]
pub fn name_of(route: Route) -> String {
    format!("route-{route}")
}

/// How the plain way moves a list to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainCall {
    /// `.to(device)`, which waits for each.
    Blocking,
    /// `.to(device, non_blocking=True)`, and one synchronisation at the end.
    NonBlocking,
}

/// Something that moves the tensors of a cell.
pub struct Way<'a> {
    /// What to call it: [`PINLANE`], [`PLAIN`], or `route-` and the route.
    pub name: String,
    run: Box<dyn Fn() -> Result<Landed> + 'a>,
}

impl<'a> Way<'a> {
    pub(crate) fn new(name: impl Into<String>, run: impl Fn() -> Result<Landed> + 'a) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }

    /// Moves the tensors, and returns when they have landed.
    ///
    /// # Errors
    ///
    /// What the engine or the driver says; see [`does_not_apply`].
    pub fn run(&self) -> Result<Landed> {
        (self.run)()
    }
}

/// Whether the error only says that a forced route cannot carry these bytes.
#[must_use]
pub fn does_not_apply(error: &Error) -> bool {
    fn is_refusal(error: &pinlane::Error) -> bool {
        match error {
            pinlane::Error::Route { .. } | pinlane::Error::Unsupported { .. } => true,
            pinlane::Error::Leaf { source, .. } => is_refusal(source),
            other => other.driver_kind() == Some(pinlane_driver::ErrorKind::Unsupported),
        }
    }
    matches!(error, Error::Engine(error) if is_refusal(error))
}

/// The tensors of a cell, where they come from, for every way.
#[derive(Debug)]
pub struct Sources<'a> {
    pub(crate) cell: Cell,
    pub(crate) expected: Vec<&'a [u8]>,
    device: Device,
    plain: Arc<Plain>,
    from: From,
}

#[derive(Debug)]
enum From {
    Host(Vec<Tensor>),
    /// Those that go to pageable memory, and those that go to pinned memory.
    Device {
        pageable: OnDevice,
        pinned: OnDevice,
    },
}

/// Tensors in allocations of their own, for the engine and for the plain way.
#[derive(Debug, Default)]
struct OnDevice {
    tensors: Vec<Tensor>,
    blocks: Vec<DeviceBlock>,
}

impl<'a> Sources<'a> {
    /// Takes the tensors to the device where they are to come from there.
    pub(crate) fn new(
        cell: Cell,
        tensors: Vec<Tensor>,
        expected: Vec<&'a [u8]>,
        device: &Device,
        plain: Arc<Plain>,
    ) -> Result<Self> {
        let from = match cell.direction {
            Direction::H2d => From::Host(tensors),
            Direction::D2h => {
                let separate = TransferOptions::new().placement(Placement::Separate);
                let there = tensors.to_with(device, &separate)?;
                let blocks = plain.to_each_non_blocking(&expected)?;
                let (mut pageable, mut pinned) = (OnDevice::default(), OnDevice::default());
                for (index, (tensor, block)) in there.into_iter().zip(blocks).enumerate() {
                    let part = if cell.memory.is_pinned(index) {
                        &mut pinned
                    } else {
                        &mut pageable
                    };
                    part.tensors.push(tensor);
                    part.blocks.push(block);
                }
                From::Device { pageable, pinned }
            }
        };
        Ok(Self {
            cell,
            expected,
            device: device.clone(),
            plain,
            from,
        })
    }

    /// The tensors: those of the host, or those of the device that are to land in pageable memory.
    pub(crate) fn tensors(&self) -> &Vec<Tensor> {
        match &self.from {
            From::Host(tensors) => tensors,
            From::Device { pageable, .. } => &pageable.tensors,
        }
    }

    /// The tensors of the device that are to land in pinned memory.
    pub(crate) fn pinned_tensors(&self) -> &[Tensor] {
        match &self.from {
            From::Host(_) => &[],
            From::Device { pinned, .. } => &pinned.tensors,
        }
    }

    /// All ways, pinlane's own choice first and the plain way last.
    #[must_use]
    pub fn ways(&self) -> Vec<Way<'_>> {
        let routes = ROUTES.into_iter().map(|route| self.route(route));
        [self.pinlane()]
            .into_iter()
            .chain(routes)
            .chain([self.plain(PlainCall::NonBlocking)])
            .collect()
    }

    /// Pinlane's own choice.
    #[must_use]
    pub fn pinlane(&self) -> Way<'_> {
        self.engine(PINLANE.to_owned(), None)
    }

    /// Every byte by one route.
    #[must_use]
    pub fn route(&self, route: Route) -> Way<'_> {
        self.engine(name_of(route), Some(route))
    }

    fn engine(&self, name: String, route: Option<Route>) -> Way<'_> {
        let options = route.map(|route| TransferOptions::new().route(route));
        match &self.from {
            From::Host(tensors) => Way::new(name, move || {
                Ok(Landed::OnDevice(moved(tensors, &self.device, options.as_ref())?))
            }),
            From::Device { pageable, pinned } => {
                let host = Device::host();
                let into_pinned = options.clone().unwrap_or_default().pinned_result();
                Way::new(name, move || {
                    // Results in both kinds of memory are two transfers, side by side; a call that waits does for one.
                    let (pageable, pinned) = if pinned.tensors.is_empty() {
                        (moved(&pageable.tensors, &host, options.as_ref())?, Vec::new())
                    } else if pageable.tensors.is_empty() {
                        (Vec::new(), pinned.tensors.to_with(&host, &into_pinned)?)
                    } else {
                        let pinned = pinned.tensors.transfer_with(&host, &into_pinned)?;
                        let pageable = moved(&pageable.tensors, &host, options.as_ref())?;
                        (pageable, pinned.wait()?)
                    };
                    Ok(Landed::OnHost { pageable, pinned })
                })
            }
        }
    }

    /// The plain way. Towards the host the memory decides which call it is.
    #[must_use]
    pub fn plain(&self, call: PlainCall) -> Way<'_> {
        let plain = &*self.plain;
        match &self.from {
            From::Host(_) => Way::new(PLAIN, move || {
                Ok(Landed::Blocks(match call {
                    PlainCall::Blocking => plain.to_each(&self.expected)?,
                    PlainCall::NonBlocking => plain.to_each_non_blocking(&self.expected)?,
                }))
            }),
            From::Device { pageable, pinned } => Way::new(PLAIN, move || {
                let later = pinned
                    .blocks
                    .iter()
                    .map(|block| plain.to_host_non_blocking(block));
                let later = later.collect::<Result<_, _>>()?;
                let now = pageable.blocks.iter().map(|block| plain.to_host(block));
                let now = now.collect::<Result<_, _>>()?;
                if !pinned.blocks.is_empty() {
                    plain.synchronize()?;
                }
                Ok(Landed::Copied {
                    pageable: now,
                    pinned: later,
                })
            }),
        }
    }

    /// How pinlane would move the cell: by itself, or by one route.
    ///
    /// # Errors
    ///
    /// As for [`Tree::plan`].
    pub fn plans(&self, route: Option<Route>) -> Result<Vec<Plan>> {
        let options = || route.map_or_else(TransferOptions::new, |route| TransferOptions::new().route(route));
        Ok(match &self.from {
            From::Host(tensors) => tensors.plan(&self.device, &options())?,
            From::Device { pageable, pinned } => {
                let host = Device::host();
                let mut plans = pageable.tensors.plan(&host, &options())?;
                plans.extend(pinned.tensors.plan(&host, &options().pinned_result())?);
                plans
            }
        })
    }
}

/// The call that a user would write: [`Tree::to`], and [`Tree::to_with`] where there is something to choose.
fn moved(tensors: &Vec<Tensor>, to: &Device, options: Option<&TransferOptions>) -> Result<Vec<Tensor>> {
    Ok(match options {
        None => tensors.to(to)?,
        Some(options) => tensors.to_with(to, options)?,
    })
}
