//! From a tree and a destination to jobs: which tensors move at all, and between which devices.
//!
//! Everything that can be refused is refused before anything moves: all jobs are prepared, then all are started. The
//! tensors over the results are made while the bytes move.

use pinlane_driver::{Properties, sync::Arc};

use super::{
    Placement, Route, TransferOptions,
    engine::Engine,
    flights::Flights,
    into::{Destinations, check_lands_contiguous},
    job::{Job, Keep, Places},
    kept::Kept,
    means::{LOOKED_AT, check_fits, is_worth_a_slot, lies_in_fresh_memory, means, scatter_table},
    outputs::Outputs,
    plan::{self, Direction, Leaf, Means, Plan, Regions},
    queue::Announcement,
    results::Results,
    short,
    sorted::{Group, Sorted, Way},
    sources::Sources,
};
use crate::{
    Device, Error, HostMemory, Result, Tensor,
    error::Failure,
    file::to_host::read_to_host,
    landing::{keeps_layout, packing},
    memory::{
        list::{self, List},
        residency,
        shared::{Batch, Shared},
        storage::{Landing, Place},
        walk,
    },
    trace::span::engine_span,
};

/// Tensors that are to be somewhere else.
pub(crate) struct Request<'a, 'r> {
    pub(crate) leaves: &'a [&'a Tensor],
    /// What to call a leaf in errors.
    pub(crate) path: &'r dyn Fn(usize) -> String,
    pub(crate) to: &'r Device,
    /// The tensors to move into, where these are to be filled rather than new ones made.
    pub(crate) into: Option<Destinations<'r>>,
    pub(crate) options: &'r TransferOptions,
}

impl<'a, 'r> Request<'a, 'r> {
    /// Has lanes woken for what seems to come, by the first of the leaves: planning goes on until they are awake.
    fn rouse<'b>(&'b self, from: &'b Device, blocking: bool) -> Option<Announcement<'b>> {
        let (direction, device) = match (from.accelerator(), self.to.accelerator()) {
            (None, Some(to)) => (Direction::ToDevice, to),
            (Some(from), None) => (Direction::ToHost, from),
            _ => return None,
        };
        let looked_at = &self.leaves[..self.leaves.len().min(LOOKED_AT)];
        let pageable = looked_at.iter().filter(|leaf| !leaf.is_pinned());
        let bytes = pageable
            .map(|leaf| leaf.bytes().unwrap_or(0))
            .fold(0, usize::saturating_add);
        let mean = bytes / looked_at.len();
        let by_the_caller = direction == Direction::ToHost
            && (self.options.pinned_result || mean <= device.running.engine().profile.gathered_run_bytes);
        if by_the_caller {
            return None;
        }
        device
            .running
            .rouse(direction, mean.saturating_mul(self.leaves.len()) as u64, blocking)
    }

    /// Prepares and starts the transfer; gives the jobs on their way, and the results, if new ones are made, which can't be
    /// read before the jobs have landed. After an error nothing has moved, and nothing will.
    pub(crate) fn start(&self) -> Result<(Flights<'static>, Outputs)> {
        self.launch(false)
    }

    /// The same for a caller who is about to wait: the sources are borrowed until then, and the results, of which nothing
    /// says that they have not landed yet, are to be kept from everybody.
    pub(crate) fn start_waited(&self) -> Result<(Flights<'a>, Outputs)> {
        self.launch(true)
    }

