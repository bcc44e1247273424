//! From a tree and a destination to jobs: which tensors move at all, and between which devices.
//!
//! Everything that can be refused is refused before anything moves: all jobs are prepared, then all are started. The
//! tensors over the results are made while the bytes move.

use pinlane_driver::{ErrorKind, ScatterTable, sync::Arc};

use super::{
    Placement, Route, TransferOptions,
    engine::Engine,
    file,
    flights::Flights,
    job::{Job, Keep},
    plan::{self, Direction, Kind, Leaf, Means, Plan, Regions},
    results::Results,
    sources::Sources,
};
use crate::{
    Device, Error, Layout, Result, Tensor,
    memory::storage::{Landing, Place},
};

/// Tensors that are to be somewhere else.
pub(crate) struct Request<'a> {
    pub(crate) leaves: &'a [&'a Tensor],
    /// What to call a leaf in errors.
    pub(crate) path: &'a dyn Fn(usize) -> String,
    pub(crate) to: &'a Device,
    pub(crate) options: &'a TransferOptions,
}

impl<'a> Request<'a> {
    /// Prepares and starts the transfer; gives the jobs on their way, and the results, which nobody may see before the
    /// jobs have landed. With `blocking`, the caller is about to wait for that.
    pub(crate) fn start(&self, blocking: bool) -> Result<(Flights, Vec<Tensor>)> {
        let Sorted { groups, mut outputs } = self.sort()?;
        let mut prepared = Vec::with_capacity(groups.len());
        for group in &groups {
            prepared.push(self.prepare(group)?);
        }
        let mut flights = Flights::default();
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
        for (group, prepared) in groups.iter().zip(prepared) {
            prepared.make_outputs(group, &mut outputs)?;
        }
        let outputs = outputs
            .into_iter()
            .map(|output| output.expect("every group makes its tensors' outputs"));
        Ok((flights, outputs.collect()))
    }

    /// The plans of the transfer, which is not started.
    pub(crate) fn plan(&self) -> Result<Vec<Plan>> {
        let Sorted { groups, .. } = self.sort()?;
        groups.iter().map(|group| Ok(self.plan_group(group)?.2)).collect()
    }

    /// Sorts the leaves by the way they go; those that need no copy are outputs already.
    fn sort(&self) -> Result<Sorted<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut outputs = vec![None; self.leaves.len()];
        for (index, &tensor) in self.leaves.iter().enumerate() {
            tensor
                .check_landed("moving a tensor")
                .map_err(|error| self.at(index, error))?;
            let way = match (tensor.storage().place(), self.to.is_host()) {
                (Place::Host(_), true) => {
                    outputs[index] = Some(tensor.clone());
                    continue;
                }
                (Place::File(_), true) => {
                    outputs[index] = Some(file::read(tensor).map_err(|error| self.at(index, error))?);
                    continue;
                }
                (Place::Device(from), _) if from.device == *self.to => {
                    outputs[index] = Some(tensor.clone());
                    continue;
                }
                (Place::Host(_) | Place::File(_), false) => Way::Upload,
                (Place::Device(from), true) => Way::Download(from.device.clone()),
                (Place::Device(from), false) => Way::Between(from.device.clone()),
            };
            // Trees come from one place mostly, so the last group is the one.
            match groups.iter_mut().rev().find(|group| group.way == way) {
                Some(group) => group.members.push((index, tensor)),
                None => {
                    let mut members = Vec::with_capacity(self.leaves.len() - index);
                    members.push((index, tensor));
                    groups.push(Group { way, members });
                }
            }
        }
        Ok(Sorted { groups, outputs })
    }

    /// Decides how the group goes. Gives the device whose engine moves it, too.
    fn plan_group(&self, group: &Group<'_>) -> Result<(Device, Sources, Plan)> {
        let span = tracing::debug_span!(
            "plan",
            tensors = group.members.len(),
            bytes = tracing::field::Empty
        );
        let _entered = span.enter();
        let device = match &group.way {
            Way::Download(from) => from,
            Way::Upload | Way::Between(_) => self.to,
        };
        let engine = device.require_accelerator("moving tensors")?.running.engine();
        let properties = engine.driver.properties();
        let mut sources = Sources::with_capacity(group.members.len());
        for &(index, tensor) in &group.members {
            let taken = match &group.way {
                Way::Upload => sources.take_from_host(tensor, properties.id),
                Way::Download(_) => sources.take_from_device(tensor, self.options.pinned_result),
                Way::Between(_) => sources.take_from_peer(tensor, properties),
            };
            taken.map_err(|error| self.at(index, error))?;
        }
        let (direction, regions) = match group.way {
            Way::Upload => (Direction::ToDevice, Regions::Lay(self.options.placement)),
            Way::Between(_) => (Direction::OnDevice, Regions::Lay(self.options.placement)),
            Way::Download(_) => (
                Direction::ToHost,
                Regions::Given(std::mem::take(&mut sources.regions)),
            ),
        };
        if direction != Direction::ToHost {
            check_fits(&sources.leaves, engine)?;
        }
        let plan = plan::plan(
            direction,
            &sources.leaves,
            regions,
            self.options.route,
            Means {
                scatter: self.scatter_table(engine, direction, &sources.leaves),
                ..means(engine)
            },
        )
        .map_err(|refused| self.at(group.members[refused.leaf].0, *refused.error))?;
        span.record("bytes", plan.bytes());
        Ok((device.clone(), sources, plan))
    }

    /// What the table of the driver's kernel for scattered pieces takes, where the plan may have some: asked for the first
    /// time, a driver loads the kernel.
    fn scatter_table(&self, engine: &Engine, direction: Direction, leaves: &[Leaf]) -> Option<ScatterTable> {
        let in_pieces = || match direction {
            Direction::ToHost => true,
            Direction::ToDevice => {
                self.options.placement == Placement::Separate
                    || leaves.iter().any(|leaf| leaf.kind == Kind::Pinned)
            }
            Direction::OnDevice => false,
        };
        let wanted = match self.options.route {
            None => leaves.len() >= engine.profile.gathered_runs && in_pieces(),
            Some(route) => route == Route::Gathered,
        };
        wanted.then(|| engine.driver.scatter_table()).flatten()
    }

    /// Decides how the group goes, and takes the memory for its results.
    fn prepare(&self, group: &Group<'_>) -> Result<Prepared> {
        let (device, sources, plan) = self.plan_group(group)?;
        let _span = tracing::debug_span!("allocate", bytes = plan.bytes()).entered();
        let (results, bases, ends) = match plan.direction() {
            Direction::ToHost => {
                let results = Results::on_host(&device, &sources.leaves, self.options)?;
                let (bases, ends) = (sources.bases(), results.ends());
                (results, bases, ends)
            }
            Direction::ToDevice | Direction::OnDevice => {
                let results = Results::on_device(&device, &plan)?;
                let bases = results.bases();
                (results, bases, sources.ends)
            }
        };
        let keep = Keep {
            sources: sources.storages,
            results: results.owners(),
        };
        let landing = Arc::default();
        let leaks = Arc::clone(
            &device
                .require_accelerator("moving tensors")?
                .running
                .engine()
                .leaks,
        );
        let job = Job::new(
            plan,
            ends,
            bases,
            self.options.after.clone(),
            keep,
            &landing,
            &leaks,
        );
        Ok(Prepared {
            device,
            job,
            landing,
            results,
            layouts: sources.layouts,
        })
    }

    fn at(&self, index: usize, error: Error) -> Error {
        Error::Leaf {
            path: (self.path)(index),
            source: Box::new(error),
        }
    }
}

