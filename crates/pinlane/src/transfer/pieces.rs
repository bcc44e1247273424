//! Moving memory of others by its addresses: many runs of bytes in one transfer, without a tensor for each end of each.
//!
//! For who holds a thousand small tensors of another library: a piece costs the planner's work and nothing else. What the
//! copies read and write is kept alive by one owner, whatever it is.

use std::{any::Any, ptr::NonNull};

use pinlane_driver::{DevicePtr, Event, sync::Arc};

use super::{
    Transfer,
    engine::Engine,
    flights::Flights,
    job::{End, Job, Keep, Places},
    kept::Kept,
    means::{means, scatter_table},
    plan::{self, Direction, Kind, Leaf, Means, Plan, Region, Regions},
    queue::Announcement,
    running::RunningEngine,
};
use crate::{
    Device, Error, Result, StridedCopy,
    memory::{
        list::{self, List},
        residency,
    },
    trace::span::engine_span,
};

/// What errors say was being done.
const DOING: &str = "moving pieces of memory";

/// Runs of bytes of others, to be moved together between a device and the host, or from another device.
///
/// ```
/// use std::{ptr::NonNull, sync::Arc};
/// use pinlane::{Device, Direction, Pieces, driver::DeviceMemory};
///
/// let device = Device::open("sim:0")?;
/// let driver = device.driver().expect("an accelerator has a driver");
/// let room = Arc::new(DeviceMemory::new(driver, 1024)?);
/// let rows = Arc::new([[1u8; 100], [2; 100], [3; 100]]);
///
/// let mut pieces = Pieces::new(&device, Direction::ToDevice, rows.len())?;
/// for (index, row) in rows.iter().enumerate() {
///     pieces.push(room.ptr().offset(index * 256), NonNull::from(row).cast(), row.len(), false);
/// }
/// // SAFETY: rows and room live in the owner, nobody writes the rows, and nobody else knows the room.
/// unsafe { pieces.start(None, Arc::new((rows, room)), false) }?.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pieces {
    device: Device,
    direction: Direction,
    leaves: List<Leaf>,
    /// For each, its end that is not the device's memory.
    ends: List<End>,
    /// For each, where it lies in the device's memory, from one of the bases on.
    regions: List<Region>,
    /// Address 0 for all; where each is in an allocation of its own, its address.
    bases: List<DevicePtr>,
    are_apart: bool,
}

impl Pieces {
    /// None yet, to go that way: to or from `device`, or from another device to it. There is room for `pieces`, which lie in
    /// one allocation of the device.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for the host.
    pub fn new(device: &Device, direction: Direction, pieces: usize) -> Result<Self> {
        device.require_accelerator(DOING)?;
        Ok(Self {
            device: device.clone(),
            direction,
            leaves: list::with_capacity(pieces),
            ends: list::with_capacity(pieces),
            regions: list::with_capacity(pieces),
            bases: list::collect([DevicePtr(0)]),
            are_apart: false,
        })
    }