    /// Only with `blocking` are the flights those of a borrower.
    fn launch<'f>(&self, blocking: bool) -> Result<(Flights<'f>, Outputs)> {
        let from = self.leaves.first().map(|leaf| leaf.device());
        let announcement = from.as_ref().and_then(|from| self.rouse(from, blocking));
        let Sorted {
            groups,
            on_host,
            in_files,
            mut outputs,
        } = Sorted::new(self.leaves, self.to, self.into, self.path)?;
        let mut prepared = Vec::with_capacity(groups.len());
        for group in &groups {
            prepared.push(self.prepare(group, blocking)?);
        }
        let mut flights = Flights::new(blocking);
        for Prepared { device, job, .. } in &prepared {
            let accelerator = device.require_accelerator("moving tensors")?;
            flights.push(device, job);
            if let Err(error) = accelerator
                .running
                .start(job, blocking, Arc::clone(accelerator) as _)
            {
                job.abort(error);
            }
        }
        drop(announcement);
        if let Some(into) = self.into
            && let Err(failure) = into.fill_on_host(&on_host)
        {
            flights.fail(failure);
        }
        let read = read_to_host(&in_files, HostMemory::Pageable, self.options.placement);
        let made = groups
            .iter()
            .zip(prepared)
            .filter(|_| self.into.is_none())
            .try_for_each(|(group, prepared)| prepared.make_outputs(group, !blocking, &mut outputs));
        // Whatever became of the outputs: the lanes count on the caller.
        if blocking {
            flights.help();
        }
        made?;
        let read = read.map_err(|failure| failure.named(self.path))?;
        for (&(index, _), output) in in_files.iter().zip(read) {
            outputs.put(index, output);
        }
        Ok((flights, outputs))
    }

    /// The plans of the transfer, which is not started.
    pub(crate) fn plan(&self) -> Result<Vec<Plan>> {
        let Sorted { groups, .. } = Sorted::new(self.leaves, self.to, self.into, self.path)?;
        let plan = |group| {
            let (device, mut sources) = self.take_sources(group, Kept::shared(0))?;
            let engine = device.require_accelerator("moving tensors")?.running.engine();
            let lent = self.may_stay_in_slot(group, &sources.leaves, engine) && engine.slots.lends();
            let short = self.goes_short(group, &sources.leaves, engine);
            self.plan_group(group, engine, &mut sources, lent, short)
        };
        groups.iter().map(plan).collect()
    }

    /// What there is to know of the group's tensors, and the device whose engine moves them.
    fn take_sources<'g>(&'g self, group: &Group<'g>, kept: Kept) -> Result<(&'g Device, Sources)> {
        let device = match group.way {
            Way::Download(from) => from,
            Way::Upload | Way::Between(_) => self.to,
        };
        let engine = device.require_accelerator("moving tensors")?.running.engine();
        let properties = engine.driver.properties();
        let located = self.into.is_some() || matches!(group.way, Way::Download(_));
        let mut sources = Sources::with_capacity(group.members.len(), located, kept);
        for &(index, tensor) in
            walk::scattered(&group.members, |(_, tensor)| Shared::address(tensor.storage()))
        {
            self.take(&mut sources, group.way, index, tensor, properties)
                .map_err(|error| self.at(index, error))?;
        }
        Ok((device, sources))
    }

    fn take(
        &self,
        sources: &mut Sources,
        way: Way<'_>,
        index: usize,
        tensor: &Tensor,
        properties: &Properties,
    ) -> Result<()> {
        match way {
            Way::Upload => sources.take_from_host(tensor, index, properties.id, self.into.is_some())?,
            Way::Download(_) => sources.take_from_device(tensor, self.lands_pinned(index, properties))?,
            Way::Between(_) => sources.take_from_peer(tensor, properties)?,
        }
        let Some(into) = self.into else {
            return Ok(());
        };
        if way != Way::Upload {
            check_lands_contiguous(tensor.layout())?;
        }
        match way {
            Way::Upload | Way::Between(_) => sources.locate(into.get(index)),
            Way::Download(_) => Ok(()),
        }
    }

    /// Whether results on the host, if they are long, lie in memory that nobody has written yet.
    fn lands_in_fresh_memory(&self, direction: Direction, engine: &Engine) -> bool {
        if direction != Direction::ToHost {
            return false;
        }
        let Some(into) = self.into else {
            let bytes = self.leaves.iter().map(|leaf| leaf.bytes().unwrap_or(0) as u64);
            return lies_in_fresh_memory(bytes);
        };
        let middle = into.get(self.leaves.len() / 2);
        match middle.storage().place() {
            Place::Host(host) => {
                let bytes = middle.bytes().unwrap_or(0);
                bytes > engine.profile.inline_bytes && !residency::has_pages(host.ptr().as_ptr(), bytes)
            }
            Place::Device(_) | Place::File(_) => false,
        }
    }

    /// Decides how the group goes.
    fn plan_group(
        &self,
        group: &Group<'_>,
        engine: &Engine,
        sources: &mut Sources,
        lent: bool,
        short: bool,
    ) -> Result<Plan> {
        let mut span = engine_span!("plan", tensors: group.members.len());
        let direction = group.way.direction();
        let regions = if direction == Direction::ToHost || self.into.is_some() {
            Regions::Given(list::take(&mut sources.regions))
        } else {
            Regions::Lay(self.options.placement)
        };
        if direction != Direction::ToHost && self.into.is_none() {
            check_fits(&sources.leaves, engine)?;
        }
        let plan = plan::plan(
            direction,
            &sources.leaves,
            regions,
            self.options.route,
            Means {
                scatter: scatter_table(
                    engine,
                    direction,
                    &sources.leaves,
                    self.options.placement == Placement::Separate || self.into.is_some(),
                    self.options.route,
                ),
                lent,
                short,
                fresh: self.lands_in_fresh_memory(direction, engine),
                behind_event: self.options.after.is_some(),
                ..means(engine, direction, &sources.leaves)
            },
        )
        .map_err(|refused| self.at(group.members[refused.leaf].0, *refused.error))?;
        span.set_bytes(plan.bytes());
        Ok(plan)
    }

    /// Decides how the group goes, and takes the memory for its results.
    fn prepare(&self, group: &Group<'_>, borrow: bool) -> Result<Prepared> {
        let kept = match borrow {
            // SAFETY: the job's flights land it before the borrow of the tensors ends.
            true => unsafe { Kept::borrowed(group.members.len()) },
            false => Kept::shared(group.members.len()),
        };
        let (device, mut sources) = self.take_sources(group, kept)?;
        let engine = device.require_accelerator("moving tensors")?.running.engine();
        let lent = if self.may_stay_in_slot(group, &sources.leaves, engine) {
            engine.slots.lend()
        } else {
            None
        };
        let plan = self.plan_group(group, engine, &mut sources, lent.is_some(), false)?;
        let lent = lent.filter(|_| plan.stays_in_slot()).map(Arc::new);
        let _span = engine_span!("allocate", plan.bytes());
        let there = |into: Destinations<'r>| group.members.iter().map(move |&(index, _)| into.get(index));
        let results = match (plan.direction(), self.into) {
            (Direction::ToHost, Some(into)) => Results::there_on_host(there(into)),
            (Direction::ToHost, None) => match &lent {
                Some(lent) => Results::in_slot(lent, device, &plan),
                None => Results::on_host(device, &sources.leaves, self.options)?,
            },
            (_, Some(into)) => Results::there_on_device(device, there(into)),
            (_, None) => Results::on_device(device, &plan)?,
        };
        let (ends, bases) = match (plan.direction(), self.into) {
            (Direction::ToHost, _) => (results.ends(), sources.bases),
            (_, Some(_)) => (sources.ends, sources.bases),
            (_, None) => (sources.ends, results.bases()),
        };
        let keep = Keep {
            sources: sources.storages,
            results: results.owners(),
        };
        let landing = Arc::default();
        let job = Job::new(
            plan,
            Places { ends, bases, lent },
            self.options.after.clone(),
            keep,
            &landing,
            engine,
        );
        Ok(Prepared {
            device: device.clone(),
            job,
            landing,
            results,
            leaves: sources.leaves,
        })
    }

    /// Whether the result of a group may stay in the slot that it lands in: one that is large enough to be worth a slot, and
    /// small enough for it.
    fn may_stay_in_slot(&self, group: &Group<'_>, leaves: &[Leaf], engine: &Engine) -> bool {
        let options = self.options;
        matches!(group.way, Way::Download(_))
            && self.into.is_none()
            && !options.pinned_result
            && options.placement == Placement::Slab
            && options.after.is_none()
            && matches!(options.route, None | Some(Route::Gathered))
            && is_worth_a_slot(engine, leaves)
    }

    /// Whether the tree is one tensor that goes the short way if its caller waits, as [`Tree::to`](crate::Tree::to) does.
    fn goes_short(&self, group: &Group<'_>, leaves: &[Leaf], engine: &Engine) -> bool {
        let options = self.options;
        let nothing_asked = self.into.is_none() && options.route.is_none() && options.after.is_none();
        match (self.leaves, leaves) {
            ([tensor], [leaf]) => {
                nothing_asked
                    && short::is_one_piece(tensor)
                    && short::takes(
                        group.way.direction(),
                        leaf,
                        &engine.profile,
                        engine.slots.slot_bytes(),
                    )
            }
            _ => false,
        }
    }

    /// Whether the result of a leaf that comes from a device lies in memory that the device reaches by itself.
    fn lands_pinned(&self, index: usize, from: &Properties) -> bool {
        match self.into.map(|into| into.get(index).storage().place()) {
            Some(Place::Host(host)) => host.pinned() == Some(from.id.backend),
            _ => self.options.pinned_result,
        }
    }

    fn at(&self, index: usize, error: Error) -> Error {
        Failure::of(index, error).named(self.path)
    }
}

/// A group with everything it needs to start.
struct Prepared {
    /// The device whose engine moves the bytes.
    device: Device,
    job: Arc<Job>,
    landing: Arc<Landing>,
    results: Results,
    leaves: List<Leaf>,
}

impl Prepared {
    /// Makes the tensors over the results; `guarded`, so that they can't be read before the job has landed.
    fn make_outputs(self, group: &Group<'_>, guarded: bool, outputs: &mut Outputs) -> Result<()> {
        let mut batch = Batch::with_capacity(group.members.len());
        for (number, (&(index, tensor), leaf)) in group.members.iter().zip(&self.leaves).enumerate() {
            let layout = match group.way {
                Way::Upload if !keeps_layout(tensor) => packing(tensor)?.0,
                _ => tensor.layout().at_start(),
            };
            let storage = self.results.storage(number, leaf.bytes as usize, &self.job.plan);
            let storage = match guarded {
                true => storage.until(&self.landing),
                false => storage,
            };
            let output = Tensor::over(tensor.dtype(), layout, batch.share(storage));
            outputs.put(index, output);
        }
        Ok(())
    }
}