/// The leaves of a tree, by what has to be done with them.
struct Sorted<'a> {
    groups: Vec<Group<'a>>,
    /// For each leaf its result, where it is there already.
    outputs: Vec<Option<Tensor>>,
}

/// Tensors that move between the same two places.
struct Group<'a> {
    way: Way,
    /// Each with its number in the tree.
    members: Vec<(usize, &'a Tensor)>,
}

#[derive(Clone, PartialEq, Eq)]
enum Way {
    Upload,
    Download(Device),
    Between(Device),
}

/// A group with everything it needs to start.
struct Prepared {
    /// The device whose engine moves the bytes.
    device: Device,
    job: Arc<Job>,
    landing: Arc<Landing>,
    results: Results,
    layouts: Vec<Layout>,
}

/// Refuses what the device could never hold, because its plan might be more than the host can hold.
fn check_fits(leaves: &[Leaf], engine: &Engine) -> Result<()> {
    let device = engine.driver.properties();
    let total = leaves
        .iter()
        .try_fold(0u64, |total, leaf| total.checked_add(leaf.bytes));
    if total.is_some_and(|total| total <= device.memory_bytes) {
        return Ok(());
    }
    let message = format!(
        "{} tensors are larger together than the device's {} bytes; move some of them, or parts",
        leaves.len(),
        device.memory_bytes
    );
    let source = pinlane_driver::Error::new(ErrorKind::OutOfMemory, device.id, message);
    Err(Error::driver("making room for tensors on the device", source))
}

fn means(engine: &Engine) -> Means<'_> {
    Means {
        profile: &engine.profile,
        lanes: engine.profile.lanes,
        slot_bytes: engine.slots.slot_bytes(),
        simulated: engine.driver.properties().simulated,
        scatter: None,
    }
}

impl Prepared {
    /// Makes the tensors over the results.
    fn make_outputs(self, group: &Group<'_>, outputs: &mut [Option<Tensor>]) -> Result<()> {
        for (leaf, (&(index, tensor), layout)) in group.members.iter().zip(self.layouts).enumerate() {
            let bytes = tensor.dtype().bytes_for(layout.span().end)?;
            let storage = self
                .results
                .storage(leaf, bytes, &self.job.plan)
                .until(&self.landing);
            outputs[index] = Some(Tensor::new(tensor.dtype(), layout, storage));
        }
        Ok(())
    }
}