    /// Each piece lies in an allocation of its own: no copy carries two of them, or touches what is between.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.are_apart = true;
        self.bases = list::with_capacity(self.leaves.capacity());
        self
    }

    /// A piece of `bytes` bytes between `at` on the device and `host`; `pinned` says whether the device reaches it there by
    /// itself.
    #[inline]
    pub fn push(&mut self, at: DevicePtr, host: NonNull<u8>, bytes: usize, pinned: bool) {
        let kind = if pinned { Kind::Pinned } else { Kind::Pageable };
        self.push_end(at, bytes, kind, End::Memory(host.as_ptr()));
    }

    /// A piece for `at` on the device that is gathered by `copy` from the storage that begins at `host`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for pieces that do not go to a device.
    pub fn push_strided(&mut self, at: DevicePtr, host: NonNull<u8>, copy: StridedCopy) -> Result<()> {
        if self.direction != Direction::ToDevice {
            return Err(Error::Unsupported {
                doing: DOING,
                reason: "only on the way to a device are they gathered".to_owned(),
            });
        }
        let bytes = copy.bytes();
        let end = End::Strided(host.as_ptr(), Box::new(copy));
        self.push_end(at, bytes, Kind::Strided, end);
        Ok(())
    }

    /// A piece for `at` on the device that comes from `from` in the memory of the device `peer`.
    ///
    /// # Errors
    ///
    /// [`Error::NoPath`] where nothing connects the two; [`Error::Unsupported`] for the host.
    pub fn push_peer(&mut self, at: DevicePtr, peer: &Device, from: DevicePtr, bytes: usize) -> Result<()> {
        let to = self.device.require_accelerator(DOING)?.running.engine();
        let peer = peer.require_accelerator(DOING)?.running.engine();
        let (to, peer) = (to.driver.properties(), peer.driver.properties());
        if !peer.shares_group_with(to) {
            return Err(Error::NoPath {
                from: peer.id,
                to: to.id,
            });
        }
        let end = if peer.id == to.id {
            End::Device(from)
        } else {
            End::Peer(peer.id, from)
        };
        self.push_end(at, bytes, Kind::Device, end);
        Ok(())
    }

    #[inline]
    fn push_end(&mut self, at: DevicePtr, bytes: usize, kind: Kind, end: End) {
        if bytes == 0 {
            return;
        }
        let mut region = Region {
            allocation: 0,
            offset: at.0,
        };
        if self.are_apart {
            region = Region {
                allocation: self.bases.len() as u32,
                offset: 0,
            };
            self.bases.push(at);
        }
        let bytes = bytes as u64;
        self.leaves.push(Leaf { bytes, kind });
        self.ends.push(end);
        self.regions.push(region);
    }

    /// Starts moving them. No copy starts before `after` has fired; what lies on the host may be read before. With `blocking`, the caller is about to wait, and should
    /// [help](Transfer::help) before it does. `owner` is dropped, on any thread, when no copy uses the memory any more.
    ///
    /// # Safety
    ///
    /// Until the transfer has landed and as long as `owner` lives: every piece can be read where it comes from, and nobody
    /// writes it there; it can be written where it goes, and nobody else reads or writes it there; what is said to be pinned
    /// stays so. Unless they are [apart](Self::apart), the same is true of what lies between two pieces on the device, where
    /// that is less than 256 bytes.
    ///
    /// # Errors
    ///
    /// What a driver says; nothing has moved then.
    pub unsafe fn start(
        mut self,
        after: Option<Arc<Event>>,
        owner: Arc<dyn Any + Send + Sync>,
        blocking: bool,
    ) -> Result<Transfer<()>> {
        let accelerator = Arc::clone(self.device.require_accelerator(DOING)?);
        let running = &accelerator.running;
        let engine = running.engine();
        let announcement = self.rouse(running, blocking);
        let plan = self.plan(engine, after.is_some())?;
        let places = Places {
            ends: self.ends,
            bases: self.bases,
            lent: None,
        };
        let keep = Keep {
            sources: Kept::shared(0),
            results: list::collect([owner]),
        };
        let job = Job::new(plan, places, after, keep, &Arc::default(), engine);
        let mut flights = Flights::new(false);
        flights.push(&self.device, &job);
        if let Err(error) = running.start(&job, blocking, Arc::clone(&accelerator) as _) {
            job.abort(error);
        }
        drop(announcement);
        Ok(Transfer::new(flights, ()))
    }

    /// Has lanes woken for what is to be planned.
    fn rouse<'a>(&self, running: &'a RunningEngine, blocking: bool) -> Option<Announcement<'a>> {
        let bytes = self.leaves.iter().filter(|leaf| leaf.kind != Kind::Pinned);
        let bytes = bytes.map(|leaf| leaf.bytes).fold(0, u64::saturating_add);
        match self.direction {
            Direction::OnDevice => None,
            direction => running.rouse(direction, bytes, blocking),
        }
    }

    fn plan(&mut self, engine: &Engine, behind_event: bool) -> Result<Plan> {
        let (direction, regions) = (self.direction, list::take(&mut self.regions));
        let mut span = engine_span!("plan", tensors: self.leaves.len());
        let regions = match direction {
            Direction::ToHost => Regions::Given(regions),
            Direction::ToDevice | Direction::OnDevice => Regions::Padded(regions),
        };
        let means = Means {
            scatter: scatter_table(engine, direction, &self.leaves, self.are_apart, None),
            fresh: self.lands_in_fresh_memory(engine),
            behind_event,
            ..means(engine, direction, &self.leaves)
        };
        let plan = plan::plan(direction, &self.leaves, regions, None, means);
        let plan = plan.map_err(|refused| Error::Leaf {
            path: format!("#{}", refused.leaf),
            source: refused.error,
        })?;
        span.set_bytes(plan.bytes());
        Ok(plan)
    }

    /// Whether what lands on the host, if it is long, lands in memory that nobody has written yet.
    fn lands_in_fresh_memory(&self, engine: &Engine) -> bool {
        let middle = self.leaves.len() / 2;
        match (self.direction, self.ends.get(middle)) {
            (Direction::ToHost, Some(End::Memory(ptr))) => {
                let bytes = self.leaves[middle].bytes as usize;
                bytes > engine.profile.inline_bytes && !residency::has_pages(*ptr, bytes)
            }
            _ => false,
        }
    }
}
