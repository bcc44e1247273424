//! Writing tensors to files: those of a device through slots, by its lanes to the host; those of the host by threads.
//!
//! There is a job for each device and file. Jobs take turns, so that all files are written at once: writers of one wait for
//! each other in the kernel.

use pinlane_driver::sync::Arc;

use super::{
    TransferOptions,
    flights::Flights,
    job::{Job, Keep, Places},
    kept::Kept,
    means::{means, scatter_table},
    plan::{self, Direction, Means, Regions},
    sources::Sources,
};
use crate::{
    Device, Error, FileSink, Result, Tensor,
    error::Failure,
    file::{
        from_host::{Outgoing, write_from_host},
        writing::SinkEnd,
    },
    memory::{list, storage::Place},
};

/// Tensors that go from one device to one file.
struct Group<'a> {
    device: &'a Device,
    sink: &'a FileSink,
    /// Each with its number in the tree, and where it goes.
    members: Vec<(usize, &'a Tensor, u64)>,
}

/// A tensor that no lane carries, with its number in the tree, its file, and where it goes there.
type Loose<'a> = (usize, &'a Tensor, &'a FileSink, u64);

/// Writes each tensor to its place, and returns when all is written.
pub(crate) fn write(
    leaves: &[&Tensor],
    name: &dyn Fn(usize) -> String,
    places: &[(FileSink, u64)],
    options: &TransferOptions,
) -> Result<()> {
    if leaves.len() != places.len() {
        return Err(Error::Unsupported {
            doing: "writing tensors to files",
            reason: format!(
                "there are {} tensors and {} places; each needs one",
                leaves.len(),
                places.len()
            ),
        });
    }
    let named = |failure: Failure| failure.named(name);
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut others: Vec<Loose<'_>> = Vec::new();
    for (index, (&tensor, (sink, offset))) in leaves.iter().zip(places).enumerate() {
        check(tensor, sink, *offset).map_err(|error| named(Failure::of(index, error)))?;
        let device = match tensor.storage().place() {
            Place::Device(place) if tensor.layout().is_contiguous() => &place.device,
            _ => {
                others.push((index, tensor, sink, *offset));
                continue;
            }
        };
        let member = (index, tensor, *offset);
        let is_same = |group: &&mut Group<'_>| group.device == device && group.sink.is_same(sink);
        match groups.iter_mut().rev().find(is_same) {
            Some(group) => group.members.push(member),
            None => groups.push(Group {
                device,
                sink,
                members: vec![member],
            }),
        }
    }
    let jobs = groups.iter().map(|group| prepare(group, name, options));
    let jobs: Vec<_> = jobs.collect::<Result<_>>()?;
    let mut flights = Flights::new(false);
    for (group, job) in groups.iter().zip(&jobs) {
        let accelerator = group.device.require_accelerator("writing tensors to files")?;
        flights.push(group.device, job);
        if let Err(error) = accelerator.running.start(job, true, Arc::clone(accelerator) as _) {
            job.abort(error);
        }
    }
    if let Err(failure) = write_others(&in_turns(others)) {
        flights.fail(failure);
    }
    flights.help();
    flights.land().map_err(named)
}

/// Refuses a tensor that has not landed, or that its file has no room for.
fn check(tensor: &Tensor, sink: &FileSink, offset: u64) -> Result<()> {
    tensor.check_landed("writing a tensor to a file")?;
    let bytes = tensor.bytes()? as u64;
    match offset.checked_add(bytes) {
        Some(end) if end <= sink.bytes() => Ok(()),
        _ => Err(Error::Unsupported {
            doing: "writing a tensor to a file",
            reason: format!(
                "its {bytes} bytes reach from offset {offset} behind the end of {}, which has {} bytes",
                sink.path().display(),
                sink.bytes()
            ),
        }),
    }
}

fn sink_end(sink: &FileSink, at: u64, leaf: usize) -> SinkEnd {
    SinkEnd {
        file: Arc::clone(sink.opened()),
        at,
        leaf: leaf as u32,
    }
}

/// Plans how a group goes.
fn prepare(group: &Group<'_>, name: &dyn Fn(usize) -> String, options: &TransferOptions) -> Result<Arc<Job>> {
    let named = |index: usize, error| Failure::of(group.members[index].0, error).named(name);
    let accelerator = group.device.require_accelerator("writing tensors to files")?;
    let engine = accelerator.running.engine();
    let mut sources = Sources::with_capacity(group.members.len(), true, Kept::shared(group.members.len()));
    for (number, &(index, tensor, offset)) in group.members.iter().enumerate() {
        sources
            .take_to_file(tensor, sink_end(group.sink, offset, index))
            .map_err(|error| named(number, error))?;
    }
    let direction = Direction::ToHost;
    let plan = plan::plan(
        direction,
        &sources.leaves,
        Regions::Given(sources.regions),
        options.route,
        Means {
            scatter: scatter_table(engine, direction, &sources.leaves, false, options.route),
            // As into fresh memory, the kernel is slower than lanes that empty slots by themselves.
            fresh: true,
            ..means(engine, direction, &sources.leaves)
        },
    )
    .map_err(|refused| named(refused.leaf, *refused.error))?;
    let places = Places {
        ends: sources.ends,
        bases: sources.bases,
        lent: None,
    };
    let keep = Keep {
        sources: sources.storages,
        results: list::empty(),
    };
    Ok(Job::new(
        plan,
        places,
        options.after.clone(),
        keep,
        &Arc::default(),
        engine,
    ))
}

/// Tensors in an order in which their files take turns, where all of a file stand together.
fn in_turns<'a>(tensors: Vec<Loose<'a>>) -> Vec<Loose<'a>> {
    let (mut turn, mut last) = (0, None::<&FileSink>);
    let number = |tensor: Loose<'a>| {
        turn = if last.is_some_and(|last| last.is_same(tensor.2)) {
            turn + 1
        } else {
            0
        };
        last = Some(tensor.2);
        (turn, tensor)
    };
    let mut numbered: Vec<_> = tensors.into_iter().map(number).collect();
    numbered.sort_by_key(|&(turn, _)| turn);
    numbered.into_iter().map(|(_, tensor)| tensor).collect()
}

/// Writes tensors that are on the host or in files, and, one after the other by way of the host, views of a device.
fn write_others(tensors: &[Loose<'_>]) -> Result<(), Failure> {
    let mut outgoing = Vec::with_capacity(tensors.len());
    for &(index, tensor, sink, offset) in tensors {
        let failed = |error| Failure::of(index, error);
        let end = sink_end(sink, offset, index);
        if let Place::Device(_) = tensor.storage().place() {
            let here = crate::Tree::to(tensor, &Device::host()).map_err(failed)?;
            let here = Outgoing::new(&here, end).map_err(failed)?;
            write_from_host(&[here])?;
        } else {
            outgoing.push(Outgoing::new(tensor, end).map_err(failed)?);
        }
    }
    write_from_host(&outgoing)
}
