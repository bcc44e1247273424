//! Plans for tensors that are only described: none is made, and no byte moves.

use super::{Direction, Explanation, Kind, Leaf, Means, Plan, Regions, placing::lay_out, plan};
use crate::{
    Device, Error, Placement, Result, Route,
    transfer::{
        engine::Engine,
        means::{check_fits, is_worth_a_slot, lies_in_fresh_memory, means, scatter_table},
        short,
    },
};

/// The memory that described tensors lie in on the host, or land in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostEnd {
    /// Ordinary memory.
    #[default]
    Pageable,
    /// Memory that the device reaches by itself.
    Pinned,
    /// Ordinary memory, with elements that do not lie one after the other. Nothing lands so.
    Strided,
    /// A file. Nothing lands there.
    File,
}

/// Tensors and a direction, to ask how they would be moved.
///
/// ```
/// use pinlane::{Device, Direction, HostEnd, Workload};
///
/// let device = Device::open("sim:0")?;
/// let workload = Workload::new(Direction::ToDevice).tensors(1000, 4000, HostEnd::Pageable)?;
/// println!("{}", workload.plan(&device, None)?);
/// println!("{}", workload.explain(&device)?);
/// # Ok::<(), pinlane::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Workload {
    direction: Direction,
    placement: Placement,
    leaves: Vec<Leaf>,
}

impl Workload {
    /// The most tensors in one: more would fill the host's memory with their plan.
    const MOST_TENSORS: usize = 1 << 24;

    /// No tensors yet, to go that way.
    #[must_use]
    pub fn new(direction: Direction) -> Self {
        Self {
            direction,
            placement: Placement::default(),
            leaves: Vec::new(),
        }
    }

    /// `count` tensors more, of `bytes` bytes each. Between devices there is no host, and `memory` is of no account.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for memory in which nothing lands, and for more tensors than can be planned at once.
    pub fn tensors(mut self, count: usize, bytes: u64, memory: HostEnd) -> Result<Self> {
        let refuse = |reason: &str| {
            Err(Error::Unsupported {
                doing: "describing tensors",
                reason: reason.to_owned(),
            })
        };
        if self.leaves.len().saturating_add(count) > Self::MOST_TENSORS {
            return refuse("there are more than 2^24; plan a part of them");
        }
        let kind = match (self.direction, memory) {
            (Direction::OnDevice, _) => Kind::Device,
            (_, HostEnd::Pageable) => Kind::Pageable,
            (_, HostEnd::Pinned) => Kind::Pinned,
            (Direction::ToHost, _) => {
                return refuse("what comes to the host lands in pageable or pinned memory, in one piece");
            }
            (_, HostEnd::Strided) => Kind::Strided,
            (_, HostEnd::File) => Kind::File { into_page: 0 },
        };
        self.leaves.extend((0..count).map(|_| Leaf { bytes, kind }));
        Ok(self)
    }

    /// Where the tensors lie on the device, or land there: all in one allocation, or each in its own.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// How `device` would move them: by the route given, or as the planner chooses.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for the host; [`Error::Driver`] where the device could not hold them; [`Error::Leaf`] around
    /// [`Error::Route`] where one can't go by that route.
    pub fn plan(&self, device: &Device, route: Option<Route>) -> Result<Plan> {
        let engine = device
            .require_accelerator("planning a transfer")?
            .running
            .engine();
        check_fits(&self.leaves, engine)?;
        let planned = match self.direction {
            Direction::ToHost => {
                lay_out(&self.leaves, self.placement).map(|(_, regions)| Regions::Given(regions))
            }
            _ => Ok(Regions::Lay(self.placement)),
        };
        let pageable = self.leaves.iter().all(|leaf| leaf.kind == Kind::Pageable);
        let means = Means {
            scatter: scatter_table(
                engine,
                self.direction,
                &self.leaves,
                self.placement == Placement::Separate,
                route,
            ),
            lent: self.direction == Direction::ToHost
                && pageable
                && matches!(route, None | Some(Route::Gathered))
                && is_worth_a_slot(engine, &self.leaves)
                && engine.slots.lends(),
            fresh: self.direction == Direction::ToHost
                && lies_in_fresh_memory(self.leaves.iter().map(|leaf| leaf.bytes)),
            short: route.is_none() && self.goes_short(engine),
            ..means(engine, self.direction, &self.leaves)
        };
        let planned = planned.and_then(|regions| plan(self.direction, &self.leaves, regions, route, means));
        planned.map_err(|refused| Error::Leaf {
            path: format!("#{}", refused.leaf),
            source: refused.error,
        })
    }

    /// Whether there is one tensor, and whoever waits for it has it go the short way.
    fn goes_short(&self, engine: &Engine) -> bool {
        match self.leaves.as_slice() {
            [leaf] => short::takes(self.direction, leaf, &engine.profile, engine.slots.slot_bytes()),
            _ => false,
        }
    }

    /// How `device` would move them, beside every other way, and by what it chooses.
    ///
    /// # Errors
    ///
    /// As for [`plan`](Self::plan).
    pub fn explain(&self, device: &Device) -> Result<Explanation> {
        Explanation::new(device, self.plan(device, None)?, |route| {
            self.plan(device, Some(route))
        })
    }
}
