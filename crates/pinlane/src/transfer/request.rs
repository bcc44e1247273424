//! From a tree and a destination to jobs: which tensors move at all, and between which devices.
//!
//! Everything that can be refused is refused before anything moves: all jobs are prepared, then all are started. The
//! tensors over the results are made while the bytes move.

use pinlane_driver::sync::Arc;

use super::{
    Transfer, TransferOptions,
    engine::Engine,
    file,
    job::{Job, Keep},
    plan::{self, Direction, Means, Plan, Regions},
    results::Results,
    sources::Sources,
};
use crate::{Device, Error, Layout, Result, Tensor, Tree, memory::storage::Place, tree::rebuild_from};

/// Prepares and starts a transfer. With `blocking`, the caller is about to wait for it.
pub(crate) fn start<T: Tree>(
    tree: &T,
    to: &Device,
    options: &TransferOptions,
    blocking: bool,
) -> Result<Transfer<T>> {
    let Sorted { groups, mut outputs } = sort(tree, to)?;
    let mut prepared = Vec::with_capacity(groups.len());
    for group in &groups {
        prepared.push(group.prepare(tree, to, options)?);
    }
    let mut transfer = Transfer::new();
    for Prepared { device, job, .. } in &prepared {
        let running = &device.require_accelerator("moving tensors")?.running;
        transfer.push(device, job);
        if let Err(error) = running.start(job, blocking) {
            job.abort(error);
        }
    }
    for (group, prepared) in groups.iter().zip(prepared) {
        prepared.make_outputs(group, &mut outputs)?;
    }
    let outputs = outputs
        .into_iter()
        .map(|output| output.expect("every group makes its tensors' outputs"));
    transfer.set_output(rebuild_from(tree, outputs.collect()));
    Ok(transfer)
}

/// The plans of a transfer that is not started.
pub(crate) fn plan<T: Tree>(tree: &T, to: &Device, options: &TransferOptions) -> Result<Vec<Plan>> {
    let Sorted { groups, .. } = sort(tree, to)?;
    groups
        .iter()
        .map(|group| Ok(group.plan(tree, to, options)?.2))
        .collect()
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

/// Sorts the leaves by the way they go; those that need no copy are outputs already.
fn sort<'a, T: Tree>(tree: &'a T, to: &Device) -> Result<Sorted<'a>> {
    let mut leaves = Vec::new();
    tree.visit(&mut |tensor| leaves.push(tensor));
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut outputs = vec![None; leaves.len()];
    for (index, &tensor) in leaves.iter().enumerate() {
        let way = match (tensor.storage().place(), to.is_host()) {
            (Place::Host(_), true) => {
                outputs[index] = Some(tensor.clone());
                continue;
            }
            (Place::File(_), true) => {
                outputs[index] = Some(file::read(tensor).map_err(|error| at(tree, index, error))?);
                continue;
            }
            (Place::Device(from), _) if from.device == *to => {
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
                let mut members = Vec::with_capacity(leaves.len() - index);
                members.push((index, tensor));
                groups.push(Group { way, members });
            }
        }
    }
    Ok(Sorted { groups, outputs })
}

fn at<T: Tree>(tree: &T, index: usize, error: Error) -> Error {
    Error::Leaf {
        path: tree.path(index),
        source: Box::new(error),
    }
}

/// A group with everything it needs to start.
struct Prepared {
    /// The device whose engine moves the bytes.
    device: Device,
    job: Arc<Job>,
    results: Results,
    layouts: Vec<Layout>,
}

impl Group<'_> {
    /// Decides how the group goes. Gives the device whose engine moves it, too.
    fn plan<T: Tree>(
        &self,
        tree: &T,
        to: &Device,
        options: &TransferOptions,
    ) -> Result<(Device, Sources, Plan)> {
        let span = tracing::debug_span!(
            "plan",
            tensors = self.members.len(),
            bytes = tracing::field::Empty
        );
        let _entered = span.enter();
        let device = match &self.way {
            Way::Download(from) => from,
            Way::Upload | Way::Between(_) => to,
        };
        let engine = device.require_accelerator("moving tensors")?.running.engine();
        let id = engine.driver.properties().id;
        let mut sources = Sources::with_capacity(self.members.len());
        for &(index, tensor) in &self.members {
            let taken = match &self.way {
                Way::Upload => sources.take_from_host(tensor, id),
                Way::Download(_) => sources.take_from_device(tensor, options.pinned_result),
                Way::Between(from) => sources.take_from_peer(tensor, from.id().unwrap_or(id), id),
            };
            taken.map_err(|error| at(tree, index, error))?;
        }
        let (direction, regions) = match self.way {
            Way::Upload => (Direction::ToDevice, Regions::Lay(options.placement)),
            Way::Between(_) => (Direction::OnDevice, Regions::Lay(options.placement)),
            Way::Download(_) => (
                Direction::ToHost,
                Regions::Given(std::mem::take(&mut sources.regions)),
            ),
        };
        let plan = plan::plan(direction, &sources.leaves, regions, options.route, means(engine))
            .map_err(|refused| at(tree, self.members[refused.leaf].0, *refused.error))?;
        span.record("bytes", plan.bytes());
        Ok((device.clone(), sources, plan))
    }

    /// Decides how the group goes, and takes the memory for its results.
    fn prepare<T: Tree>(&self, tree: &T, to: &Device, options: &TransferOptions) -> Result<Prepared> {
        let (device, sources, plan) = self.plan(tree, to, options)?;
        let _span = tracing::debug_span!("allocate", bytes = plan.bytes()).entered();
        let (results, bases, ends) = match plan.direction() {
            Direction::ToHost => {
                let results = Results::on_host(&device, &sources.leaves, options)?;
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
        let leaks = Arc::clone(
            &device
                .require_accelerator("moving tensors")?
                .running
                .engine()
                .leaks,
        );
        let job = Job::new(plan, ends, bases, options.after.clone(), keep, &leaks);
        Ok(Prepared {
            device,
            job,
            results,
            layouts: sources.layouts,
        })
    }
}

fn means(engine: &Engine) -> Means<'_> {
    Means {
        profile: &engine.profile,
        lanes: engine.profile.lanes,
        slot_bytes: engine.slots.slot_bytes(),
    }
}

impl Prepared {
    /// Makes the tensors over the results.
    fn make_outputs(self, group: &Group<'_>, outputs: &mut [Option<Tensor>]) -> Result<()> {
        for (leaf, (&(index, tensor), layout)) in group.members.iter().zip(self.layouts).enumerate() {
            let bytes = tensor.dtype().bytes_for(layout.span().end)?;
            let storage = self.results.storage(leaf, bytes, &self.job.plan);
            outputs[index] = Some(Tensor::new(tensor.dtype(), layout, storage));
        }
        Ok(())
    }
}
